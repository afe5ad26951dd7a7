"""The generative half of a report: likelihood bounds, the latent space, samples and their pictures. No torch."""
