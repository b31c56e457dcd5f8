"""From a language model to a proven artifact: open, write, compare, finish. Runs in a worker process."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, cast

from converters.gguf.lora import Lora, Merged, write_adapter
from converters.gguf.make import make_gguf
from converters.gguf.model import LanguageModel
from converters.gguf.proof import TextProof, load_options, prove_text
from converters.gguf.recognise import ADAPTER
from converters.gguf.writer import write_model
from converters.route import Report
from converters.source import digest
from converters.steps import Step, StepOptions, check_libraries, check_precision, find_steps, step_id
from runtimes.artifact import Manifest, TensorSpec, write
from runtimes.errors import UsageError
from runtimes.registry import engine, is_installed, missing, text_runtime
from runtimes.text_selfcheck import SCORES, TOKENS

_ENGINE = "llama_cpp"  # of those that open GGUF the one that gives scores, which the proof compares


class TextStep(Step, Protocol):
    """A step from language models, which can open its source without converting it."""

    def open(self, model: Path, options: StepOptions) -> LanguageModel:
        """The model, for the proof; raises as `convert`."""


@dataclass(frozen=True)
class TextRequest:
    """One conversion of a language model.

    `kind` is what `recognised` told. `base` is the Hugging Face folder of an adapter's base. The artifact is written
    into the existing folder `out`; `scratch` is a folder for what lies between; `kept` is what a failed proof names.
    """

    source: Path
    kind: str
    options: StepOptions
    out: Path
    scratch: Path
    base: Path | None = None
    kept: str = ""


def step_of(kind: str) -> TextStep:
    """The step from `kind`, which for an adapter is its base's."""
    wanted = "hf" if kind == ADAPTER else kind
    return cast(TextStep, next(step for step in find_steps() if step_id(step) == f"{wanted}_to_gguf"))


def convert_text(request: TextRequest, report: Report) -> dict[str, Any]:
    """Convert, prove and write; answers as `pipeline.convert` does, with a "proof" of tokens, texts and scores.

    ProofError where the result is not its source; it is written all the same, for a look.
    """
    step = step_of(request.kind)
    check_libraries(step)
    if not is_installed(engine(_ENGINE)):  # said before anything is written
        raise missing(engine(_ENGINE))
    start = time.perf_counter()

    def on_tensor(done: int, total: int) -> None:
        report({"doing": f"writing tensor {done} of {total}", "done": 0, "total": 3})

    report({"doing": "opening the source", "done": 0, "total": 3})
    result = _adapter(request, step) if request.kind == ADAPTER else _model(request, step, on_tensor)
    if not result.proof.passed:
        result.write()
        raise result.proof.error(request.kept or str(request.out))
    report({"doing": "done", "done": 3, "total": 3})
    manifest = result.write()
    return {
        "format": manifest.format,
        "precision": manifest.precision,
        "files": sorted([*manifest.files, "manifest.json"]),
        "proof": dict(manifest.proof),
        "accuracy": None,
        "notes": list(result.notes),
        "left": [],
        "seconds": {"all": round(time.perf_counter() - start, 3)},
    }


@dataclass(frozen=True)
class _Result:
    request: TextRequest
    step: Step
    model: LanguageModel
    file: Path
    precision: str
    facts: dict[str, Any]
    notes: tuple[str, ...]
    proof: TextProof

    def write(self) -> Manifest:
        options = self.request.options
        vocabulary = self.model.network.vocabulary
        manifest = Manifest(
            name=self.file.stem,
            format="gguf",
            precision=self.precision,
            model=self.file.name,
            source={
                "name": self.request.source.name,
                "format": self.request.kind,
                "sha256": digest(self.request.source),
                **({"lora": digest(Path(options.lora))} if options.lora else {}),
                **({"base": digest(self.request.base)} if self.request.base else {}),
            },
            inputs=(TensorSpec(TOKENS, "int32", ("length",)),),
            outputs=(TensorSpec(SCORES, "float32", ("length", vocabulary)),),
            selfcheck=self.proof.rule,
            proof=self.proof.facts,
            conversion={
                "steps": [step_id(self.step)],
                "options": {"precision": self.precision},
                "libraries": {"gguf": metadata.version("gguf")},
                **self.facts,
            },
        )
        return write(self.request.out, manifest, self.proof.inputs, self.proof.outputs).manifest


def _model(request: TextRequest, step: TextStep, on_tensor: Any) -> _Result:
    precision = request.options.precision
    check_precision(step, precision)
    model = step.open(request.source, request.options)
    made = make_gguf(model, request.out, request.options, on_tensor)
    with closing(text_runtime(str(made.model), _ENGINE).open_text(str(made.model), load_options(model))) as session:
        proof = prove_text(model, session, precision)
    return _Result(request, step, model, made.model, precision, dict(made.facts), made.notes, proof)


def _adapter(request: TextRequest, step: TextStep) -> _Result:
    """The adapter alone; it is proven on its base, which is written beside for that and thrown away."""
    if request.base is None:
        what = f"{request.source} is a LoRA adapter, which fits one base model"
        raise UsageError(what, f"name it: --base FOLDER; or merge them: edge convert FOLDER --lora {request.source}")
    base = step.open(request.base, StepOptions(drop_template=True))
    lora = Lora(request.source, base.network)
    name = request.source.resolve().name
    file = request.out / f"{name}.gguf"
    write_adapter(lora, base.network, file, name)
    request.scratch.mkdir(parents=True, exist_ok=True)
    plain = request.scratch / "base.gguf"
    write_model(base, plain, half=False)
    merged = LanguageModel(base.name, base.network, base.vocabulary, Merged(base.weights, lora), base.encode)
    options = load_options(base, {str(file): 1.0})
    with closing(text_runtime(str(plain), _ENGINE).open_text(str(plain), options)) as session:
        proof = prove_text(merged, session, "fp32")
    facts = {"architecture": base.network.architecture, "rank": lora.rank, "tensors": len(lora.names)}
    return _Result(request, step, merged, file, "fp32", facts, (), proof)
