"""Classifiers under attack, cell by cell."""
