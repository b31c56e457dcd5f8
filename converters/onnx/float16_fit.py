"""Fit an ONNX model to a device that computes in fp16: clamp masks, check the range, and compute as the device does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import ProxyModel
from converters.library_calls import converting
from converters.onnx.cleanup import all_nodes
from converters.onnx.float16_range import (
    BeyondFloat16,
    ClampedConstant,
    beyond_float16,
    clamp_facts,
    clamp_masks,
    clamp_notes,
    fold_constants,
    save_model,
)
from converters.onnx.float16_rounding import round_to_float16
from converters.onnx.opset import opset_of
from converters.onnx.reduction_steps import write_out_reductions
from runtimes.errors import RefusedError

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from runtimes.artifact.json_fields import JsonObject

_IN_FLOAT32 = (
    "BitCast",
    "BlackmanWindow",
    "DynamicQuantizeLinear",
    "EyeLike",
    "HammingWindow",
    "HannWindow",
    "MeanVarianceNormalization",
    "MelWeightMatrix",
    "QuantizeLinear",
    "TfIdfVectorizer",
)
IN_FP32 = "use --precision fp32, or train with smaller values there"
_MAX_NAMED = 3
_FLOAT32 = 1  # of onnx.TensorProto


@dataclass(frozen=True, kw_only=True)
class Float16Fit:
    """How a model fits into fp16.

    clamped: The masks that were clamped in the model.
    beyond: What does not fit, in the order of computation.
    folded: The model with constants folded, as builders do.
    """

    clamped: tuple[ClampedConstant, ...]
    beyond: tuple[BeyondFloat16, ...]
    folded: Any

    @property
    def facts(self) -> JsonObject:
        """The manifest entry for what was clamped."""
        return clamp_facts(self.clamped)

    @property
    def notes(self) -> tuple[str, ...]:
        """A note for what was clamped."""
        return clamp_notes(self.clamped)

    def text(self) -> str:
        """Name what does not fit: "'q' (Mul) reaches 7.9e5; fp16 ends at 65504"."""
        more = [f"and {len(self.beyond) - _MAX_NAMED} more"] if len(self.beyond) > _MAX_NAMED else []
        return ", ".join([*map(str, self.beyond[:_MAX_NAMED]), *more])

    def check(self, model: Path, hint: str = IN_FP32) -> None:
        """Raise RefusedError, naming the constants and tensors, if something does not fit."""
        if not self.beyond:
            return
        if any(one.kind != "constant" for one in self.beyond):
            hint += "; the values are those of the proof's inputs: --calibration gives it real ones"
        raise RefusedError(f"{model} does not fit in fp16: {self.text()}", hint)

    def device_model(self, scratch: str | None, name: str) -> ProxyModel | None:
        """Write a float32 model that computes as the device does into `scratch`; None without a folder for it."""
        if scratch is None:
            return None
        folder = Path(scratch) / "as-the-device-computes"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        save_model(round_to_float16(self.folded), path)
        return ProxyModel(path, "onnx")


def fit_to_float16(
    model: Path, proto: Any, samples: Calibration | None, *, sums_in_float32: bool = False
) -> Float16Fit:
    """Clamp the masks of `proto`, read from `model`, in place, and check the rest against the range of fp16.

    samples: Those of the proof; with None, seeded random ones are used.
    sums_in_float32: Whether the device computes a norm such as ReduceL2 in one step, without storing its squares.
    """
    clamped = clamp_masks(proto)
    with converting(model, "ONNX Runtime"):
        plain = fold_constants(proto)
        inside = {} if sums_in_float32 else write_out_reductions(plain)
        found: dict[str, BeyondFloat16] = {}
        for one in beyond_float16(plain, samples):
            name, kind = inside.get(one.name, (one.name, one.kind))
            if name not in found or found[name].reach < one.reach:
                found[name] = BeyondFloat16(name=name, kind=kind, reach=one.reach)
        return Float16Fit(clamped=clamped, beyond=tuple(found.values()), folded=plain)


def to_float16(proto: Any, keep_io_types: bool = True) -> Any:
    """Return a copy that computes in fp16; inputs and outputs stay float32 unless `keep_io_types` is False.

    Operators with a result that is float32 whatever their inputs are, or without a kernel for fp16, stay in float32.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    kept = [node for node in proto.graph.node if _stays_in_float32(node)]
    for place, node in enumerate(kept):
        node.name = node.name or f"float32_{place}"
    if all(entry.domain not in ("", "ai.onnx") for entry in proto.opset_import):
        proto.opset_import.add(version=opset_of(proto))  # of the Casts
    half = convert_float_to_float16(
        proto,
        keep_io_types=keep_io_types,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_IN_FLOAT32],
        node_block_list=[node.name for node in kept],
    )
    _feed_unrounded(half.graph)
    return half


def _feed_unrounded(graph: Any) -> None:
    """Give operators that stay in float32 the model's inputs themselves, without a Cast to fp16 and back."""
    inputs = {one.name for one in graph.input}
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    for node in casts.values():
        before = casts.get(node.input[0])
        if before is not None and before.input[0] in inputs and node.attribute[0].i == _FLOAT32:
            node.input[0] = before.input[0]
    read = {name for node in all_nodes(graph) for name in node.input} | {one.name for one in graph.output}
    for name, node in casts.items():
        if name not in read:
            graph.node.remove(node)


def _stays_in_float32(node: Any) -> bool:
    if node.op_type == "LayerNormalization":
        return any(node.output[1:])  # mean and deviation are float32
    is_scatter = node.op_type in ("ScatterElements", "ScatterND")
    return is_scatter and any(one.name == "reduction" and one.s != b"none" for one in node.attribute)
