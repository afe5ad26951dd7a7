"""What a report shows of generative models: bounds, latent space, sample quality, gradient estimators, pictures."""
