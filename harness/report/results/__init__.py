"""The records of one or several results folders, checked and labelled, and the format of numbers in reports."""
