"""Convert a language model to a verified artifact: open, write, compare, finish. Runs in a worker process."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from converters.base import Converter
from converters.gguf import PLAIN, encoder_name
from converters.gguf.base import GgufConverter, GgufOptions
from converters.gguf.detect import ADAPTER
from converters.gguf.folder_model import FolderModel, converter_environment, write_adapter
from converters.gguf.model_parts import TextModel
from converters.gguf.pictures import PictureProof, prove_pictures, takes_pictures, why_not
from converters.gguf.verification import LIMITS, TextProof, load_options, prove_text
from converters.gguf.write_model_file import make_gguf
from converters.pipeline.request import ConvertResult, LlmConvertRequest
from converters.registry import converter
from runtimes.artifact import Manifest, TensorSpec, sha256, write
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import EngineError, InputError, UsageError
from runtimes.jobs import Report
from runtimes.llm.selfcheck import SCORES, TOKENS
from runtimes.registry import engine, is_installed, missing, text_engine

_ENGINE = "llama_cpp"  # the engine for GGUF that returns scores, which the verification compares


def choose_converter(kind: str) -> GgufConverter:
    """Return the converter from `kind`; for an adapter, that of its base."""
    found = converter(f"{'hf' if kind == ADAPTER else kind}_to_gguf")
    assert isinstance(found, GgufConverter)
    return found


def convert_text(request: LlmConvertRequest, report: Report) -> ConvertResult:
    """Convert, verify and write: tokens, texts and scores are compared with the source's.

    Raises ProofError if the result differs from its source; it is written anyway, for inspection.
    """
    step = choose_converter(request.kind)
    step.check_libraries()
    if not is_installed(engine(_ENGINE)):  # reported before anything is written
        raise missing(engine(_ENGINE))
    start = time.perf_counter()

    report({"doing": "opening the source", "done": 0, "total": 3})
    result = _adapter(request, step) if request.kind == ADAPTER else _model(request, step, report)
    if not result.proof.passed:
        result.write()
        raise result.proof.error(request.kept or str(request.out))
    if result.pictures is not None and not result.pictures.passed:
        result.write()
        raise result.pictures.error(request.kept or str(request.out))
    report({"doing": "done", "done": 3, "total": 3})
    manifest = result.write()
    return ConvertResult(
        format=manifest.format,
        precision=manifest.precision,
        files=tuple(sorted([*manifest.files, "manifest.json"])),
        proof=manifest.proof,
        notes=result.notes,
        seconds={"all": round(time.perf_counter() - start, 3)},
    )


@dataclass(frozen=True, kw_only=True)
class _Result:
    request: LlmConvertRequest
    step: Converter
    model: TextModel
    file: Path
    precision: str
    facts: JsonObject
    notes: tuple[str, ...]
    proof: TextProof
    pictures: PictureProof | None = None

    def write(self) -> Manifest:
        options = self.request.options
        vocabulary = self.proof.outputs[SCORES].shape[-1]
        manifest = Manifest(
            name=self.file.stem,
            format="gguf",
            precision=self.precision,
            model=self.file.name,
            source={
                "name": self.request.source.name,
                "format": self.request.kind,
                "sha256": sha256(self.request.source),
                **({"lora": sha256(options.lora)} if options.lora else {}),
                **({"base": sha256(options.base)} if options.base else {}),
            },
            inputs=(TensorSpec(TOKENS, "int32", ("length",)),),
            outputs=(TensorSpec(SCORES, "float32", ("length", vocabulary)),),
            selfcheck=self.proof.rule,
            proof={**self.proof.facts, **({"pictures": self.pictures.facts} if self.pictures else {})},
            conversion={
                "steps": [self.step.id],
                "options": {"precision": self.precision},
                "libraries": {"gguf": metadata.version("gguf")},
                **self.facts,
            },
        )
        return write(self.request.out, manifest, self.proof.inputs, self.proof.outputs).manifest


def _model(request: LlmConvertRequest, step: GgufConverter, report: Report) -> _Result:
    def on_tensor(done: int, total: int) -> None:
        report({"doing": f"writing tensor {done} of {total}", "done": 0, "total": 3})

    precision = request.options.precision
    step.check_precision(precision)
    model = step.open(request.source, request.options)
    if isinstance(model, FolderModel):
        converter_environment().create(report=lambda text: report({"doing": text, "done": 0, "total": 3}))
        report({"doing": "llama.cpp's converter writes the model", "done": 1, "total": 3})
    written = make_gguf(model, request.out, request.options, on_tensor)
    with text_engine(str(written.model), _ENGINE).open_text(str(written.model), load_options(model)) as session:
        proof = prove_text(model, session, precision)
    result = _Result(
        request=request,
        step=step,
        model=model,
        file=written.model,
        precision=precision,
        facts=dict(written.facts),
        notes=(*written.notes, *proof.notes),
        proof=proof,
    )
    if not proof.passed or not isinstance(model, FolderModel) or not takes_pictures(model.config):
        return result
    if request.options.drop_pictures:
        return result
    report({"doing": "converting and comparing the picture encoder", "done": 2, "total": 3})
    return _with_pictures(result, model)


def _with_pictures(result: _Result, model: FolderModel) -> _Result:
    """Add the picture encoder, or a note why the result only reads text."""
    encoder = result.file.with_name(encoder_name(result.file.stem))
    reason = why_not(model.folder, model.config)
    if reason is None:
        try:
            model.write_pictures(encoder, result.precision if result.precision in PLAIN else "fp16")
            limit = LIMITS[result.precision]
            proof = prove_pictures(model.folder, model.config, result.file, encoder, limit)
            return replace(result, pictures=proof, facts={**result.facts, "pictures": encoder.name})
        except (InputError, EngineError) as error:  # the converter, transformers or llama.cpp does not support it
            encoder.unlink(missing_ok=True)
            reason = error.message.replace(f"{encoder.parent}/", "")
    return replace(result, notes=(*result.notes, f"the result only reads text, its pictures are left out: {reason}"))


def _adapter(request: LlmConvertRequest, step: GgufConverter) -> _Result:
    """Convert the adapter alone. It is verified on its base, which is converted temporarily for that."""
    if request.options.base is None:
        what = f"{request.source} is a LoRA adapter, which fits one base model"
        raise UsageError(what, f"name it: --base FOLDER; or merge them: edge convert FOLDER --lora {request.source}")
    name = request.source.resolve().name
    file = request.out / f"{name}.gguf"
    lora = write_adapter(request.options.base, request.source, file)
    request.scratch.mkdir(parents=True, exist_ok=True)
    plain = request.scratch / "base.gguf"
    base = step.open(request.options.base, GgufOptions(drop_template=True))
    base.write(plain, "fp32", lambda _done, _total: None)
    options = GgufOptions(drop_template=True, lora=request.source, scratch=str(request.scratch))
    merged = step.open(request.options.base, options)
    loading = load_options(base, {str(file): 1.0})
    with text_engine(str(plain), _ENGINE).open_text(str(plain), loading) as session:
        proof = prove_text(merged, session, "fp32")
    facts: JsonObject = {"architecture": session.facts.architecture, "rank": lora.rank, "tensors": len(lora.changes)}
    return _Result(
        request=request,
        step=step,
        model=merged,
        file=file,
        precision="fp32",
        facts=facts,
        notes=proof.notes,
        proof=proof,
    )
