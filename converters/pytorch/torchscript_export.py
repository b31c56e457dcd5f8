"""Export TorchScript to ONNX directly, with its branches and loops as If and Loop, and compare it with the module.

This is for modules that cannot be represented as an exported program.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.library_calls import first_useful_line, suppress_output
from runtimes.errors import EdgeError, EngineError, InputError

if TYPE_CHECKING:
    from converters.pytorch.inputs import TorchFeeds
    from runtimes.arrays import Array

OPSET = 17  # every runtime here reads it; the exporter writes up to 20
_OLDEST, _NEWEST = 11, 20
_ROUNDING = 1e-4  # of the largest value: ONNX Runtime sums in another order
_OPERATOR = re.compile(r"operator '([\w:.]+)'|\b((?:aten|prim|quantized)::\w+)")
_NO_TRACE = "converting a tensor to a python"  # the trace would keep one branch for all inputs


def freeze(module: Any) -> Any:
    """Return a `torch.jit.ScriptModule` without the parts that only training uses, if it can be frozen; else itself."""
    import torch

    try:
        return torch.jit.freeze(module, optimize_numerics=False)
    except (RuntimeError, AttributeError):  # it is frozen already, or has parts that cannot be
        return module


def check_stateless(module: Any, name: str) -> None:
    """Raise InputError if a frozen module writes to itself while it runs, naming the attribute and the line."""
    written = [node.s("name") for node in _nodes(module.graph) if node.kind() == "prim::SetAttr"]
    if not written:
        return
    line = _line_of(module, written[0])
    what = f"{name} keeps a state between calls, which a converted model cannot: its forward writes 'self.{written[0]}'"
    hint = "write a module that takes the state as an input and returns the new one, and export that"
    raise InputError(what + (f" ({line})" if line else ""), f"{hint}; or give the .onnx of the same model")


def has_branches(module: Any) -> bool:
    """Return whether a frozen module branches or loops depending on its input's values."""
    return any(node.kind() in ("prim::If", "prim::Loop") for node in _nodes(module.graph))


def compile_script(module: Any, feeds: TorchFeeds) -> Any:
    """Compile a `torch.nn.Module` to TorchScript, or trace it where no branch depends on values.

    Raises the compiler's RuntimeError if neither is possible.
    """
    import torch

    try:
        return freeze(torch.jit.script(module))
    except Exception as error:
        with warnings.catch_warnings(record=True) as caught, torch.no_grad():
            warnings.simplefilter("always")
            given = feeds if isinstance(feeds, Mapping) else tuple(feeds)
            how = {"example_kwarg_inputs": given} if isinstance(feeds, Mapping) else {"example_inputs": given}
            traced = torch.jit.trace(module, **how, strict=False)
        if any(_NO_TRACE in str(one.message).lower() for one in caught):
            raise RuntimeError(f"it decides by its input's values, and {first_useful_line(error)}") from error
        return freeze(traced)


def write_onnx(module: Any, feeds: Sequence[TorchFeeds], path: Path, name: str, opset: int | None = None) -> None:
    """Write the ScriptModule as the ONNX file `path`, and compare both on all `feeds`, of one shape.

    Raises InputError for arguments that are not tensors, and EngineError, with the operator, if the exporter fails or
    the answers differ.
    """
    names = _argument_names(module, feeds[0], name)
    wanted = min(max(opset or OPSET, _OLDEST), _NEWEST)
    content = _export(module, _in_order(feeds[0], names), names, wanted, name)
    path.write_bytes(content)
    _compare(module, content, [_in_order(feed, names) for feed in feeds], names, name)


def write_exported(module: Any, feeds: Sequence[TorchFeeds], path: Path, name: str, opset: int | None = None) -> Path:
    """Write a `torch.nn.Module` as an exported program next to `path`, or as ONNX if that fails; returns the file.

    Raises the first EngineError if neither works.
    """
    from converters.pytorch.exported_program import write_program

    program, onnx = (path.parent / f"{path.name}{suffix}" for suffix in (".pt2", ".onnx"))
    try:
        write_program(module, feeds[0], program, name)
        return program
    except EngineError as first:
        try:
            with suppress_output():
                plain = compile_script(module, feeds[0])
            check_stateless(plain, name)
            write_onnx(plain, feeds, onnx, name, opset)
        except (EdgeError, RuntimeError):
            onnx.unlink(missing_ok=True)
            raise first from None
        return onnx


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _line_of(module: Any, attribute: str) -> str:
    """Return the first line of its code that writes the attribute."""
    pattern = re.compile(rf"\.{re.escape(attribute)} = ")
    for _, part in module.named_modules():
        try:
            lines = part.code.splitlines()
        except (AttributeError, RuntimeError):  # a part without a forward method of its own
            continue
        for number, line in enumerate(lines, 1):
            if pattern.search(line):
                return f"line {number} of its code: {line.strip()[:100]}"
    return ""


def _argument_names(module: Any, feeds: TorchFeeds, name: str) -> list[str]:
    """Return the names of the arguments that `feeds` cover, in order."""
    arguments = module.forward.schema.arguments[1:]
    known = [one.name for one in arguments]
    if isinstance(feeds, Mapping) and not set(feeds) <= set(known):
        what = f"{name} takes {', '.join(known)}, not {', '.join(set(feeds) - set(known))}"
        raise InputError(what, f"such as --input {known[0]}=1x3")
    given = [one for one in arguments if one.name in feeds] if isinstance(feeds, Mapping) else arguments[: len(feeds)]
    if len(given) != len(feeds):
        what = f"{name} takes {len(known)} inputs ({', '.join(known)}), not {len(feeds)}"
        raise InputError(what, "give --input once for each")
    for one in given:
        if str(one.type) != "Tensor":
            what = f"{name} takes '{one.name}', which is of type {one.type}: only tensors are inputs of ONNX"
            raise InputError(what, "write a module that sets it, and export that")
    return [one.name for one in given]


def _in_order(feeds: TorchFeeds, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(feeds[name] for name in names) if isinstance(feeds, Mapping) else tuple(feeds)


def _export(module: Any, given: tuple[Any, ...], names: Sequence[str], opset: int, name: str) -> bytes:
    import torch

    content = io.BytesIO()
    try:
        with suppress_output(), torch.no_grad():
            torch.onnx.export(module, given, content, dynamo=False, opset_version=opset, input_names=list(names))
    except Exception as error:
        found = _OPERATOR.search(str(error))
        why = f"operator '{found[1] or found[2]}' has no ONNX form" if found else first_useful_line(error)
        what = f"{name} cannot be exported to ONNX opset {opset}: {why}"
        raise EngineError(what, "replace the operator in the model, or export it where it was made") from error
    return content.getvalue()


def _compare(module: Any, content: bytes, feeds: Sequence[tuple[Any, ...]], names: Sequence[str], name: str) -> None:
    import onnxruntime as ort
    import torch

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for given in (*feeds, feeds[0]):  # the first feeds again: a state that is kept elsewhere shows
            with torch.no_grad():
                expected = _leaves(module(*given))
            arrays = {one: value.numpy() for one, value in zip(names, given, strict=True)}
            kept = {one.name for one in session.get_inputs()}
            answers = session.run(None, {one: array for one, array in arrays.items() if one in kept})
            if len(answers) != len(expected) or not all(map(_is_near, expected, answers)):
                what = f"{name} gives other outputs as ONNX: it draws random numbers, or keeps a state between calls"
                raise EngineError(what, "make it a function of its inputs alone")
    except EngineError:
        raise
    except Exception as error:
        what = f"{name} does not run as ONNX: {first_useful_line(error)}"
        raise EngineError(
            what, "export it where it was made: torch.onnx.export(model, inputs, 'model.onnx')"
        ) from error


def _leaves(answer: Any) -> list[Array]:
    import torch

    return [value.numpy() for value in torch.utils._pytree.tree_leaves(answer)]


def _is_near(expected: Array, answer: Array) -> bool:
    if expected.shape != answer.shape:
        return False
    limit = _ROUNDING * max(1.0, float(np.abs(expected.astype(np.float64)).max())) if expected.size else 0.0
    return bool(np.allclose(expected.astype(np.float64), answer.astype(np.float64), rtol=0, atol=limit, equal_nan=True))
