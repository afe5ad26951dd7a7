"""From a name in a suite to the object it stands for. No torch."""
