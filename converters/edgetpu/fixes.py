"""Warn about models that gain little on the Edge TPU: streamed parameters, small models, work left on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

from converters.check.report import HOST, Report
from converters.edgetpu import observed_rules
from converters.edgetpu.memory import ParameterCache, usb2_seconds
from converters.tflite.op import TfliteOp, elements, is_constant

_MIB = 2**20
_ON_CHIP_BYTES = 8 * _MIB
# About 0.1 ms on a desktop's CPU, which is what a call over USB costs before anything is computed.
_SMALL_MACS = 1_000_000
_SMALL_SHARE = 0.9


def suggest_fixes(ops: list[TfliteOp], report: Report, cache: ParameterCache) -> Iterator[str]:
    """Generate warnings with numbers."""
    yield from _streaming(cache)
    yield from _small(report)
    yield from _share(report)
    yield from _border(ops, report)
    yield from _large_tensors(ops, report)


def _streaming(cache: ParameterCache) -> Iterator[str]:
    if not cache.fits:
        size, time = cache.streamed_bytes / _MIB, usb2_seconds(cache.streamed_bytes) * 1000
        yield (
            f"about {size:.1f} MiB of parameters do not fit on the chip and are sent to it at every inference, in about"
            f" {time:.0f} ms on USB 2 (Inception v4: 84 ms on USB 3, 1055 ms on a Raspberry Pi 3B+'s USB 2); use a"
            " smaller model, or two Edge TPUs with half of it each"
        )


def _small(report: Report) -> Iterator[str]:
    total = sum(node.macs for node in report.nodes)
    if report.accelerated and total < _SMALL_MACS:
        yield (
            f"{total / 1e6:.2f} million multiply-adds are little work: the transfer may take longer than it saves"
            " (50,000 runs of a small model: 1876 ms on the Edge TPU, 700 ms on the CPU; google-coral/edgetpu issue 89)"
        )


def _share(report: Report) -> Iterator[str]:
    left, total = sum(node.macs for node in report.on_host), sum(node.macs for node in report.nodes)
    if left > (1 - _SMALL_SHARE) * total:
        yield f"{left / total:.0%} of the multiply-adds stay on the CPU, which then sets the pace"


def _border(ops: list[TfliteOp], report: Report) -> Iterator[str]:
    casts = [node for node in report.nodes if node.placement == HOST and node.op in ("QUANTIZE", "DEQUANTIZE", "CAST")]
    border = [node for node in casts if ops[node.index].is_at_border]
    if border and any("float" in node.reason for node in border):
        names = ", ".join(f"{node.index} {node.op}" for node in border)
        yield f"inputs or outputs are float: the CPU converts them at every inference (nodes {names})"


def _large_tensors(ops: list[TfliteOp], report: Report) -> Iterator[str]:
    for node in report.accelerated:
        op = ops[node.index]
        doubt = observed_rules.doubt(op)
        if doubt:
            yield f"node {node.index}: {doubt}"
        size = sum(elements(tensor) for tensor in (*op.inputs, *op.outputs) if not is_constant(tensor))
        if size > _ON_CHIP_BYTES:
            yield (
                f"node {node.index} {node.op} reads and writes {size / _MIB:.1f} MiB, more than the chip holds: the"
                " compiler may give up with 'large activation tensors' (google-coral/edgetpu issues 444, 653, 686);"
                " use smaller pictures"
            )
