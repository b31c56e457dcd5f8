"""`edge convert`: convert a trained model for a device or to a format, and prove the result equal to its source."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.options import ConvertOptions
    from converters.pipeline.request import ConvertResult
    from converters.sources.source import OpenedSource, SourceOptions
    from edge.conversion.datasets import ConversionInputs
    from edge.conversion.planning import ConversionPlan
    from runtimes.artifact.json_fields import JsonObject

_MODELS = (
    ".pt2, .keras, .h5, .onnx, .tflite, a SavedModel folder or an artifact; TorchScript (.pt, .ts), a Hugging Face "
    "folder, or module:callable, your own Python code that makes a torch.nn.Module; a language model"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge convert`."""
    from converters.options import ConvertOptions
    from converters.registry import all_converters
    from converters.sources import all_sources
    from edge.cli.options import declared, model_hints
    from edge.cli.options.numbers import share
    from runtimes.model_files.detect import is_language_model

    parser.add_argument("model", type=Path, help=_MODELS)
    parser.add_argument(
        "--for", dest="device", metavar="DEVICE", help="a device, or parts joined with + (edge devices)"
    )
    parser.add_argument(
        "--to",
        dest="format",
        metavar="FORMAT",
        help="a format: onnx, tflite, edgetpu, openvino, tensorrt, browser, gguf",
    )
    parser.add_argument(
        "--precision", metavar="P", help="fp32, fp16, w8 (weights only) or int8; for gguf also bf16, q8_0, q4_0, q4_k_m"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR|FILE.npz|MODULE:CALLABLE",
        help="pictures or inputs of the real task, which int8 needs; or your own Python code that yields inputs, the"
        " same ones each time (module:callable or file.py:callable)",
    )
    parser.add_argument(
        "--evaluate",
        type=Path,
        metavar="DIR|FILE.npz",
        help="labeled inputs to check that the accuracy does not drop (see `edge evaluate`)",
    )
    parser.add_argument(
        "--max-drop", type=share, metavar="D", help="how much top-1, mAP, mIoU or OKS may drop, 0 to 1 (default: 0.01)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the artifact's folder (default: NAME-FORMAT-PRECISION)"
    )
    model_hints.add_task(parser)
    model_hints.add_output(parser)
    parser.add_argument(
        "--python",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="a Python interpreter for creating environments",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    parser.add_argument("--force", action="store_true", help="replace an existing artifact")
    parser.add_argument("--json", action="store_true", help="print JSON")
    model_hints.add_preprocessing(parser)
    declared.add_arguments(parser, [one.Options for one in reversed(all_sources())])
    kinds = [one.Options for one in sorted(all_converters(), key=lambda one: is_language_model(one.target))]
    declared.add_arguments(parser, [ConvertOptions, *kinds])


def run(args: argparse.Namespace) -> int:
    """Plan, convert, and print the artifact and its proof."""
    import edge
    from edge.console.progress import ProgressBar
    from runtimes.model_files.detect import is_language_model

    if args.dry_run:
        print(_describe_plan(args))
        return 0
    if args.max_drop is not None and args.evaluate is None:
        raise edge.UsageError("--max-drop needs labeled inputs to measure accuracy on", "pass them with --evaluate")
    with ProgressBar(1, "converting", quiet=args.json) as bar:
        result = edge.convert(
            args.model,
            args.out,
            device=args.device,
            format=args.format,
            precision=args.precision,
            options=_options(args),
            source_options=_source_options(args),
            inputs=_inputs(args),
            force=args.force,
            on_progress=bar.show,
        )
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    is_text = is_language_model(result.format)
    print(json.dumps(result.to_json()) if args.json else _text_result(result) if is_text else _as_text(result))
    return 0


def _describe_plan(args: argparse.Namespace) -> str:
    """Format the plan of a dry run."""
    from edge.conversion.convert import plan
    from edge.conversion.language_model import LlmConversion
    from edge.conversion.planning import ConversionRequest

    request = ConversionRequest(
        device=args.device, format=args.format, precision=args.precision, options=_options(args)
    )
    found = plan(args.model, request, _inputs(args), _source_options(args), hashed=True)
    if isinstance(found, LlmConversion):
        precision = found.options.precision
        steps, environments = [f"{found.kind}_to_gguf"], list(found.environments)
        document = {"format": "gguf", "precision": precision, "steps": steps, "environments": environments}
        lines = [f"{found.source} ({found.kind}) to gguf {precision}", *found.notes]
        return json.dumps(document) if args.json else "\n".join(lines)
    return json.dumps(_plan_as_dict(found.plan)) if args.json else _plan_as_text(found.source, found.plan)


def _options(args: argparse.Namespace) -> ConvertOptions:
    """Return the options of the matching converter: that of language models for such a model or its options."""
    from converters.gguf.base import GgufOptions
    from converters.gguf.detect import recognize
    from converters.registry import all_converters
    from edge.cli.options import declared
    from runtimes.model_files.detect import is_language_model

    of_llm = declared.read(args, GgufOptions)
    if args.format == "gguf" or of_llm.own() or recognize(args.model):
        return of_llm
    kinds = {one.target: one.Options for one in all_converters() if not is_language_model(one.target)}
    return declared.convert_options(args, tuple(kinds.values()), kinds.get(args.format))


def _source_options(args: argparse.Namespace) -> SourceOptions | None:
    """Return the options of the model's source; None for a language model, which has none."""
    from converters.gguf.detect import recognize
    from converters.sources import all_sources, source_of
    from edge.cli.options import declared

    if args.format == "gguf" or recognize(args.model):
        return None
    return declared.source_options(args, source_of(args.model), all_sources())


def _inputs(args: argparse.Namespace) -> ConversionInputs:
    from converters.pipeline.request import MAX_DROP
    from edge.cli.options.model_hints import preprocess_options_from
    from edge.conversion.datasets import ConversionInputs

    return ConversionInputs(
        calibration=args.calibration,
        labels=args.labels,
        task=args.task,
        rate=args.rate,
        preprocess_options=preprocess_options_from(args),
        kind=args.output,
        label_offset=args.label_offset,
        evaluate=args.evaluate,
        max_drop=MAX_DROP if args.max_drop is None else args.max_drop,
        pythons=tuple(args.python),
    )


def _text_result(result: ConvertResult) -> str:
    from edge.console.text import printable

    proof = result.proof
    first = min((one["token"] for one in proof["partings"]), default=None)
    agreed = (
        f"all {proof['continued']} tokens" if first is None else f"the first {first:g} of {proof['continued']} tokens"
    )
    files = ", ".join(name for name in result.files if name.endswith(".gguf"))
    return "\n".join(
        [
            f"{printable(str(result.artifact))}: {printable(files)}, {result.precision}",
            f"  tokenizes {proof['texts_tokenized']} texts of many languages like the source",
            f"  continues {proof['samples']} texts like the source (by {proof['reference']}) for {agreed}",
            *_partings(proof),
            f"  signal-to-noise ratio of the scores {proof['metrics']['snr_db']:.1f} dB "
            f"(required {proof['limits']['snr_db']:g}), "
            f"the same best token at {proof['metrics']['top1_agreement']:.1%} of the positions",
        ]
    )


def _partings(proof: Mapping[str, Any]) -> list[str]:
    """Format the margin by which the source prefers its own token where a text diverges; small ones are rounding."""
    margins = [one["margin"] for one in proof["partings"]]
    if not margins:
        return []
    limit = f" (limit {proof['limits']['margin']:g})" if "margin" in proof["limits"] else ""
    texts, most = ("1 text diverges", "") if len(margins) == 1 else (f"{len(margins)} texts diverge", "at most ")
    return [f"  {texts}, where the source prefers its token by {most}{max(margins):.2g} of the scores' spread{limit}"]


def _plan_as_dict(plan: ConversionPlan) -> JsonObject:
    """Return the JSON of a plan, with every option of every converter, as set or its default."""
    from converters.registry import all_converters
    from runtimes.model_files.detect import is_language_model

    owners = [one.Options for one in all_converters() if not is_language_model(one.target)]
    options = {name: value for kind in owners for name, value in kind().to_json().items() if name in kind.declared()}
    return {
        "format": plan.format,
        "precision": plan.precision,
        "steps": list(plan.steps),
        "device": plan.device,
        "notes": list(plan.notes),
        "environments": list(plan.environments),
        **{name: plan.options.to_json().get(name, value) for name, value in options.items()},
    }


def _plan_as_text(source: OpenedSource, plan: ConversionPlan) -> str:
    from converters.registry import all_converters

    target = f"{plan.format} {plan.precision}" + (f" for {plan.device}" if plan.device else "")
    takes = {step.id: step.reads(plan.precision) for step in all_converters()}
    precisions = [*(takes[step] for step in plan.steps[1:]), plan.precision]
    named = zip(plan.steps, precisions[: len(plan.steps)], strict=True)
    steps = [f"{number}. {step} ({precision})" for number, (step, precision) in enumerate(named, 1)]
    opset = [f"ONNX opset {plan.options.opset}"] if plan.options.opset else _notes(plan)
    lines = [*(steps or ["packaged unchanged"]), *opset, *_environments(plan), *plan.notes]
    return "\n".join([f"{source.model} ({source.format}) to {target}", *lines])


def _notes(plan: ConversionPlan) -> tuple[str, ...]:
    from converters.registry import converter

    return converter(plan.steps[-1]).plan_notes(plan.options) if plan.steps else ()


def _environments(plan: ConversionPlan) -> list[str]:
    from converters.environments import environment

    return [environment(name).described for name in plan.environments]


def _as_text(result: ConvertResult) -> str:
    proof = result.proof
    what = {"synthetic": f"seeded synthetic inputs{_range(proof)} (--calibration passes real ones)"}
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in proof["metrics"].items())
    limits = ", ".join(f"{name} {value:.4g}" for name, value in proof["limits"].items())
    witness = f", and on {proof['witness']}" if "witness" in proof else ""
    return "\n".join(
        [
            f"{result.artifact}: {result.format} {result.precision}",
            f"  proven on {proof['samples']} {what.get(proof['inputs'], proof['inputs'])}{witness}: {metrics}",
            f"  required: {limits}",
            *([f"  in the sizes {'; '.join(proof['sizes'])}; the axes stay free"] if "sizes" in proof else []),
            *([f"  {result.task}"] if result.task else []),
            *_accuracy(result.accuracy),
            *(f"  {line}" for line in result.left),
        ]
    )


def _range(proof: Any) -> str:
    return " of {:g} to {:g}".format(*proof["range"]) if "range" in proof else ""


def _accuracy(accuracy: Mapping[str, Any] | None) -> list[str]:
    if accuracy is None:
        return []
    name, form = (accuracy["metric"], ".4f") if "metric" in accuracy else ("top-1", ".2%")
    values = f"{accuracy['source']:{form}} of the source, {accuracy['artifact']:{form}} of the artifact"
    lines = [f"  {name} {values}, on {accuracy['samples']} labeled inputs"]
    if "kept" in accuracy:
        before = accuracy["before"]
        names = ", ".join(name.split(";")[0] for name in accuracy["kept"])
        lines.append(f"  kept in float to reach that: {names}")
        lines.append(
            f"  all in int8: {before['artifact']:{form}}, {before['bytes']:,} bytes; now {accuracy['bytes']:,} bytes"
        )
    return lines
