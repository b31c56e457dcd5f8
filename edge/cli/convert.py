"""`edge convert`: a trained model for a device or to a format, proven equal to its source."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.source import Source
    from converters.torch_source import TorchSource
    from edge.plan import Plan
    from edge.progress import Progress
    from edge.text_conversion import TextWish

_MODELS = (
    ".pt2, .keras, .h5, .onnx, .tflite, a SavedModel folder or an artifact; TorchScript (.pt, .ts), a Hugging Face "
    "folder, or module:callable, your own Python code that makes a torch.nn.Module; a language model"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, where it is to go, and what belongs to it."""
    from edge import preprocessing, text_options, torch_model

    parser.add_argument("model", type=Path, help=_MODELS)
    parser.add_argument(
        "--for", dest="device", metavar="DEVICE", help="a device, or parts joined with + (edge devices)"
    )
    parser.add_argument(
        "--to", dest="format", metavar="FORMAT", help="a format: onnx, tflite, edgetpu, openvino, tensorrt, gguf"
    )
    parser.add_argument(
        "--precision", metavar="P", help="fp32, fp16, w8 (weights only) or int8; for gguf also q8_0, q4_0, q4_k_m"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR|FILE.npz|MODULE:CALLABLE",
        help="pictures or inputs of the real task, which int8 needs; or your own Python code that yields inputs, the"
        " same ones each time (module:callable or file.py:callable)",
    )
    parser.add_argument(
        "--evaluate", type=Path, metavar="DIR|FILE.npz", help="labelled pictures: top-1 is measured, and may not fall"
    )
    parser.add_argument(
        "--max-drop", type=_share, metavar="D", help="by how much top-1 may fall, 0 to 1 (default: 0.01)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the artifact's folder (default: NAME-FORMAT-PRECISION)"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="one label a line, one for each class")
    parser.add_argument("--output", choices=["probability", "logit"], help="what the output is (default: found out)")
    parser.add_argument("--label-offset", type=int, choices=[0, 1], help="1 where the first class is the background")
    parser.add_argument("--opset", type=int, metavar="N", help="ONNX opset")
    parser.add_argument(
        "--min-mapped", type=float, metavar="SHARE", help="fail where less of the model runs on the Edge TPU, as 0.9"
    )
    parser.add_argument(
        "--old-runtime", action="store_true", help="prove it on a TFLite runtime of the Edge TPU compiler's age too"
    )
    parser.add_argument("--tensorrt", metavar="VERSION", help="the board's TensorRT, where it is not its profile's")
    parser.add_argument(
        "--implicit", action="store_true", help="TensorRT int8 by a calibration cache beside a float model, not QDQ"
    )
    parser.add_argument(
        "--python", type=Path, action="append", default=[], metavar="PATH", help="a Python for environments to be made"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    parser.add_argument("--force", action="store_true", help="replace an artifact that exists")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    preprocessing.add_arguments(parser)
    torch_model.add_arguments(parser)
    text_options.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, convert, and print what was made and how it was proven."""
    from converters.source import open_source
    from edge import torch_model
    from edge.plan import Wish, examined, make_plan
    from edge.text_conversion import said

    if text := said(args):
        return _run_text(args, text)
    handed = torch_model.said(args)
    source = torch_model.planned(handed) if handed else examined(open_source(args.model))
    options = (args.tensorrt, args.implicit, args.min_mapped, args.old_runtime)
    wish = Wish(args.device, args.format, args.precision, args.opset, *options)
    plan = make_plan(source, wish, has_calibration=args.calibration is not None)
    plan = replace(plan, notes=(*_runs_code(args, handed), *plan.notes))
    if args.dry_run:
        print(json.dumps(_plan_as_dict(plan)) if args.json else _plan_as_text(source, plan))
        return 0
    for note in [*plan.notes, *_environments(plan)]:
        print(f"note: {note}", file=sys.stderr)
    result = _convert(args, source, plan, handed)
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(result) if args.json else _as_text(result))
    return 0


def _runs_code(args: argparse.Namespace, handed: TorchSource | None) -> list[str]:
    """What comes before the plan's own steps: an export, and the user's own code."""
    from converters.user_code import is_reference
    from edge.generated import described

    generated = args.calibration is not None and is_reference(str(args.calibration))
    return [*([handed.said] if handed else []), *([described(str(args.calibration))] if generated else [])]


def _run_text(args: argparse.Namespace, wish: TextWish) -> int:
    from edge.progress import Progress
    from edge.text_conversion import convert

    if args.dry_run:
        plan = {"format": "gguf", "precision": wish.precision, "steps": [f"{wish.kind}_to_gguf"]}
        print(json.dumps(plan) if args.json else f"{wish.source} ({wish.kind}) to gguf {wish.precision}")
        return 0
    out = args.out or Path(f"{wish.name}-gguf-{wish.precision}")
    with Progress(3, "converting", quiet=args.json) as bar:
        show = _shown_on(bar)
        result = convert(wish, out, args.force, show)
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(result) if args.json else _text_result(result))
    return 0


def _text_result(result: dict[str, Any]) -> str:
    from edge.terminal import printable

    proof = result["proof"]
    first = min((one["token"] for one in proof["partings"]), default=None)
    agreed = f"all {proof['continued']}" if first is None else f"the first {first:g} of {proof['continued']}"
    files = ", ".join(name for name in result["files"] if name.endswith(".gguf"))
    return "\n".join(
        [
            f"{printable(result['artifact'])}: {printable(files)}, {result['precision']}",
            f"  the same tokens on {proof['texts_tokenized']} texts of many languages",
            f"  greedy as the source (by {proof['reference']}) for {agreed} tokens of {proof['samples']} texts",
            *_partings(proof),
            f"  scores {proof['metrics']['snr_db']:.1f} dB above what differs (wanted {proof['limits']['snr_db']:g}), "
            f"the same best token at {proof['metrics']['top1_agreement']:.1%} of the places",
        ]
    )


def _partings(proof: dict[str, Any]) -> list[str]:
    """By how much the source prefers its own token where a text parts from it: a little is rounding."""
    margins = [one["margin"] for one in proof["partings"]]
    if not margins:
        return []
    wanted = f" (wanted {proof['limits']['margin']:g})" if "margin" in proof["limits"] else ""
    texts, most = ("1 text parts", "") if len(margins) == 1 else (f"{len(margins)} texts part", " at most")
    return [f"  {texts} from it, by a margin of {max(margins):.2g} of the scores' spread{most}{wanted}"]


def _convert(args: argparse.Namespace, source: Source, plan: Plan, handed: TorchSource | None) -> dict[str, Any]:
    from edge.conversion import Given, convert
    from edge.preprocessing import said
    from edge.progress import Progress
    from runtimes.errors import UsageError

    if args.max_drop is not None and args.evaluate is None:
        raise UsageError("--max-drop needs labelled pictures to measure on", "give them with --evaluate")
    out = args.out or Path(f"{source.artifact.manifest.name}-{plan.format}-{plan.precision}")
    given = Given(
        calibration=args.calibration,
        labels=args.labels,
        said=said(args),
        kind=args.output,
        label_offset=args.label_offset,
        evaluate=args.evaluate,
        max_drop=0.01 if args.max_drop is None else args.max_drop,
        torch=handed,
        pythons=tuple(args.python),
    )
    with Progress(len(plan.steps) + 2, "converting", quiet=args.json) as bar:
        return convert(source, plan, out, given, args.force, _shown_on(bar))


def _shown_on(bar: Progress) -> Callable[[dict[str, Any]], None]:
    done = 0

    def show(progress: dict[str, Any]) -> None:
        nonlocal done
        if progress["done"] > done:
            bar.advance(progress["doing"], progress["done"] - done)
            done = progress["done"]
        else:
            bar.note(progress["doing"])

    return show


def _plan_as_dict(plan: Plan) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(plan)


def _plan_as_text(source: Source, plan: Plan) -> str:
    from converters.steps import find_steps, step_id, taken

    target = f"{plan.format} {plan.precision}" + (f" for {plan.device}" if plan.device else "")
    takes = {step_id(step): taken(step) for step in find_steps()}
    precisions = [*(takes[step] for step in plan.steps[1:]), plan.precision]
    named = zip(plan.steps, precisions[: len(plan.steps)], strict=True)
    steps = [f"{number}. {step} ({precision})" for number, (step, precision) in enumerate(named, 1)]
    opset = [f"ONNX opset {plan.opset}"] if plan.opset else _newest_opset(plan)
    lines = [*(steps or ["packed as it is"]), *opset, *_environments(plan), *plan.notes]
    return "\n".join([f"{source.model} ({source.format}) to {target}", *lines])


def _newest_opset(plan: Plan) -> list[str]:
    from converters.tensorrt.releases import Release

    if plan.format != "tensorrt":
        return []
    release = Release.asked(plan.release)
    return [f"ONNX opset {release.max_opset}, the newest that {release} reads, or as it is where it cannot be lifted"]


def _environments(plan: Plan) -> list[str]:
    from converters.environments import environment

    return [environment(name).described for name in plan.environments]


def _as_text(result: dict[str, Any]) -> str:
    proof = result["proof"]
    what = {"synthetic": f"seeded synthetic inputs{_range(proof)} (give real ones with --calibration)"}
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in proof["metrics"].items())
    limits = ", ".join(f"{name} {value:.4g}" for name, value in proof["limits"].items())
    witness = f", on {proof['witness']} too" if "witness" in proof else ""
    return "\n".join(
        [
            f"{result['artifact']}: {result['format']} {result['precision']}",
            f"  proven on {proof['samples']} {what.get(proof['inputs'], proof['inputs'])}{witness}: {metrics}",
            f"  wanted: {limits}",
            *_accuracy(result["accuracy"]),
            *(f"  {line}" for line in result["left"]),
        ]
    )


def _range(proof: dict[str, Any]) -> str:
    return " of {:g} to {:g}".format(*proof["range"]) if "range" in proof else ""


def _accuracy(accuracy: dict[str, Any] | None) -> list[str]:
    if accuracy is None:
        return []
    top1 = f"top-1 {accuracy['source']:.2%} of the source, {accuracy['artifact']:.2%} of the artifact"
    lines = [f"  {top1}, on {accuracy['samples']} labelled inputs"]
    if "kept" in accuracy:
        before = accuracy["before"]
        names = ", ".join(name.split(";")[0] for name in accuracy["kept"])
        lines.append(f"  kept in float for that: {names}")
        lines.append(
            f"  all in int8: {before['artifact']:.2%}, {before['bytes']:,} bytes; so, {accuracy['bytes']:,} bytes"
        )
    return lines


def _share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
