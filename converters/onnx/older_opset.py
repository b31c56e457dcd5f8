"""Bring an ONNX model into the opsets that a converter reads, if they can express it."""

from __future__ import annotations

from functools import cache
from typing import Any

from converters.onnx.op_rewrites import rewrite
from converters.onnx.opset import opset_of
from converters.onnx.opset_downgrade import OpsetDowngradeError, lower_opset
from runtimes.errors import RefusedError, UsageError


def at_most_opset(proto: Any, newest: int, reader: str) -> Any:
    """Return the `onnx.ModelProto` in opset `newest` if it has a later one, else unchanged.

    Newer operators are expressed by older ones. Raises RefusedError, naming the node, if the older opset cannot
    express one; `reader` is the program that reads no newer opset.
    """
    from onnx import version_converter

    found = opset_of(proto)
    if found <= newest:
        return proto
    proto = rewrite(proto, lambda op: not exists_in(op, newest))
    try:
        return lower_opset(proto, newest)  # it changes as little as it can
    except OpsetDowngradeError as reason:
        first = str(reason)
    try:
        return version_converter.convert_version(proto, newest)
    except RuntimeError:
        what = f"the model has opset {found}, and {newest} is the newest that {reader} reads: {first}"
        raise RefusedError(what, f"export it from its source with opset {newest}") from None


def at_least_opset(proto: Any, oldest: int) -> Any:
    """Return the `onnx.ModelProto` in opset `oldest` if it has an earlier one, else unchanged.

    Raises UsageError if it cannot be upgraded.
    """
    from onnx import version_converter

    found = opset_of(proto)
    if found >= oldest:
        return proto
    try:
        return version_converter.convert_version(proto, oldest)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0].split("failed: ")[-1][:200]
        what = f"the model has opset {found}, which cannot be upgraded to {oldest}: {reason}"
        raise UsageError(what, f"convert it from its source with opset {oldest} or later") from None


@cache
def exists_in(op: str, opset: int) -> bool:
    """Return whether ONNX's own operator set has the operator in this version."""
    from onnx import defs

    try:
        defs.get_schema(op, opset, "")
    except defs.SchemaError:
        return False
    return True
