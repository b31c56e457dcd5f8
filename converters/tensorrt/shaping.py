"""An ONNX graph as one release of TensorRT reads it: its opset, a fixed batch, and no operator that it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.check.onnx_tensorrt import TensorrtTarget, check_tensorrt, is_rewritten
from converters.onnx_tidy import opset_of
from converters.quiet import converting, loading
from converters.tensorrt.lowering import CannotLower, lowered
from converters.tensorrt.releases import Release
from converters.tensorrt.rewriting import rewritten
from runtimes.errors import RefusedError

_MOST_NAMED = 5


def refuse_unsupported(model: Path, release: Release, is_shaped: bool = False) -> tuple[str, ...]:
    """What the release warns of in an `.onnx` file; RefusedError naming each node that it cannot build, and a fix.

    What `shaped` writes in other operators passes, until the file `is_shaped`.
    """
    report = check_tensorrt(model, TensorrtTarget(release.pair, release.max_opset, rewrites=not is_shaped))
    faults = report.faults
    if not faults:
        return report.warnings
    named = [f"node {node.index} {node.op} '{node.name}' ({node.reason})" for node in faults[:_MOST_NAMED]]
    more = [f"and {len(faults) - _MOST_NAMED} more"] if len(faults) > _MOST_NAMED else []
    fixes = "; ".join(dict.fromkeys(f"{node.op}: {node.fix}" for node in faults))
    raise RefusedError(f"{release} cannot build {model.name}: {', '.join([*named, *more])}", fixes)


def shaped(model: Path, release: Release, opset: int | None, batch: int | None) -> Any:
    """The `onnx.ModelProto` in `opset` (None: the newest that the release reads) with its free batch at `batch`.

    Where an older graph cannot be lifted to an opset that nobody asked for, it stays as it is: releases read older
    ones too. RefusedError for a graph that is newer than the release and cannot be brought down, or that cannot be
    lifted to the opset that was asked for.
    """
    with loading(model, "ONNX"):
        import onnx

        proto = onnx.load(model)
        proto.graph.ClearField("doc_string")
    with converting(model, "ONNX"):
        if batch is not None:
            fix_batch(proto, batch)
        proto = rewritten(proto, lambda op: is_rewritten(op, release.pair))
        proto = _at_opset(proto, release, opset)
        del proto.graph.value_info[:]
        return onnx.shape_inference.infer_shapes(proto)


def fix_batch(proto: Any, batch: int) -> None:
    """Give the free first size of every input the value `batch`, and of every output that follows it."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    for value in (*inputs, *proto.graph.output):
        sizes = value.type.tensor_type.shape.dim
        if sizes and not sizes[0].HasField("dim_value"):
            sizes[0].dim_value = batch


def _at_opset(proto: Any, release: Release, asked: int | None) -> Any:
    from onnx import version_converter

    found, opset = opset_of(proto), asked or release.max_opset
    if found == opset:
        return proto
    try:
        return version_converter.convert_version(proto, opset)
    except RuntimeError as error:
        if found > opset:
            return _brought_down(proto, opset, found, f"{release} reads {release.max_opset} at most", error)
        if asked:
            what = f"the model has opset {found} and cannot be lifted to opset {asked}: {_said(error)}"
            remedy = f"export it from its source with opset {asked}, or leave --opset out: {release} reads older ones"
            raise RefusedError(what, remedy) from None
        return proto


def _brought_down(proto: Any, opset: int, found: int, why: str, error: RuntimeError) -> Any:
    try:
        return lowered(proto, opset)
    except CannotLower as reason:
        what = f"the model has opset {found}, {why}: {reason or _said(error)}"
        raise RefusedError(what, f"export it from its source with opset {opset}") from None


def _said(error: RuntimeError) -> str:
    """The reason at the end of a line that starts with a place in C++ code."""
    return str(error).strip().splitlines()[0].split("failed: ")[-1][:200]


def in_half(proto: Any) -> Any:
    """A copy that computes in fp16, inputs and outputs in float32 as before."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(proto, keep_io_types=True)


def write(proto: Any, path: Path) -> Path:
    """The same graph gives the same bytes."""
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return path
