"""One conversion of a language model from the host's side: what was asked for, and the worker that does it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converters.gguf.hugging_face import check_architecture
from converters.gguf.recognise import ADAPTER, recognised
from converters.staging import ARTIFACT, failed_place, staging
from converters.steps import StepOptions
from edge.workers import run_job
from runtimes.errors import InputError, UsageError

DEFAULT_PRECISION = "fp16"
# Options of `edge convert` that language models do not take → their names in the parsed arguments.
_OTHERS = {"--calibration": "calibration", "--evaluate": "evaluate", "--labels": "labels", "--opset": "opset"}


@dataclass(frozen=True)
class TextWish:
    """What was asked for: a source of the kind `kind` in `precision`, with a LoRA merged in, or on a base."""

    source: Path
    kind: str
    precision: str
    lora: Path | None = None
    base: Path | None = None
    drop_template: bool = False

    @property
    def name(self) -> str:
        """The start of the artifact's name."""
        return self.source.resolve().name if self.source.is_dir() else self.source.stem


def said(args: argparse.Namespace) -> TextWish | None:
    """The wish, where the model is a language model; UsageError for options and targets that do not fit one."""
    kind = recognised(args.model)
    if kind == "hf":
        check_architecture(args.model)
    if kind is None:
        if args.format == "gguf" and args.model.suffix == ".gguf":
            raise UsageError(
                f"{args.model} is a GGUF file already", f"in fewer bits: edge quantize {args.model} q4_k_m"
            )
        given = [name for name, value in (("--lora", args.lora), ("--base", args.base)) if value]
        if given or args.format == "gguf":
            what = (
                f"{args.model} is no language model that is known here"
                if args.model.exists()
                else f"{args.model} does not exist"
            )
            hint = "give a Hugging Face folder (config.json), Meta's consolidated.*.pth or a llama2.c checkpoint"
            raise InputError(what, hint)
        return None
    if args.device is not None:
        raise UsageError(
            f"{args.model} is a language model", "leave out --for: --to gguf runs on every device with a CPU"
        )
    if args.format not in (None, "gguf"):
        raise UsageError(f"{args.model} is a language model: it goes to gguf, not {args.format}", "--to gguf")
    for name, key in _OTHERS.items():
        if getattr(args, key) is not None:
            raise UsageError(f"{name} does not apply to language models", "leave it out")
    return _checked(args, kind)


def convert(
    wish: TextWish, out: Path, force: bool = False, on_progress: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Convert into the folder `out`, which appears whole or not at all; answers as `edge.conversion.convert`."""
    with staging(out, force) as work:
        options = StepOptions(
            precision=wish.precision,
            lora=str(wish.lora) if wish.lora else None,
            drop_template=wish.drop_template,
            scratch=str(work / "steps"),
        )
        job = {
            "job": "convert_text",
            "artifact": str(wish.source),
            "kind": wish.kind,
            "options": asdict(options),
            "out": str(work / ARTIFACT),
            "scratch": str(work / "steps"),
            "base": str(wish.base) if wish.base else None,
            "kept": str(failed_place(out)),
        }
        # No limit: a large model takes hours, and is seen to go on.
        answer = run_job(job, module="converters.worker", timeout_s=None, on_progress=on_progress)
    return {"artifact": str(out), **answer}


def _checked(args: argparse.Namespace, kind: str) -> TextWish:
    from converters.gguf.make import PRECISIONS

    precision = args.precision or DEFAULT_PRECISION
    if precision not in PRECISIONS:
        hint = f"what works: {', '.join(PRECISIONS)}; more with `edge quantize` afterwards"
        raise UsageError(f"a language model is not written in {precision}", hint)
    for name, folder in (("--lora", args.lora), ("--base", args.base)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{name} {folder} is no folder", "give the folder that holds its configuration")
    if kind == ADAPTER:
        if args.base is None:
            hint = f"name it: --base FOLDER; or merge them: edge convert FOLDER --to gguf --lora {args.model}"
            raise UsageError(f"{args.model} is a LoRA adapter, which fits one base model", hint)
        if args.lora or args.precision not in (None, "fp32"):
            raise UsageError("an adapter is written as it is, in fp32", "leave out --lora and --precision")
        precision = "fp32"
    elif args.base is not None:
        raise UsageError("--base belongs to a LoRA adapter as MODEL", "to merge an adapter into a model, use --lora")
    return TextWish(args.model, kind, precision, args.lora, args.base, args.no_template)
