"""Reports: from the records of a results folder to tables, figures, gates and comparisons. Imports no torch."""
