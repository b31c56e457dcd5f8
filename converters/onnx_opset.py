"""A request for an ONNX opset is met or refused: exporters stay at another one and only log it."""

from __future__ import annotations

from typing import Any

from converters.onnx_tidy import opset_of
from runtimes.errors import EngineError, UsageError

WRITTEN_OPSET = 17  # what every exporter here writes, and every engine reads


def wanted_opset(asked: int | None, default: int, oldest: int, newest: int, tool: str) -> int:
    """The opset to write: `asked`, or `default`; UsageError when `tool` writes only `oldest` to `newest`."""
    opset = default if asked is None else asked
    if not oldest <= opset <= newest:
        raise UsageError(f"{tool} cannot write opset {opset}", f"ask for one of {oldest} to {newest}")
    return opset


def check_opset(proto: Any, opset: int, tool: str) -> None:
    """EngineError when what `tool` wrote is of another opset, or no valid model of its own."""
    import onnx

    found = opset_of(proto)
    if found != opset:
        raise EngineError(f"{tool} wrote opset {found} instead of {opset}", "ask for another opset")
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        what = str(error).strip().splitlines()[0]
        raise EngineError(f"{tool} wrote an invalid model: {what}", "ask for another opset") from error
