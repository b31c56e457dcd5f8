"""How a model divides between an Edge TPU and the CPU, and what is sent to the chip and back at every inference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.edgetpu.mapping import check_edgetpu, ops_of_compiler
from converters.tflite.macs import macs
from converters.tflite.op import TfliteOp, elements, is_constant
from runtimes.artifact import Artifact
from runtimes.errors import RefusedError
from runtimes.model_files.detect import format_of

_MAX_NAMES = 4
# They only convert inputs and outputs, which the published latencies contain too.
_CONVERSIONS = ("CAST", "QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True, kw_only=True)
class EdgeTpuSplit:
    """The parts of a model, and the bytes between them.

    operators, mapped: All operators, and those on the Edge TPU.
    on_cpu: The names of those on the CPU, except for conversions of inputs and outputs.
    macs, activations: Multiply-adds of the part on the Edge TPU, and elements that its layers write.
    kept_bytes, sent_bytes: Its parameters that stay on the chip, and those that are sent to it at every inference.
    input_bytes, output_bytes: The tensors that are sent to it and back at every inference.
    """

    operators: int
    mapped: int
    on_cpu: Sequence[str]
    macs: int
    activations: int
    kept_bytes: int
    sent_bytes: int
    input_bytes: int
    output_bytes: int

    def __str__(self) -> str:
        """Say it in one line."""
        names = list(dict.fromkeys(self.on_cpu))
        others = " and others" if len(names) > _MAX_NAMES else ""
        left = f" ({', '.join(names[:_MAX_NAMES])}{others} on the CPU)" if names else ""
        sent = f"{self.sent_bytes / 2**20:.2f} MiB of parameters" if self.sent_bytes else "no parameters"
        return (
            f"{self.mapped} of {self.operators} operators on the Edge TPU{left}, which keeps "
            f"{self.kept_bytes / 2**20:.2f} MiB of parameters; at each inference {self.input_bytes:,} bytes of inputs, "
            f"{self.output_bytes:,} of outputs and {sent} are sent"
        )


def split_for_edge_tpu(model: Path) -> EdgeTpuSplit:
    """Split a TFLite file or artifact; one in floating point as if it were quantized.

    Raises RefusedError for other formats and for a model of which nothing would run on the Edge TPU.
    """
    path = Artifact.open(model).model
    if format_of(path) != "tflite":
        raise RefusedError(
            f"what runs on an Edge TPU is known only for TFLite files, and {path.name} is not one",
            f"convert it, and estimate the result: edge convert {path.name} --for coral-usb --calibration PICTURES",
        )
    checked = check_edgetpu(path)
    report = checked.quantized or checked
    if report.refusals:
        first = report.refusals[0]
        fix = first.fix.replace("MODEL", path.name).replace("DEVICE", "coral-usb")
        raise RefusedError(f"an Edge TPU would not run {path.name}: {first.reason}", fix)
    if not report.accelerated:
        raise RefusedError(
            f"no operator of {path.name} would run on an Edge TPU", f"see why: edge check {path.name} --for coral-usb"
        )
    ops, cache = ops_of_compiler(path), report.extra["cache"]
    mapped, left = [ops[node.index] for node in report.accelerated], [ops[node.index] for node in report.on_host]
    return EdgeTpuSplit(
        operators=len(report.nodes),
        mapped=len(mapped),
        on_cpu=tuple(op.type for op in left if not _is_conversion(op)),
        macs=sum(node.macs for node in report.accelerated),
        activations=sum(elements(op.outputs[0]) for op in mapped if macs(op)),
        kept_bytes=cache["cached_bytes"],
        sent_bytes=cache["streamed_bytes"],
        input_bytes=_bytes(ops, _read(mapped) - _written(mapped)),
        output_bytes=_bytes(ops, _written(mapped) & (_read(left) | ops[0].borders)),
    )


def _is_conversion(op: TfliteOp) -> bool:
    return op.type in _CONVERSIONS and op.is_at_border


def _written(ops: Iterable[TfliteOp]) -> set[int]:
    return {index for op in ops for index in op.operator.outputs}


def _read(ops: Iterable[TfliteOp]) -> set[int]:
    """Return the tensors that operators read, without constants and states."""
    read = {index: op.tensors[index] for op in ops for index in op.operator.inputs if index >= 0}
    return {index for index, tensor in read.items() if not is_constant(tensor) and not tensor.is_variable}


def _bytes(ops: Sequence[TfliteOp], tensors: Iterable[int]) -> int:
    """Return the size of 8-bit tensors."""
    return sum(elements(ops[0].tensors[index]) for index in tensors)
