"""What to do: suites, cells, names and plans. No torch."""
