"""From a source to a proven artifact: open, convert step by step, compare, write. Runs in a worker process.

Everything that is asked for arrives as one `Request`; routes are chosen before (`edge.plan`), pictures are decoded
before (`edge.pictures`), and the result's folder is fresh (`converters.staging`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from converters.calibration import Calibration
from converters.matching import pair_tensors
from converters.meaning import LABELS
from converters.proof import (
    Proof,
    fed,
    prove,
    selfcheck_rows,
    selfcheck_rule,
    translated,
)
from converters.request import Request
from converters.source import Source, open_source
from converters.steps import Made, Step, StepOptions, find_steps, step_id, taken
from converters.truth import Truth, establish, opened, session_of
from runtimes.arrays import Arrays
from runtimes.artifact import Artifact, Manifest, Preprocess, TensorSpec, write
from runtimes.errors import EngineError, UsageError
from runtimes.onnx_file import external_files
from runtimes.selfcheck import answers
from runtimes.session import Session

Report = Callable[[Mapping[str, Any]], None]


def convert(request: Request, report: Report) -> dict[str, Any]:
    """Convert, prove and write; answers {"artifact", "format", "precision", "files", "proof", "notes", "left"}.

    ProofError when the result does not answer as its source; the artifact is written all the same, for a look.
    """
    steps = _steps(request.steps)
    source = open_source(request.source)
    report({"doing": f"running the source ({source.format})", "done": 0, "total": len(steps) + 2})
    truth = establish(request, source)
    made = _run_steps(request, source, steps, truth, report)
    report({"doing": "comparing with the source", "done": len(steps) + 1, "total": len(steps) + 2})
    result = _Result(request, source, truth, made)
    artifact, proof = result.write()
    report({"doing": "done", "done": len(steps) + 2, "total": len(steps) + 2})
    if not proof.passed:
        raise proof.error(request.options.precision, request.kept or str(request.out))
    return {
        "format": artifact.manifest.format,
        "precision": artifact.manifest.precision,
        "files": sorted([*artifact.manifest.files, "manifest.json"]),
        "proof": dict(artifact.manifest.proof),
        "notes": [*truth.notes, *made.notes],
        "left": list(made.left),
    }


def _steps(ids: tuple[str, ...]) -> list[Step]:
    known = {step_id(step): step for step in find_steps()}
    for name in ids:
        if name not in known:
            raise UsageError(f"there is no conversion step '{name}'", f"steps: {', '.join(known)}")
    return [known[name] for name in ids]


def _run_steps(request: Request, source: Source, steps: list[Step], truth: Truth, report: Report) -> Made:
    """The final model in `request.out`; what lies between goes to `request.scratch`."""
    if not steps:
        return Made(_packed(source, request.out))
    made, specs = Made(source.model, source.format), truth.inputs
    for number, step in enumerate(steps, 1):
        report({"doing": step_id(step), "done": number, "total": len(steps) + 2})
        last = step is steps[-1]
        folder = request.out if last else request.scratch / step_id(step)
        folder.mkdir(parents=True, exist_ok=True)
        if number > 1:
            specs = _inputs_of(made.model, step.source)
        options = _options(request, None if last else steps[number])
        quantises = options.precision != taken(step)
        calibration = _translated_calibration(truth, specs) if quantises else None
        answer = step.convert(made.model, folder, options, calibration)
        made = answer if isinstance(answer, Made) else Made(answer)
    return made


def _options(request: Request, following: Step | None) -> StepOptions:
    """What is asked of a step: what the request says of the last, what the following one takes of those before."""
    if following is None:
        return request.options
    return replace(request.options, precision=taken(following), io_dtype=None)


def _translated_calibration(truth: Truth, specs: tuple[TensorSpec, ...]) -> Calibration | None:
    if truth.calibration is None:
        return None
    return Calibration(translated(truth.inputs, specs, truth.calibration.samples))


def _inputs_of(model: Path, model_format: str) -> tuple[TensorSpec, ...]:
    with opened(Artifact(model.parent, Manifest(model.stem, model_format, "fp32", model.name))) as session:
        return tuple(session.inputs)


def _packed(source: Source, out: Path) -> Path:
    """The source itself, with the files that it names."""
    model = source.model
    if model.is_dir():
        shutil.copytree(model, out / model.name)
        return out / model.name
    names = external_files(model) if source.format == "onnx" else set()
    beside = [model.parent / name for name in names]
    if source.format == "openvino":
        beside.append(model.with_suffix(".bin"))
    for path in (model, *beside):
        place = out / path.relative_to(model.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    return out / model.name


@dataclass(frozen=True)
class _Result:
    """The converted model beside its source, on the way to being an artifact."""

    request: Request
    source: Source
    truth: Truth
    made: Made

    def write(self) -> tuple[Artifact, Proof]:
        """Run the model on the truth's samples, judge the answers, and write the artifact around it."""
        precision = self.request.options.precision
        manifest = self._manifest(precision)
        session, run_as = self._open(manifest)
        with closing(session):
            inputs, outputs = tuple(session.inputs), tuple(session.outputs)
            feeds = fed(inputs, translated(self.truth.inputs, inputs, self.truth.samples.inputs.samples))
            given = answers(session, feeds)
        truth = self._expected(outputs, given)
        proof = prove(precision, truth, given)
        rows = selfcheck_rows(truth, given)
        manifest = replace(
            manifest,
            inputs=inputs,
            outputs=outputs,
            preprocess=self._turned(inputs),
            output=self.truth.meaning,
            selfcheck=selfcheck_rule(precision, truth, self.truth.samples.kind),
            proof=self._proof(proof, run_as),
        )
        if self.truth.labels is not None:
            (self.request.out / LABELS).write_text("\n".join(self.truth.labels) + "\n", encoding="utf-8")
        stored = ({name: values[rows] for name, values in arrays.items()} for arrays in (feeds, truth))
        return write(self.request.out, manifest, *stored), proof

    def _open(self, manifest: Manifest) -> tuple[Session, str]:
        """A session of the result and its format, or those of its stand-in where its engine or device is not here."""
        stand_in = self.made.stand_in
        try:
            return session_of(Artifact(self.request.out, manifest)), manifest.format
        except EngineError:
            if stand_in is None:
                raise
        model = stand_in.model
        known = Manifest(model.stem, stand_in.format, manifest.precision, model.name)
        return session_of(Artifact(model.parent, known)), stand_in.format

    def _manifest(self, precision: str) -> Manifest:
        known = self.source.artifact.manifest
        options = asdict(self.request.options)
        return Manifest(
            name=known.name,
            format=self.made.format or self.request.format,
            precision=precision,
            model=self.made.model.name,
            source={"name": self.source.model.name, "format": self.source.format, "sha256": self.source.sha256},
            conversion={
                "steps": list(self.request.steps),
                "options": {key: value for key, value in options.items() if value},
                "libraries": _libraries(_steps(self.request.steps)),
                "calibration_samples": len(self.truth.calibration or ()),
                **self.made.facts,
            },
        )

    def _expected(self, outputs: tuple[TensorSpec, ...], given: Arrays) -> Arrays:
        """The source's answers under the result's names, in its axes and shapes."""
        renamed = translated(self.truth.outputs, outputs, self.truth.answers, "output")
        return {name: renamed[name].reshape(values.shape) for name, values in given.items()}

    def _proof(self, proof: Proof, run_as: str) -> dict[str, Any]:
        return {
            "run_as": run_as,
            "passed": proof.passed,
            "metrics": {name: float(f"{value:.6g}") for name, value in proof.metrics.items()},
            "limits": dict(proof.limits),
            "samples": len(self.truth.samples.inputs),
            "inputs": self.truth.samples.kind,
        }

    def _turned(self, inputs: tuple[TensorSpec, ...]) -> Preprocess | None:
        """How a picture becomes the result's input: as the source's, in the layout that the result has."""
        if self.truth.preprocess is None or pair_tensors(self.truth.inputs, inputs, "input")[0].axes is None:
            return self.truth.preprocess
        return replace(self.truth.preprocess, layout="NCHW" if self.truth.preprocess.layout == "NHWC" else "NHWC")


def _libraries(steps: list[Step]) -> dict[str, str]:
    """Version of every library that the steps used, by import name."""
    names = sorted({name for step in steps for name in step.requires})
    distributions = metadata.packages_distributions() if names else {}
    return {name: metadata.version(distributions[name][0]) for name in names if name in distributions}
