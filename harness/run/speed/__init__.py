"""What is fast on this machine. Nothing here changes a verdict: skip this room at first."""
