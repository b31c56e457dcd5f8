"""Plan the conversion of a language model, and run it in a worker process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from converters.gguf.base import GgufConverter, GgufOptions
from converters.gguf.detect import ADAPTER, recognize
from converters.gguf.model_config import generates_text
from converters.gguf.support import check_architecture
from converters.pipeline.request import ConvertResult, LlmConvertRequest
from converters.pipeline.staging import ARTIFACT, failed_path, staging
from edge.console.progress import OnProgress
from edge.conversion.datasets import ConversionInputs
from edge.conversion.planning import ConversionRequest
from edge.workers.process import run_job, step_progress
from runtimes.errors import InputError, UsageError

DEFAULT_PRECISION = "fp16"
_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class LlmConversion:
    """A planned conversion of a language model.

    source: The model's file or folder.
    kind: The kind of source (see `converters.gguf.detect`).
    options: The converter's options, among them a LoRA to merge, or the base model of an adapter.
    """

    source: Path
    kind: str
    options: GgufOptions

    @property
    def name(self) -> str:
        """The start of the artifact's name."""
        return self.source.resolve().name if self.source.is_dir() else self.source.stem

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before it runs: the environment that it runs in."""
        from converters.environments import environment

        return tuple(environment(name).described for name in self.environments)

    @property
    def environments(self) -> tuple[str, ...]:
        """The isolated environments that the conversion needs (`converters.environments`)."""
        from converters.gguf.detect import ADAPTER
        from converters.gguf.folder_model import ENVIRONMENT
        from converters.gguf.hugging_face import is_plain

        needed = self.kind == ADAPTER or (self.kind == "hf" and not is_plain(self.source))
        return (ENVIRONMENT,) if needed else ()

    def run(self, out: Path | None, force: bool, on_progress: OnProgress) -> ConvertResult:
        """Convert into the folder `out`, which is created completely or not at all.

        Raises the same errors as `Conversion.run`.
        """
        place = out or Path(f"{self.name}-gguf-{self.options.precision}")
        with staging(place, force) as work:
            request = LlmConvertRequest(
                source=self.source,
                kind=self.kind,
                options=replace(self.options, scratch=str(work / "steps")),
                out=work / ARTIFACT,
                scratch=work / "steps",
                kept=str(failed_path(place)),
            )
            on_step = step_progress(on_progress, _STEPS)
            # No time limit: a large model takes hours, and progress is shown meanwhile.
            result = run_job(request, module="converters.worker", timeout_s=None, on_progress=on_step)
        return replace(result, artifact=place)


def plan_llm_conversion(model: Path, request: ConversionRequest, inputs: ConversionInputs) -> LlmConversion | None:
    """Plan the conversion of a language model; return None for other models.

    Raises UsageError for options and targets that do not apply to language models.
    """
    kind, options = recognize(model), GgufOptions.of(request.options)
    if kind == "hf":
        check_architecture(model)
    if kind is None:
        if request.format == "gguf" and model.suffix == ".gguf":
            raise UsageError(f"{model} is already a GGUF file", f"to quantize it: edge quantize {model} q4_k_m")
        if options.lora or options.base or request.format == "gguf":
            what = (
                f"{model} is not a language model that edge supports" if model.exists() else f"{model} does not exist"
            )
            hint = "pass a Hugging Face folder (config.json), Meta's consolidated.*.pth or a llama2.c checkpoint"
            if model.is_file() and generates_text(model.parent):
                what, hint = f"{model} is one file of a language model", f"pass its folder: {model.parent}"
            raise InputError(what, hint)
        return None
    if request.device is not None:
        raise UsageError(f"{model} is a language model", "leave out --for: --to gguf runs on every device with a CPU")
    if request.format not in (None, "gguf"):
        raise UsageError(f"{model} is a language model, which converts to gguf, not {request.format}", "use --to gguf")
    others = {
        "--calibration": inputs.calibration,
        "--evaluate": inputs.evaluate,
        "--labels": inputs.labels,
        "--opset": options.opset,
    }
    for name, value in others.items():
        if value is not None:
            raise UsageError(f"{name} does not apply to language models", "leave it out")
    return LlmConversion(source=model, kind=kind, options=_check_options(model, kind, request.precision, options))


def _check_options(model: Path, kind: str, wanted: str | None, options: GgufOptions) -> GgufOptions:
    """Return the options with the precision. Raises UsageError or InputError for options that contradict each other."""
    precision = wanted or DEFAULT_PRECISION
    known = GgufConverter.precisions
    if precision not in known:
        hint = f"what works: {', '.join(known)}; for others, run `edge quantize` on the result"
        raise UsageError(f"language models cannot be converted to {precision} directly", hint)
    for name, folder in (("--lora", options.lora), ("--base", options.base)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{name} {folder} is not a folder", "pass the folder that contains its configuration")
    if kind == ADAPTER:
        if options.base is None:
            hint = f"name it with --base FOLDER, or merge them: edge convert FOLDER --to gguf --lora {model}"
            raise UsageError(f"{model} is a LoRA adapter and needs its base model", hint)
        if options.lora or wanted not in (None, "fp32"):
            raise UsageError("an adapter is always written unmerged, in fp32", "leave out --lora and --precision")
        precision = "fp32"
    elif options.base is not None:
        raise UsageError("--base requires a LoRA adapter as MODEL", "to merge an adapter into a model, use --lora")
    return replace(options, precision=precision)
