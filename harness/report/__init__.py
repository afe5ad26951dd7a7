"""Telling it: from the records of a results folder to tables, figures, gates and comparisons. No torch."""
