"""From a function of images to a flat graph of tensor operations, for any number of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from epsbench.harness.run.speed.torch_private import private, schema

aten = torch.ops.aten

_NO_END = 2**62
_EXACT = "exact"  # of a module's meta: by the name of a constant that was cast, the name of what it was cast from


def trace(function: Callable[..., Any], *given: Tensor) -> fx.GraphModule:
    """``function`` as a graph without writes and with folded constants.

    The first axis of everything ``given`` is the row, two of them or more. It alone may have another length later.
    Raises one of `epsbench.harness.run.speed.program.UNTRACEABLE`.
    """
    if len(given[0]) < 2:
        raise ValueError("one row cannot stand for any number of them")
    make_fx, python_dispatcher = private("make_fx"), private("enable_python_dispatcher")
    mode = private("FakeTensorMode")(shape_env=private("ShapeEnv")(), allow_non_fake_inputs=True)
    fakes = [_of_any_length(mode, f"given{i}", tensor) for i, tensor in enumerate(given)]
    with mode, python_dispatcher():
        traced: fx.GraphModule = make_fx(lambda *a: function(*a), _allow_non_fake_inputs=True)(*fakes)
    _without_writes(traced)
    _skip_identities(traced)
    fold_constants(traced)
    return traced


def _of_any_length(mode: Any, name: str, tensor: Tensor) -> Tensor:
    """A fake tensor like this one whose first axis may have any length."""
    dynamic = private("DimDynamic")
    sizes = [dynamic.DUCK] + [dynamic.STATIC] * (tensor.dim() - 1)
    context = private("StatelessSymbolicContext")(dynamic_sizes=sizes)
    fake: Tensor = mode.from_tensor(tensor, source=private("ConstantSource")(name), symbolic_context=context)
    return fake


def tidy(module: fx.GraphModule) -> None:
    """Drop what nothing uses, and make the module run the graph as it is now."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()


def values(module: fx.GraphModule, *given: Tensor) -> dict[fx.Node, Any]:
    """What every node gives for these inputs."""
    recorder = _Recorder(module)
    with torch.no_grad():
        recorder.run(*given)
    return recorder.values


def arguments(node: fx.Node) -> Any:
    """A call's arguments; their types depend on the operation."""
    return node.args


def is_constant(node: object) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"


def constant(module: fx.GraphModule, node: fx.Node) -> Tensor:
    """The tensor a constant node stands for."""
    value: Tensor = getattr(module, str(node.target))
    return value


def exact_constant(module: fx.GraphModule, node: fx.Node) -> Tensor:
    """The tensor that a constant node was cast from, or else stands for."""
    value: Tensor = getattr(module, module.meta.get(_EXACT, {}).get(node.target, node.target))
    return value


def add_constant(module: fx.GraphModule, value: Tensor, before: fx.Node) -> fx.Node:
    """A new constant, for use from ``before`` on."""
    count = sum(1 for _ in module.buffers())
    while hasattr(module, f"constant_{count}"):
        count += 1
    module.register_buffer(f"constant_{count}", value.detach())
    with module.graph.inserting_before(before):
        return module.graph.get_attr(f"constant_{count}")


def only_user(node: fx.Node) -> fx.Node | None:
    """The one node that uses this one, if there is just one."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def calls(module: fx.GraphModule, *targets: object) -> Iterator[fx.Node]:
    """The calls of these operations, in order; the graph may change meanwhile."""
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node.target in targets:
            yield node


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]


def _without_writes(module: fx.GraphModule) -> None:
    """Replace operations that write into their first argument by twins that return the result.

    In the trace, everything that follows uses their result already. Other tensors on the same memory are not seen, so
    callers must compare the two. Raises `ValueError` for a write into the caller's tensors and for an operation without
    such a twin.
    """
    overload_type = private("OpOverload")
    for node in module.graph.nodes:
        if not isinstance(node.target, overload_type) or not (of := schema(node.target)).is_mutable:
            continue
        packet = str(of.name).split("::")[1]
        twin = getattr(getattr(aten, packet.removesuffix("_"), None), of.overload_name or "default", None)
        written = node.all_input_nodes[0]
        if not packet.endswith("_") or twin is None or written.op in ("placeholder", "get_attr"):
            raise ValueError(f"{node.target} writes into a tensor that may be used again")
        node.target = twin


def _skip_identities(module: fx.GraphModule) -> None:
    for node in list(module.graph.nodes):
        whole = node.target is aten.slice.Tensor and tuple(node.args[1:3]) == (0, 0) and _to_the_end(node)
        if node.target is aten.alias.default or whole:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    tidy(module)


def _to_the_end(node: fx.Node) -> bool:
    return len(node.args) == 4 and isinstance(node.args[3], int) and node.args[3] > _NO_END


def fold_constants(module: fx.GraphModule) -> None:
    """Compute now what depends only on constants."""
    known = {node: constant(module, node) for node in module.graph.nodes if is_constant(node)}
    for node in list(module.graph.nodes):
        inputs = node.all_input_nodes
        if node.op != "call_function" or not inputs or any(n not in known for n in inputs) or _differs(node.target):
            continue
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
        with torch.no_grad():
            value = node.target(*args, **kwargs)
        if isinstance(value, Tensor):
            folded = add_constant(module, value, node)
            known[folded] = value
            if node.target is private("to_copy"):
                module.meta.setdefault(_EXACT, {})[folded.target] = inputs[0].target
            node.replace_all_uses_with(folded)
    tidy(module)


def _differs(target: object) -> bool:
    """Whether an operation may give another result the next time, or is not one of torch's."""
    if not isinstance(target, private("OpOverload")):
        return True
    tags: Any = getattr(target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags
