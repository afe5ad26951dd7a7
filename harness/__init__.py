"""epsbench: one ε in the latent space, one in the input space, and a harness that measures both."""

__version__ = "0.1.0"
