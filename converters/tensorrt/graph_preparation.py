"""Prepare an ONNX graph for a release of TensorRT: opset, fixed batch, and no unsupported operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.library_calls import converting, loading
from converters.onnx.op_rewrites import rewrite
from converters.onnx.opset import opset_of
from converters.onnx.opset_downgrade import OpsetDowngradeError, lower_opset
from converters.tensorrt.compatibility import TensorrtTarget, check_tensorrt, is_rewritten
from converters.tensorrt.io_types import FloatInput, write_float_inputs
from converters.tensorrt.releases import Release
from runtimes.errors import RefusedError

_MAX_NAMED = 5


def refuse_unsupported(model: Path, release: Release, is_shaped: bool = False) -> tuple[str, ...]:
    """Check an `.onnx` file against the release. Returns warnings.

    Operators that `fix_shapes` rewrites are accepted unless the file `is_shaped` already. Raises RefusedError, naming
    the nodes and fixes, if the release cannot build some of them.
    """
    target = TensorrtTarget(
        release=release.pair, max_opset=release.max_opset, rewrites=not is_shaped, requantizes=not is_shaped
    )
    report = check_tensorrt(model, target)
    faults = report.faults
    if not faults:
        types = next((one for one in report.refusals), None)
        if types is not None:
            raise RefusedError(f"{release} cannot build {model.name}: {types.reason}", types.fix)
        return report.warnings
    named = [f"node {node.index} {node.op} '{node.name}' ({node.reason})" for node in faults[:_MAX_NAMED]]
    more = [f"and {len(faults) - _MAX_NAMED} more"] if len(faults) > _MAX_NAMED else []
    fixes = "; ".join(dict.fromkeys(f"{node.op}: {node.fix}" for node in faults))
    raise RefusedError(f"{release} cannot build {model.name}: {', '.join([*named, *more])}", fixes)


def fix_shapes(
    model: Path, release: Release, opset: int | None, batch: int | None, inputs: tuple[FloatInput, ...] = ()
) -> Any:
    """Return the `onnx.ModelProto` in `opset`, with its free batch set to `batch` and these `inputs` in float32.

    With `opset` None, it is the newest one that the release reads. An older graph that cannot be upgraded to it is left
    as it is, since releases read older opsets too. Raises RefusedError for a graph that is newer than the release and
    cannot be downgraded, or that cannot be upgraded to the requested `opset`.
    """
    with loading(model, "ONNX"):
        import onnx

        proto = onnx.load(model)
        proto.graph.ClearField("doc_string")
    with converting(model, "ONNX"):
        if batch is not None:
            fix_batch(proto, batch)
        write_float_inputs(proto, inputs)
        proto = rewrite(proto, lambda op: is_rewritten(op, release.pair))
        proto = _at_opset(proto, release, opset)
        del proto.graph.value_info[:]
        return onnx.shape_inference.infer_shapes(proto)


def fix_batch(proto: Any, batch: int) -> None:
    """Set the free first dimension of every input and output to `batch`, in place."""
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
            return _downgrade(proto, opset, found, f"{release} reads {release.max_opset} at most", error)
        if asked:
            what = f"the model has opset {found} and cannot be upgraded to opset {asked}: {_first_sentence(error)}"
            remedy = f"export it from its source with opset {asked}, or leave --opset out: {release} reads older ones"
            raise RefusedError(what, remedy) from None
        return proto


def _downgrade(proto: Any, opset: int, found: int, why: str, error: RuntimeError) -> Any:
    try:
        return lower_opset(proto, opset)
    except OpsetDowngradeError as reason:
        what = f"the model has opset {found}, {why}: {reason or _first_sentence(error)}"
        raise RefusedError(what, f"export it from its source with opset {opset}") from None


def _first_sentence(error: RuntimeError) -> str:
    """Return the reason in the first line, without the C++ source location before it."""
    return str(error).strip().splitlines()[0].split("failed: ")[-1][:200]


def write(proto: Any, path: Path) -> Path:
    """Write the model to `path`. The same graph gives the same bytes."""
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return path
