"""Check the constants and tensors of an ONNX fp32 model against the range of fp16, and clamp masks into it.

A CPU computes an fp16 model in float32 and never notices an overflow that happens on the device. So the float model is
run with all its tensors as outputs, after ONNX Runtime has folded what every builder folds (constants, and BatchNorm
into convolutions). Tensors inside the branches and bodies of If, Loop and Scan cannot be read; an overflow there shows
in the outputs of the rounded model (`converters.onnx.float16_rounding`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.base import feeds_for
from converters.calibration.dataset import Calibration, to_model_dtypes
from converters.calibration.synthetic import make_inputs
from converters.onnx.cleanup import all_nodes, all_nodes_inside, graphs_of
from converters.onnx.layer_errors import inner_session
from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, Manifest
from runtimes.registry import open_session

if TYPE_CHECKING:
    from runtimes.artifact.json_fields import JsonObject

FLOAT16_MAX = 65504.0  # of IEEE 754 binary16
_FLOAT16_MIN = 2.0**-24  # the smallest positive number
# Masks stand for minus infinity: the lowest float32, or −1e9 and the like. Half of the range leaves room for the score
# that is added, or for a second mask.
_MASK = -FLOAT16_MAX / 2
_MASK_FROM = -1e8  # a constant as low as this is a mask: no trained weight is as low
_UNBOUNDED_FROM = 1e30  # and one as high means "no upper bound"
_BOUNDS = ("Clip", "Max", "Min", "ReduceMax", "TopK", "ArgMax", "MaxPool")  # they need the end of the range itself
_SHAPES = ("Shape", "Size")  # known to the builder: no device computes them in fp16
_MAX_SAMPLES = 8
_LARGE_BYTES = 2**30  # above that, constants are stored in a separate file: Protocol Buffers end at 2 GB


@dataclass(frozen=True, kw_only=True)
class ClampedConstant:
    """A constant of the shipped graph that was brought into the range of fp16."""

    name: str
    found: float
    written: float

    def __str__(self) -> str:
        return f"'{self.name}' {format_short(self.found)} → {self.written:.6g}"


@dataclass(frozen=True, kw_only=True)
class BeyondFloat16:
    """A constant or tensor that fp16 cannot hold: `reach` is its largest magnitude."""

    name: str
    kind: str  # "constant", "input", or the operator that computes it
    reach: float

    def __str__(self) -> str:
        what = (
            f"the {self.kind} '{self.name}'" if self.kind in ("constant", "input") else f"'{self.name}' ({self.kind})"
        )
        return f"{what} reaches {format_short(self.reach)}; fp16 ends at {FLOAT16_MAX:.0f}"


def format_short(value: float) -> str:
    """Format a large number as people write it: 7.9e5."""
    mantissa, _, exponent = f"{value:.2g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def clamp_masks(proto: Any) -> tuple[ClampedConstant, ...]:
    """Clamp the masks among the float constants of an `onnx.ModelProto` to values that fp16 holds, in place.

    A mask is a value that only stands for "as low as possible": below −1e8, or the one negative value next to a neutral
    one in a constant of at most two values. Bounds beyond 1e30 end at fp16's own. A single value that fp16 rounds to
    zero, such as the epsilon below a division or a logarithm, becomes its smallest number. Infinities stay, because
    fp16 has them; other large values stay too, and `beyond_float16` finds them.
    """
    readers: dict[str, set[str]] = {}
    for node in all_nodes(proto.graph):
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    clamped = []
    for name, tensor in _float_constants(proto.graph):
        found = _clamp(tensor, bool(readers.get(name, set()).intersection(_BOUNDS)))
        if found is not None:
            clamped.append(ClampedConstant(name=name, found=found[0], written=found[1]))
    return tuple(clamped)


def clamp_facts(clamped: Sequence[ClampedConstant]) -> JsonObject:
    """Return the manifest entry: {"float16": {"clamped": {name: [from, to]}}}; empty if nothing was clamped."""
    values = {one.name: [float(f"{one.found:.6g}"), one.written] for one in clamped}
    return {"float16": {"clamped": dict(values)}} if values else {}


def clamp_notes(clamped: Sequence[ClampedConstant]) -> tuple[str, ...]:
    """Return notes about what was clamped."""
    return (f"clamped in the graph to what fp16 holds: {', '.join(map(str, clamped))}",) if clamped else ()


def beyond_float16(proto: Any, samples: Calibration | None) -> tuple[BeyondFloat16, ...]:
    """Return the constants and, for the samples, the tensors that fp16 cannot hold, in the order of computation.

    `proto` is a folded `onnx.ModelProto` (see `fold_constants`). With `samples` None, seeded random ones are used.
    """
    found = {}
    for name, tensor in _float_constants(proto.graph):
        reach = _reach(_values(tensor))
        if reach > FLOAT16_MAX:
            found[name] = BeyondFloat16(name=name, kind="constant", reach=reach)
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        path = Path(folder) / "model.onnx"
        save_model(proto, path)
        for one in _tensors(proto, path, samples or _make_samples(path)):
            known = found.get(one.name)
            if known is None or known.reach < one.reach:
                found[one.name] = one
    return tuple(found.values())


def fold_constants(proto: Any) -> Any:
    """Return a copy with constants computed and BatchNorm folded, as builders do; fused nodes keep ONNX's operators."""
    import onnx
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        given, place = Path(folder) / "given.onnx", Path(folder) / "folded.onnx"
        save_model(proto, given)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(place)
        options.log_severity_level = 3
        if proto.ByteSize() > _LARGE_BYTES:
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "folded.bin")
        ort.InferenceSession(str(given), options, providers=["CPUExecutionProvider"])
        return onnx.load(place)


def save_model(proto: Any, path: Path) -> Path:
    """Write a model and return its path; above 1 GiB, the constants are stored in a separate file next to it."""
    import onnx

    if proto.ByteSize() <= _LARGE_BYTES:
        path.write_bytes(proto.SerializeToString())
        return path
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save(copy, path, save_as_external_data=True, location=f"{path.stem}.weights")
    return path


def _float_constants(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and tensor of every float constant: initializers, Constant and ConstantOfShape, in bodies too."""
    from onnx import TensorProto

    for one in graphs_of(graph):
        for tensor in one.initializer:
            if tensor.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE):
                yield tensor.name, tensor
        for node in one.node:
            if node.op_type not in ("Constant", "ConstantOfShape"):
                continue
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.t.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE):
                    yield node.output[0], attribute.t
                elif attribute.name in ("value_float", "value_floats"):
                    yield node.output[0], attribute


def _values(constant: Any) -> Array:
    from onnx import AttributeProto, numpy_helper

    if isinstance(constant, AttributeProto):
        return np.asarray(constant.f if constant.name == "value_float" else list(constant.floats), np.float32)
    return np.asarray(numpy_helper.to_array(constant))


def _clamp(constant: Any, is_bound: bool) -> tuple[float, float] | None:
    """Clamp the masks of one constant; returns the lowest (or highest) value found and what was written."""
    values = _values(constant)
    if values.size == 1 and 0 < abs(float(values.reshape(()))) <= _FLOAT16_MIN / 2:
        found = float(values.reshape(()))
        return found, _write(constant, np.full(values.shape, np.copysign(_FLOAT16_MIN, found), values.dtype))
    with np.errstate(invalid="ignore"):
        beyond = np.isfinite(values) & (np.abs(values) > FLOAT16_MAX)
    if not beyond.any():
        return None
    low = beyond & (values < 0) & ((values <= _MASK_FROM) | _is_two_valued(values))
    high = beyond & (values >= _UNBOUNDED_FROM)
    if not (low | high).any():
        return None
    floor = -FLOAT16_MAX if is_bound else _MASK
    found, written = (float(values[low].min()), floor) if low.any() else (float(values[high].max()), FLOAT16_MAX)
    _write(constant, np.where(low, floor, np.where(high, FLOAT16_MAX, values)).astype(values.dtype))
    return found, written


def _write(constant: Any, values: Array) -> float:
    """Replace a constant's values; returns the first."""
    from onnx import AttributeProto, numpy_helper

    if not isinstance(constant, AttributeProto):
        constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    elif constant.name == "value_float":
        constant.f = float(values)
    else:
        constant.floats[:] = values.tolist()
    return float(values.flat[0])


def _is_two_valued(values: Array) -> bool:
    """Return whether all values are the same, or one and a neutral second one: 0 or 1."""
    distinct = np.unique(values)
    return len(distinct) == 1 or (len(distinct) == 2 and float(distinct[1]) in (0.0, 1.0))


def _tensors(proto: Any, path: Path, samples: Calibration) -> Iterator[BeyondFloat16]:
    """Yield the inputs and computed tensors that leave the range for one of the samples, each with its reach."""
    depends, writers = _computed(proto)
    session, names = inner_session(path, set(writers))
    inputs = [value.name for value in session.get_inputs()]
    reach = dict.fromkeys((*inputs, *(name for name in writers if name in depends)), 0.0)
    for feed in islice(feeds_for(samples, inputs), _MAX_SAMPLES):
        given = {name: values for name, values in feed.items() if values.dtype.kind == "f"}
        for name, values in (*given.items(), *zip(names, session.run(names, feed), strict=True)):
            if name in reach and isinstance(values, np.ndarray) and values.dtype == np.float32:
                reach[name] = max(reach[name], _reach(values))
    for name, value in reach.items():
        if value > FLOAT16_MAX:
            yield BeyondFloat16(name=name, kind=writers.get(name, "input"), reach=value)


def _computed(proto: Any) -> tuple[set[str], dict[str, str]]:
    """Return the tensors whose values depend on the inputs' values, and the operator that writes each tensor."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    depends = {value.name for value in proto.graph.input} - constants
    writers: dict[str, str] = {}
    for node in proto.graph.node:
        captured = {name for inner in all_nodes_inside(node) for name in inner.input}
        if node.op_type not in _SHAPES and depends.intersection((*node.input, *captured)):
            depends.update(node.output)
        writers.update((name, node.op_type) for name in node.output if name)
    return depends, writers


def _reach(values: Array) -> float:
    """Return the largest finite magnitude. Infinities are allowed: masks use them, and fp16 has them."""
    if values.size == 0:
        return 0.0
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0))


def _make_samples(path: Path) -> Calibration:
    artifact = Artifact(path.parent, Manifest(name=path.stem, format="onnx", precision="fp32", model=path.name))
    with open_session(artifact) as session:
        samples: Arrays = to_model_dtypes(session.inputs, make_inputs(session.inputs, None).samples)
        return Calibration(samples)
