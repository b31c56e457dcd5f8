"""`edge quantize`: a GGUF file anew in fewer bits, what its tensors really became, and what that costs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, the type, and a text to measure on."""
    from edge.arguments import count

    parser.add_argument("model", type=Path, help="a .gguf file, or an artifact's folder, in fp16 or fp32")
    parser.add_argument(
        "type",
        help="q4_k_m, q4_0, q8_0, q2_k, q3_k_s/m/l, q4_k_s, q5_k_s/m, q6_k, q4_1, q5_0, q5_1, iq4_nl, iq4_xs, fp16",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the new file (default: NAME-TYPE.gguf beside it)")
    parser.add_argument("--text", type=Path, metavar="FILE", help="plain text: perplexity before and after, on it")
    parser.add_argument("--threads", type=count, metavar="N", help="threads (default: all)")
    parser.add_argument("--again", action="store_true", help="quantise what is quantised already, which loses more")
    parser.add_argument("--force", action="store_true", help="replace a file that exists")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def run(args: argparse.Namespace) -> int:
    """Quantise and print the report."""
    from edge.quantization import quantize

    report = quantize(
        args.model,
        args.type,
        out=args.out,
        text=args.text,
        threads=args.threads,
        again=args.again,
        force=args.force,
        quiet=args.json,
    )
    print(json.dumps(report) if args.json else _as_text(report))
    return 0


def _as_text(report: dict[str, Any]) -> str:
    from edge.terminal import printable

    before, after = report["before"], report["after"]
    types = ", ".join(f"{count} {kind}" for kind, count in after["tensors"].items())
    lines = [
        f"{printable(report['file'])}: {report['type']}",
        f"  {before['bytes']:,} → {after['bytes']:,} bytes ({after['bytes'] / before['bytes']:.0%}), "
        f"{before['bits_per_weight']:.2f} → {after['bits_per_weight']:.2f} bits per weight",
        f"  tensors: {types}",
        *_fallbacks(report),
    ]
    found = report["perplexity"]
    if found:
        lines.append(
            f"  perplexity on {printable(found['text'])} ({found['tokens']:,} tokens): "
            f"{_shown(found['before'])} → {_shown(found['after'])}, × {_shown(found['ratio'])}"
        )
    return "\n".join(lines)


def _fallbacks(report: dict[str, Any]) -> list[str]:
    """Which tensors are of another type than their neighbours, because their rows do not fill its blocks."""
    found = report["fallbacks"]
    if not found:
        return []
    rows = sorted({one["row"] for one in found})
    named = ", ".join(f"{one['tensor']} {one['type']}" for one in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    wide = ", ".join(map(str, rows))
    return [f"  {len(found)} of them fell back: rows of {wide} weights do not fill its blocks ({named}{more})"]


def _shown(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.4f} ± {estimate['error']:.4f}"
