"""What is loaded: the records of one or several results folders, checked and named; how numbers are written."""
