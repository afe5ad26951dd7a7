"""Readers of data sets, one source in each file."""
