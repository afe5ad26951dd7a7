"""Attacks, one a file, and the norms they move under."""
