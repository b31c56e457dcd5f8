"""From a source to a proven artifact: open, convert step by step, compare, write. Runs in a worker process.

Everything that is asked for arrives as one `Request`; routes are chosen before (`edge.plan`), pictures are decoded
before (`edge.pictures`), and the result's folder is fresh (`converters.staging`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any

from converters.accuracy import Accuracy, Judge, judge_of
from converters.blame import named
from converters.matching import pair_tensors
from converters.meaning import LABELS
from converters.mending import blamed, can_keep, mended
from converters.proof import Proof, fed, prove, selfcheck_rows, selfcheck_rule, ties, translated
from converters.request import Request
from converters.route import Done, Report, packed, run_steps
from converters.source import Source, open_source
from converters.steps import Made, Step, find_steps, step_id
from converters.synthetic import value_range
from converters.truth import Truth, establish, opened, session_of
from converters.witness import both
from runtimes.arrays import Arrays
from runtimes.artifact import Artifact, Manifest, Preprocess, TensorSpec, write
from runtimes.errors import EngineError, UsageError
from runtimes.selfcheck import answers
from runtimes.session import Session

_REMEDY = "calibrate with more inputs of the real task, try --precision fp16, or allow more with --max-drop"
_ALL_INT8 = "this target needs every layer in int8: train with quantisation in mind, or allow more with --max-drop"


def convert(request: Request, report: Report) -> dict[str, Any]:
    """Convert, prove and write.

    Answers {"format", "precision", "files", "proof", "accuracy", "notes", "left", "seconds"}: `accuracy` is None where
    none was asked for, `seconds` the time of each step, of running the source and of proving the result.

    ProofError when the result does not answer as its source, or its top-1 falls by more than allowed; the artifact is
    written all the same, for a look.
    """
    steps = _steps(request.steps)
    source = open_source(request.source)
    seconds: dict[str, float] = {}
    with _timed(seconds, "source"):
        report({"doing": f"running the source ({source.format})", "done": 0, "total": len(steps) + 2})
        truth = establish(request, source)
        judge = _judge(request, source, truth)
    done = run_steps(request, source, steps, truth, report)
    seconds |= {step_id(one.task.step): one.seconds for one in done}
    with _timed(seconds, "proof"):
        report({"doing": "comparing with the source", "done": len(steps) + 1, "total": len(steps) + 2})
        made = done[-1].made if done else Made(packed(source, request.out))
        result = _Result(request, source, truth, made, judge)
        verdict = result.write()
    if judge is not None and not verdict.passed:
        with _timed(seconds, "mending"):
            result, verdict = _mended(result, verdict, done, report)
    report({"doing": "done", "done": len(steps) + 2, "total": len(steps) + 2})
    if not verdict.proof.passed:
        raise verdict.proof.error(request.options.precision, request.kept or str(request.out))
    artifact = verdict.artifact
    return {
        "format": artifact.manifest.format,
        "precision": artifact.manifest.precision,
        "files": sorted([*artifact.manifest.files, "manifest.json"]),
        "proof": dict(artifact.manifest.proof),
        "accuracy": artifact.manifest.proof.get("accuracy"),
        "notes": [*truth.notes, *(judge.notes() if judge else ()), *result.made.notes, *verdict.notes],
        "left": list(result.made.left),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def _judge(request: Request, source: Source, truth: Truth) -> Judge | None:
    if request.evaluation is None:
        return None
    with opened(source.artifact) as session:
        return judge_of(request.evaluation, request.max_drop, truth, session)


def _mended(result: _Result, first: _Verdict, done: tuple[Done, ...], report: Report) -> tuple[_Result, _Verdict]:
    """The result with layers in higher precision, the fewest that will do; ProofError where none will, or none can."""
    assert first.accuracy is not None
    layers = blamed(done)
    verdict = first
    for keep, made in mended(done[-1], layers) if can_keep(done) else ():
        report({"doing": f"keeping {len(keep)} layers in float", "done": len(done) + 1, "total": len(done) + 2})
        options = replace(result.request.options, keep=keep)
        kept = replace(result, request=replace(result.request, options=options), made=made, first=first.accuracy)
        verdict = kept.write()
        if verdict.passed:
            return kept, verdict
    accuracy = verdict.accuracy
    if accuracy is None or accuracy.passed:
        return result, verdict
    remedy = _REMEDY if can_keep(done) or not layers else _ALL_INT8
    raise accuracy.error(named(layers), f"{remedy}; the result is kept in {result.request.kept or result.request.out}")


def _steps(ids: tuple[str, ...]) -> list[Step]:
    known = {step_id(step): step for step in find_steps()}
    for name in ids:
        if name not in known:
            raise UsageError(f"there is no conversion step '{name}'", f"steps: {', '.join(known)}")
    return [known[name] for name in ids]


@dataclass(frozen=True)
class _Verdict:
    """A result that was written, and how it answers; `accuracy` where labelled inputs were given."""

    artifact: Artifact
    proof: Proof
    accuracy: Accuracy | None
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.proof.passed and (self.accuracy is None or self.accuracy.passed)


@dataclass(frozen=True)
class _Result:
    """The converted model beside its source, on the way to being an artifact."""

    request: Request
    source: Source
    truth: Truth
    made: Made
    judge: Judge | None = None
    first: Accuracy | None = None  # before layers were kept in higher precision

    def write(self) -> _Verdict:
        """Run the model on the truth's samples, judge the answers, and write the artifact; with notes to read."""
        precision = self.request.options.precision
        manifest = self._manifest(precision)
        session, run_as = self._open(manifest)
        with closing(session):
            inputs, outputs = tuple(session.inputs), tuple(session.outputs)
            feeds = fed(inputs, translated(self.truth.inputs, inputs, self.truth.samples.inputs.samples))
            given = answers(session, feeds)
            accuracy = self.judge.accuracy(session, self._size()) if self.judge else None
        truth = self._expected(outputs, given)
        proof = prove(precision, truth, given)
        second = self.made.witness(feeds, list(given)) if self.made.witness else None
        if second is not None:
            proof = both(proof, second, precision, truth)
        rows = selfcheck_rows(truth, given)
        manifest = replace(
            manifest,
            inputs=inputs,
            outputs=outputs,
            preprocess=self._turned(inputs),
            output=self.truth.meaning,
            selfcheck=selfcheck_rule(precision, truth, self.truth.samples.kind),
            proof={**self._proof(proof, run_as, accuracy), **({"witness": second.engine} if second else {})},
        )
        if self.truth.labels is not None:
            (self.request.out / LABELS).write_text("\n".join(self.truth.labels) + "\n", encoding="utf-8")
        stored = ({name: values[rows] for name, values in arrays.items()} for arrays in (feeds, truth))
        notes = (*ties(truth, given), *(second.notes if second else ()))
        return _Verdict(write(self.request.out, manifest, *stored), proof, accuracy, notes)

    def _size(self) -> int:
        """Bytes of the model's files, which are all that is there so far."""
        return sum(path.stat().st_size for path in self.request.out.rglob("*") if path.is_file())

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
            source=self.request.origin or self.source.origin(),
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

    def _proof(self, proof: Proof, run_as: str, accuracy: Accuracy | None) -> dict[str, Any]:
        return {
            "run_as": run_as,
            "passed": proof.passed and (accuracy is None or accuracy.passed),
            "metrics": {name: float(f"{value:.6g}") for name, value in proof.metrics.items()},
            "limits": dict(proof.limits),
            "samples": len(self.truth.samples.inputs),
            "inputs": self.truth.samples.kind,
            **self._range(),
            **({"accuracy": self._trade(accuracy)} if accuracy else {}),
        }

    def _range(self) -> dict[str, Any]:
        """The values that nobody gave, so that a reader can judge whether the model takes such."""
        if self.truth.samples.kind != "synthetic":
            return {}
        return {"range": [float(f"{value:.3g}") for value in value_range(self.truth.samples.inputs)]}

    def _trade(self, accuracy: Accuracy) -> dict[str, Any]:
        """The accuracy, with what was kept in higher precision for it, and what it was before."""
        if self.first is None:
            return accuracy.as_dict()
        before = {key: self.first.as_dict()[key] for key in ("artifact", "bytes")}
        return {**accuracy.as_dict(), "kept": list(self.request.options.keep), "before": before}

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
