"""A victim's gradient as a program: one flat list of tensor operations in which the frozen weights are constants."""

# What torch raises, itself or through a model's code, where a function cannot be traced.
UNTRACEABLE = (
    RuntimeError,  # NotImplementedError and torch_private.Moved too
    TypeError,
    KeyError,
    AttributeError,
    ValueError,  # torch.fx.proxy.TraceError too
    IndexError,
    NameError,  # of weights that belong to no module
    AssertionError,  # of a layer that eval() does not reach
)
