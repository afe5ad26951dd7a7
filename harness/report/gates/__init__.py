"""Commands that give a verdict for continuous integration: `check` against bounds, `compare` of two result sets."""
