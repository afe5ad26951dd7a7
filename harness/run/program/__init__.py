"""A victim's gradient as a program: one flat list of tensor operations in which the frozen weights are constants."""
