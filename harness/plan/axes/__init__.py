"""The axes of a suite: what each may hold. No torch."""
