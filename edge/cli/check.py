"""`edge check`: predict whether a model runs on a device, node by node, with reasons and remedies. Writes nothing.

Exit status: 0 if the model runs there, even if a few nodes stay on the host; 5 if the device rejects it, or its
accelerator would run less than half of the multiply-adds.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.check.report import Node, Report
    from edge.compatibility.tensor_model import CheckResult

_MIB = 2**20
_MAX_NAMES = 8
_LONGEST_NAME = 60
_REFUSED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge check`."""
    from edge.cli.options import model_hints
    from edge.cli.options.numbers import count

    parser.add_argument("model", type=Path, metavar="MODEL", help="a model file or artifact; nothing is written")
    parser.add_argument(
        "--for",
        dest="device",
        metavar="DEVICE",
        required=True,
        help="a device, or parts joined with + (see edge devices): coral-usb, raspberry-pi-4+coral-usb, jetson-nano",
    )
    parser.add_argument(
        "--memory", metavar="4GB", help="language models: the memory size, if the device is sold with several"
    )
    parser.add_argument("--context", type=count, metavar="N", help="language models: tokens of context (default: 2048)")
    model_hints.add_shapes(parser)
    parser.add_argument("--json", action="store_true", help="print JSON: every node with its placement")


def run(args: argparse.Namespace) -> int:
    """Print the verdict, and why nodes stay on the host."""
    import edge

    checked = edge.check(args.model, args.device, memory=args.memory, context=args.context, shapes=args.shape)
    text = json.dumps(checked.to_json(), indent=2) if args.json else as_text(args.model.name, checked)
    print(text)
    return 0 if checked.runs else _REFUSED


def as_text(model: str, checked: CheckResult) -> str:
    """Format the verdict, then the nodes on the host in groups, then warnings."""
    from edge.console.text import printable

    report = checked.report
    lines = [f"{model} on {checked.device_name}: {_verdict(report)}"]
    for refusal in report.refusals:
        lines += [f"  {refusal.reason}", f"      → {refusal.fix}"]
    lines += _memory(report)
    if report.quantized is not None:
        lines.append(f"quantized to int8: {_verdict(report.quantized)}")
    body = report.quantized or report
    if body.accelerator:
        lines += _break(body)
        lines += _parameters(body)
        lines += _host_nodes(body)
    lines += [f"warning: {warning}" for warning in (*report.warnings, *(body.warnings if body is not report else ()))]
    return "\n".join(printable(line) for line in lines)


def _verdict(report: Report) -> str:
    """Summarize how much of the model runs where."""
    if report.extra.get("memory") and report.refusals:
        return "does not fit"
    if not report.accelerator:
        return f"runs on the processor ({_counts(report.nodes)})" if report.nodes else "runs on the processor"
    share = report.macs_share
    done = f", {_percent(share)} of the multiply-adds" if share is not None else ""
    counts = f"{len(report.accelerated)} of {len(report.nodes)} ops"
    if report.refusals:
        return f"refused ({counts} could run on {report.accelerator})"
    return f"{counts} on {report.accelerator}{done}"


def _memory(report: Report) -> Iterator[str]:
    """Format the memory of a language model, part by part."""
    memory = report.extra.get("memory")
    if memory is not None:
        weights, cache, buffers = (memory[f"{part}_bytes"] / 1e6 for part in ("weights", "cache", "buffers"))
        yield (
            f"memory: {memory['needed_bytes'] / 1e6:,.0f} MB: weights {weights:,.0f}, "
            f"context of {memory['context']} tokens {cache:,.0f}, buffers {buffers:,.0f}"
        )


def _break(report: Report) -> Iterator[str]:
    """Name the node that ends the accelerated part."""
    first = report.first_break
    if first is not None and any(node.breaks == first.index != node.index for node in report.on_host):
        yield f"the chain breaks at node {first.index} {first.op}: {first.reason} → {first.fix}"


def _percent(share: float) -> str:
    """Format a share as a percentage; less than all is never rounded up to 100%."""
    return f"{share:.0%}" if share in (0.0, 1.0) else f"{min(share * 100, 99.9):.1f}%"


def _parameters(report: Report) -> Iterator[str]:
    cache = report.extra.get("cache")
    if cache is None or not report.accelerated:
        return
    kept, streamed, usable = (cache[key] / _MIB for key in ("cached_bytes", "streamed_bytes", "usable_bytes"))
    where = f"{streamed:.2f} MiB streamed at every inference" if streamed else "all kept on the chip"
    yield f"parameters: {report.parameter_bytes:,} bytes; about {kept:.2f} of {usable:.2f} MiB on the chip, {where}"


def _host_nodes(report: Report) -> Iterator[str]:
    """List the unsupported nodes, grouped by reason, each with the number of nodes that follow it to the host."""
    groups: dict[tuple[str, str, str], list[Node]] = {}
    for node in report.faults:
        groups.setdefault((node.op, node.reason, node.fix), []).append(node)
    if groups:
        yield "on the host:"
    for (op, reason, fix), nodes in groups.items():
        yield f"  {op} ({_names(nodes)}): {reason}"
        yield f"      → {fix}"
        after = [node for node in report.on_host for one in nodes if node.breaks == one.index != node.index]
        if after:
            yield f"      {len(after)} more come after it: {_counts(after)}"


def _names(nodes: Sequence[Node]) -> str:
    """Format nodes as in `node 12 relu_3` or `3 nodes: 12, 15, 18`."""
    if len(nodes) == 1:
        name = nodes[0].name
        return f"node {nodes[0].index} {name if len(name) <= _LONGEST_NAME else f'{name[:_LONGEST_NAME]}…'}".strip()
    shown = ", ".join(str(node.index) for node in nodes[:_MAX_NAMES])
    return f"{len(nodes)} nodes: {shown}{', …' if len(nodes) > _MAX_NAMES else ''}"


def _counts(nodes: Sequence[Node]) -> str:
    counts = Counter(node.op for node in nodes).most_common()
    shown = ", ".join(f"{count} × {op}" if count > 1 else op for op, count in counts[:_MAX_NAMES])
    return f"{shown}{', …' if len(counts) > _MAX_NAMES else ''}"
