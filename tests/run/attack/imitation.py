"""What a CUDA graph does, without a CUDA device."""

from __future__ import annotations


def imitated(query, inputs, pool):
    """In place of `epsbench.harness.run.attack.graphs.captured`: computes what the inputs hold at every call.

    As a graph's, its outputs are overwritten by the next call.
    """
    outputs = tuple(each.clone() for each in query(*inputs))

    def replay():
        for own, new in zip(outputs, query(*inputs), strict=True):
            own.copy_(new)
        return outputs

    return replay
