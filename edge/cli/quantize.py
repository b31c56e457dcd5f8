"""`edge quantize`: write a GGUF file with fewer bits per weight, and report its tensors and perplexity."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.llm.quantization import QuantizationReport
    from runtimes.quantization_jobs import UncertainValue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge quantize`."""
    from edge.cli.options.numbers import count

    parser.add_argument("model", type=Path, help="a .gguf file, or an artifact's folder, in fp16 or fp32")
    parser.add_argument(
        "type",
        help="q4_k_m, q4_0, q8_0, q2_k, q3_k_s/m/l, q4_k_s, q5_k_s/m, q6_k, q4_1, q5_0/1, iq4_nl, iq4_xs, fp16, bf16",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the new file (default: NAME-TYPE.gguf in the same folder)"
    )
    parser.add_argument(
        "--text", type=Path, metavar="FILE", help="compare perplexity before and after on this text file"
    )
    parser.add_argument(
        "--imatrix", type=Path, metavar="FILE", help="a file of llama-imatrix: which weights to round most carefully"
    )
    parser.add_argument(
        "--imatrix-text", type=Path, metavar="FILE", help="compute the importance from this text file instead"
    )
    parser.add_argument("--threads", type=count, metavar="N", help="threads (default: all)")
    parser.add_argument(
        "--again", action="store_true", help="allow a source that is quantized already, which loses more"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Quantize and print the report."""
    from edge.llm.quantization import quantize

    report = quantize(
        args.model,
        args.type,
        out=args.out,
        text=args.text,
        imatrix=args.imatrix,
        imatrix_text=args.imatrix_text,
        threads=args.threads,
        again=args.again,
        force=args.force,
        quiet=args.json,
    )
    print(json.dumps(report.to_json()) if args.json else _as_text(report))
    return 0


def _as_text(report: QuantizationReport) -> str:
    from edge.console.text import printable

    before, after = report.before, report.after
    types = ", ".join(f"{count} {kind}" for kind, count in after.tensors.items())
    lines = [
        f"{printable(report.file)}: {report.type}",
        f"  {before.bytes:,} → {after.bytes:,} bytes ({after.bytes / before.bytes:.0%}), "
        f"{before.bits_per_weight:.2f} → {after.bits_per_weight:.2f} bits per weight",
        f"  tensors: {types}",
        *_fallbacks(report),
        *_losses(report),
    ]
    found = report.perplexity
    if found:
        lines.append(
            f"  perplexity on {printable(found.text)} ({found.tokens:,} tokens): "
            f"{_describe(found.before)} → {_describe(found.after)}, × {_describe(found.ratio)}"
        )
        lines.append(
            f"  KL divergence {_describe(found.kl_divergence)}; the same best token at {found.same_top:.1%} "
            f"({found.kl_tokens:,} tokens)"
        )
    return "\n".join(lines)


def _fallbacks(report: QuantizationReport) -> list[str]:
    """Report tensors of another type than requested, because their rows do not fill whole blocks."""
    found = report.fallbacks
    if not found:
        return []
    rows = sorted({one.row for one in found})
    named = ", ".join(f"{one.tensor} {one.type}" for one in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    wide = ", ".join(map(str, rows))
    return [f"  {len(found)} of them fell back: rows of {wide} weights do not fill its blocks ({named}{more})"]


def _losses(report: QuantizationReport) -> list[str]:
    """Report the tensors that lost most, and what importance matrix was used."""
    from edge.console.text import printable

    lines = []
    if report.importance:
        lines.append(f"  importance of {report.importance.tensors} tensors from {printable(report.importance.source)}")
    if report.worst:
        named = ", ".join(f"{one.tensor} {one.type} {one.relative_error:.2%}" for one in report.worst)
        lines.append(f"  largest errors of weights: {named}")
    return lines


def _describe(estimate: UncertainValue) -> str:
    return f"{estimate.value:.4f} ± {estimate.error:.4f}"
