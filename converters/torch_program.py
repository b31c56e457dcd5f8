"""Exported programs (`.pt2`): written from a module and proven to be it, read back as data, their batch fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.quiet import converting, loading
from runtimes.errors import EngineError, UsageError

_MEANING = ("val", "unbacked_bindings")  # what PyTorch notes of a node and a program needs
_ROUNDING = 1e-6  # of the largest value: an exported program calls the same kernels as its module


def read_program(path: Path) -> Any:
    """The `torch.export.ExportedProgram` in a `.pt2` file that is data and nothing else; InputError otherwise."""
    with loading(path, "an exported program"):
        from runtimes.engines.torch import load_program

        return load_program(path)


def write_program(
    module: Any, feeds: Mapping[str, Any] | Sequence[Any], path: Path, name: str, original: Any = None
) -> None:
    """Export `module`, in its eval mode, with the shapes of `feeds` as `path`, and hold the program against it.

    `feeds` are tensors by argument name, or in order. `original` is what it is held against where `module` was made
    from that. EngineError, naming `name`, when it cannot be exported or the program answers otherwise.
    """
    with converting(name, "torch.export"):
        import torch

        given, named = ((), dict(feeds)) if isinstance(feeds, Mapping) else (tuple(feeds), {})
        with torch.no_grad():
            program = torch.export.export(module, given, named)
            _check_same(original or module, program.module(), given, named, name)
        _name_outputs(program)
        _strip(program)
        torch.export.save(program, path)


def with_batch(program: Any, batch: int | None, path: Path) -> Any:
    """The program with every free size fixed to `batch`; None leaves them free.

    UsageError when a free batch is asked for and the program has a fixed one.
    """
    import torch

    shapes = [node.meta["val"].shape for node in _inputs(program)]
    free = any(not isinstance(size, int) for shape in shapes for size in shape)
    if batch is None and not free:
        raise UsageError(f"{path} has a fixed batch", "export it with dynamic_shapes, or leave the batch fixed")
    if batch is None or not free:
        return program
    feeds = [_example(node.meta["val"], batch) for node in _inputs(program)]
    given, named = torch.utils._pytree.tree_unflatten(feeds, program.call_spec.in_spec)
    return torch.export.export(program.module(check_guards=False), given, named)


def example_inputs(program: Any) -> list[Any]:
    """Tensors of ones that fit the program, in the order of its inputs."""
    return [_example(node.meta["val"], 1) for node in _inputs(program)]


def input_names(program: Any) -> list[str]:
    """The names of what the program takes, in order."""
    return [str(name) for name in program.graph_signature.user_inputs]


def output_names(program: Any) -> list[str]:
    """The names of what it answers, in order."""
    return [str(name) for name in program.graph_signature.user_outputs]


def _inputs(program: Any) -> list[Any]:
    nodes = {node.name: node for node in program.graph.nodes}
    return [nodes[name] for name in input_names(program)]


def _example(value: Any, free: int) -> Any:
    import torch

    return torch.ones([size if isinstance(size, int) else free for size in value.shape], dtype=value.dtype)


def _check_same(module: Any, exported: Any, given: tuple[Any, ...], named: dict[str, Any], name: str) -> None:
    import torch

    leaves = torch.utils._pytree.tree_leaves
    for expected, answer in zip(leaves(module(*given, **named)), leaves(exported(*given, **named)), strict=True):
        if not isinstance(expected, torch.Tensor):
            what = f"{name} answers with a {type(expected).__name__}, not tensors alone"
            raise EngineError(what, "wrap it in a module that returns tensors")
        limit = _ROUNDING * max(1.0, float(expected.abs().max())) if expected.numel() else 0.0
        if not torch.allclose(expected.double(), answer.double(), rtol=0, atol=limit, equal_nan=True):
            what = f"{name} answers otherwise once exported: it draws random numbers or decides by its input's values"
            raise EngineError(what, "make it a function of its inputs alone")


def _name_outputs(program: Any) -> None:
    """Outputs that the module gave in a dictionary bear its keys, where no other tensor does."""
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
    """Without what tells of this machine and of how the module was written: paths, and switches of the compiler."""
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta = {key: value for key, value in node.meta.items() if key in _MEANING}
