"""Checks that the numbers of a generative model mean what they seem to mean."""
