"""The report for a paper: tables with booktabs and siunitx, to be included with ``\\input``."""
