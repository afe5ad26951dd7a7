"""Measures of a generative model: bounds on its likelihood, its latent space, and the quality of its samples."""
