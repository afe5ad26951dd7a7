"""Data sets on the device: reading, splitting, augmenting."""
