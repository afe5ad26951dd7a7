"""Training classifiers and generative models, and keeping their weights."""
