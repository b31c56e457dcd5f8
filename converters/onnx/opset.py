"""Check that an ONNX file has the opset, or the fixed shapes, that a tool needs.

Exporters may silently write another opset than the requested one (they only log it), so the result is checked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from converters.library_calls import loading
from runtimes.errors import EngineError, InputError, UsageError

_UNKNOWN = re.compile(r"No Op registered for (\w+)")
WRITTEN_OPSET = 17  # every exporter here can write it, and every engine reads it


def choose_opset(asked: int | None, default: int, oldest: int, newest: int, tool: str) -> int:
    """Return the opset to write: `asked`, or `default`.

    Raises UsageError if it is outside of `oldest` to `newest`, which `tool` can write.
    """
    opset = default if asked is None else asked
    if not oldest <= opset <= newest:
        raise UsageError(f"{tool} cannot write opset {opset}", f"ask for one of {oldest} to {newest}")
    return opset


def check_opset(proto: Any, opset: int, tool: str) -> None:
    """Raise EngineError if the model that `tool` wrote has another opset or is invalid."""
    import onnx

    found = opset_of(proto)
    if found != opset:
        raise EngineError(f"{tool} wrote opset {found} instead of {opset}", "ask for another opset")
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        what = str(error).strip().splitlines()[0]
        if left := _UNKNOWN.search(what):
            what = f"{tool} does not convert the operator {left[1]}, or not to opset {opset}"
            raise EngineError(what, "replace it in the model, or ask for another opset") from error
        raise EngineError(f"{tool} wrote an invalid model: {what}", "ask for another opset") from error


def opset_of(model: Any) -> int:
    """Return the version of ONNX's own operator set that a model uses; one that uses none suits any."""
    found = (int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return next(found, WRITTEN_OPSET)


def shapes_for_batch(model: Path, batch: int, newest_opset: int | None = None) -> dict[str, list[int]]:
    """Return the shapes of the inputs by name, with a free first dimension set to `batch`.

    Raises InputError for a broken file, for any other free dimension, and for an opset beyond `newest_opset`; None
    allows any.
    """
    with loading(model, "ONNX"):
        import onnx

        proto = onnx.load(model, load_external_data=False)
        found = opset_of(proto)
        constants = {tensor.name for tensor in proto.graph.initializer}  # old files list them as inputs too
        inputs = {value.name: value for value in proto.graph.input if value.name not in constants}
        shapes = {name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for name, value in inputs.items()}
    if newest_opset is not None and found > newest_opset:
        hint = f"export it with opset {newest_opset} or lower; edge does so itself for models in other formats"
        raise InputError(f"{model} has opset {found}, and {newest_opset} is the newest that this converter reads", hint)
    for name, shape in shapes.items():
        if 0 in shape[1:]:
            raise InputError(f"{model}: input '{name}' has a free dimension other than the batch", "fix its size first")
    return {name: [size or batch for size in shape] for name, shape in shapes.items()}
