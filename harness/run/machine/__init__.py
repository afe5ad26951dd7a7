"""The machine: memory, environment, locks, precision, time."""
