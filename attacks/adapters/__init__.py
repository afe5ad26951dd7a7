"""Attacks of other libraries, by their names there. A library is imported only when an attack of it is named."""
