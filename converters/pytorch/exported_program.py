"""Write exported programs (`.pt2`) and compare them with their modules; read them as data; set their sizes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.library_calls import converting, loading
from runtimes.errors import EngineError, InputError, UsageError

if TYPE_CHECKING:
    from converters.pytorch.inputs import TorchFeeds
    from runtimes.artifact import TensorSpec

_MEANING = ("val", "unbacked_bindings")  # the metadata of a node that a program needs
_ROUNDING = 1e-6  # of the largest value: an exported program calls the same kernels as its module


def read_program(path: Path) -> Any:
    """Return the `torch.export.ExportedProgram` in a `.pt2` file. Raises InputError if it is more than data."""
    with loading(path, "an exported program"):
        from runtimes.engines.torch import load_program

        return load_program(path)


def write_program(
    module: Any,
    feeds: TorchFeeds,
    path: Path,
    name: str,
    original: Any = None,
    others: Sequence[TorchFeeds] = (),
) -> None:
    """Export `module`, which is in eval mode, to `path` and compare the program's outputs with its own.

    feeds: Tensors by argument name, or in order; they set the shapes.
    original: The module to compare with, if `module` was derived from it.
    others: Further feeds of the same shapes to compare on.

    Raises EngineError, naming `name`, if the module cannot be exported or the outputs differ.
    """
    with converting(name, "torch.export"):
        import torch

        given, named = ((), dict(feeds)) if isinstance(feeds, Mapping) else (tuple(feeds), {})
        with torch.no_grad():
            program = torch.export.export(module, given, named)
            for feed in (feeds, *others):
                arguments = ((), dict(feed)) if isinstance(feed, Mapping) else (tuple(feed), {})
                _check_same(original or module, program.module(), *arguments, name)
        _name_outputs(program)
        _strip(program)
        torch.export.save(program, path)


def with_sizes(program: Any, batch: int | None, shapes: Sequence[str], path: Path) -> Any:
    """Return the program with its inputs in `shapes` (`runtimes.shapes`) and a free leading axis of size `batch`.

    With `batch` None the axis stays free; other free sizes do too. Raises UsageError for shapes that do not fit, and
    for a free batch if the program has a fixed one.
    """
    import torch

    from runtimes.shapes import with_shapes

    values = [node.meta["val"] for node in _inputs(program)]
    free = has_free_sizes(program)
    if batch is None and not free:
        raise UsageError(f"{path} has a fixed batch", "export it with dynamic_shapes, or leave the batch fixed")
    specs = with_shapes([_spec(*one) for one in zip(input_names(program), values, strict=True)], shapes)
    if not free or (batch is None and not shapes):
        return program
    wanted = [
        tuple(batch if axis == 0 and isinstance(size, str) else size for axis, size in enumerate(spec.shape))
        for spec in specs
    ]
    feeds = [_ones(value, sizes) for value, sizes in zip(values, wanted, strict=True)]
    given, named = torch.utils._pytree.tree_unflatten(feeds, program.call_spec.in_spec)
    module = program.module(check_guards=False)
    auto = torch.export.Dim.AUTO
    dynamic = [{axis: auto for axis, size in enumerate(sizes) if not isinstance(size, int)} for sizes in wanted]
    if not any(dynamic):
        return torch.export.export(module, given, named)
    in_order, by_name = torch.utils._pytree.tree_unflatten(dynamic, program.call_spec.in_spec)
    parameters = [name for name in inspect.signature(module.forward).parameters if name not in by_name]
    kept = {**dict(zip(parameters, in_order, strict=False)), **by_name}
    return torch.export.export(module, given, named, dynamic_shapes=kept)


def has_free_sizes(program: Any) -> bool:
    """Whether any size of an input is free."""
    return any(not isinstance(size, int) for node in _inputs(program) for size in node.meta["val"].shape)


def example_inputs(program: Any) -> list[Any]:
    """Return tensors of ones that fit the program's inputs, in order."""
    return [_example(node.meta["val"], 1) for node in _inputs(program)]


def input_names(program: Any) -> list[str]:
    """Return the names of the program's inputs, in order."""
    return [str(name) for name in program.graph_signature.user_inputs]


def output_names(program: Any) -> list[str]:
    """Return the names of the program's outputs, in order, without those that are None."""
    return [str(name) for name in program.graph_signature.user_outputs if name is not None]


def check_stateless(program: Any, path: Path) -> None:
    """Raise InputError if the program writes its own buffers, so that its answers change from call to call."""
    written = [*program.graph_signature.buffers_to_mutate.values(), *_written_buffers(program)]
    if written:
        raise InputError(
            f"{path} keeps a state between calls, which a converted model cannot: it writes its buffer '{written[0]}'",
            "call model.eval() before torch.export.export; a state that is needed has to be an input and an output",
        )


def _written_buffers(program: Any) -> Iterator[str]:
    """Yield the names of the buffers that operators write in place, also by way of a view."""
    import torch

    buffers = program.graph_signature.inputs_to_buffers
    operators = [node for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    views = {node for node in operators if any(one.alias_info for one in node.target._schema.returns)}
    for node in operators:
        for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            while value in views:
                value = value.args[0]
            if value.name in buffers:
                yield buffers[value.name]


def _inputs(program: Any) -> list[Any]:
    nodes = {node.name: node for node in program.graph.nodes}
    return [nodes[name] for name in input_names(program)]


def _spec(name: str, value: Any) -> TensorSpec:
    from runtimes.artifact.manifest import TensorSpec

    sizes = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return TensorSpec(name, str(value.dtype).removeprefix("torch."), sizes)


def _ones(value: Any, sizes: Sequence[int | str | None]) -> Any:
    """Return a tensor of ones in `sizes`; a free size is the one that the program was exported with."""
    import torch

    filled = [size if isinstance(size, int) else _hint(known) for size, known in zip(sizes, value.shape, strict=True)]
    return torch.ones(filled, dtype=value.dtype)


def _hint(size: Any) -> int:
    """Return the size that a symbolic one had in the export; at least 2, as PyTorch treats 1 as fixed."""
    known = None if isinstance(size, int) else size.node.hint
    return max(2, int(known)) if known is not None else 8


def _example(value: Any, free: int) -> Any:
    import torch

    return torch.ones([size if isinstance(size, int) else free for size in value.shape], dtype=value.dtype)


def _check_same(module: Any, exported: Any, given: tuple[Any, ...], named: dict[str, Any], name: str) -> None:
    import torch

    leaves = torch.utils._pytree.tree_leaves
    for expected, answer in zip(leaves(module(*given, **named)), leaves(exported(*given, **named)), strict=True):
        if not isinstance(expected, torch.Tensor):
            what = f"{name} returns a {type(expected).__name__}, not only tensors"
            raise EngineError(what, "wrap it in a module that returns tensors")
        limit = _ROUNDING * max(1.0, float(expected.abs().max())) if expected.numel() else 0.0
        if not torch.allclose(expected.double(), answer.double(), rtol=0, atol=limit, equal_nan=True):
            what = f"{name} gives other outputs after its export: it draws random numbers or branches on its inputs"
            raise EngineError(what, "make it a pure function of its inputs")


def _name_outputs(program: Any) -> None:
    """Name outputs after the keys of the dictionary that the module returned, if no other tensor has the name."""
    context = program.call_spec.out_spec.context
    keys = [str(key) for key in context] if isinstance(context, list) else []
    old = output_names(program)
    nodes = {node.name: node for node in program.graph.nodes}
    if len(keys) != len(old) or len(set(old)) != len(old) or set(old) & set(input_names(program)):
        return
    for name, key in zip(old, keys, strict=True):
        if key.isidentifier() and key not in nodes:
            nodes[name]._rename(key)
            program.graph_signature.replace_all_uses(name, key)


def _strip(program: Any) -> None:
    """Remove metadata of this machine and of the module's source code: paths, and switches of the compiler."""
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta = {key: value for key, value in node.meta.items() if key in _MEANING}
