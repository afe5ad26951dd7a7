"""Networks to attack, networks that generate, and the losses that defend them."""
