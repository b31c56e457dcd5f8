"""Convert a source to a verified artifact: open, convert step by step, compare, write. Runs in a worker process.

The input is one `ConvertRequest`. Before that, `edge.conversion.planning` has chosen the route,
`edge.inference.images` has decoded the pictures, and `converters.pipeline.staging` has created an empty folder.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from converters.base import ConversionOutput
from converters.calibration.dataset import Calibration, to_model_dtypes
from converters.calibration.synthetic import value_range
from converters.layer_errors import SAMPLES, Layer, describe_layers, growing, short
from converters.pipeline.execute import CompletedTask, copy_source, run_conversions, verify_device_model
from converters.pipeline.explanation import FailedProof, explained
from converters.pipeline.gate import Gate, MakeGate, Score, gate_of
from converters.pipeline.output_split import SplitSource, split_source
from converters.pipeline.reference import Reference, opened, run_source, with_fixed_sizes
from converters.pipeline.request import EXPECTED, INPUT, RESULT, SOURCE, ConvertRequest, ConvertResult
from converters.pipeline.tensor_matching import pair_tensors, reshaped
from converters.pipeline.verification import (
    Verification,
    combine,
    combine_sizes,
    combine_verdicts,
    explained_by_rounding,
    map_tensors,
    measured_checks,
    selfcheck_count,
    selfcheck_rows,
    selfcheck_rule,
    stored_checks,
    ties,
    verify,
    with_soak,
)
from converters.proof.conditioning import beyond_rounding, describe_rounding, rounding_responses
from converters.proof.output_checks import output_checks, row_checks
from converters.pytorch.hugging_face_config import TOKENIZER
from converters.registry import converter
from converters.sources.artifact import open_source
from converters.sources.source import OpenedSource
from runtimes.arrays import Arrays, save_arrays
from runtimes.artifact import Artifact, Manifest, Preprocess, TensorSpec, write
from runtimes.artifact.json_fields import JsonObject
from runtimes.artifact.labels import LABELS
from runtimes.artifact.self_check import OutputCheck
from runtimes.errors import EngineError, ProofError
from runtimes.jobs import Report
from runtimes.registry import new_session
from runtimes.session import Session, fits
from runtimes.verification.selfcheck import answers
from runtimes.verification.soak import Soak, soak, soak_sequence

_MAX_ANSWERS_BYTES = 2**27
_REMEDY = "calibrate with more inputs of the real task, try --precision fp16, or allow more with --max-drop"
_ALL_INT8 = "this target needs every layer in int8: train with quantization in mind, or allow more with --max-drop"


def convert(request: ConvertRequest, report: Report, make_gate: MakeGate | None = None) -> ConvertResult:
    """Convert, verify and write; `make_gate` scores the result on the labeled inputs of the request.

    Raises ProofError if the result's outputs differ from the source's, or its top-1 accuracy drops more than allowed;
    the artifact is written anyway, for inspection.
    """
    steps = [converter(name) for name in request.steps]
    request, source = with_fixed_sizes(request, open_source(request.source))
    seconds: dict[str, float] = {}
    with _timed(seconds, "source"):
        report({"doing": f"running the source ({source.format})", "done": 0, "total": len(steps) + 2})
        truth = run_source(request, source)
        judge = gate_of(request, source, truth, make_gate)
    done = run_conversions(request, source, steps, truth, report)
    seconds |= {one.task.step.id: one.seconds for one in done}
    with _timed(seconds, "proof"):
        report({"doing": "comparing with the source", "done": len(steps) + 1, "total": len(steps) + 2})
        made = done[-1].made if done else ConversionOutput(model=copy_source(source, request.out))
        result = _Result(request, source, truth, made, judge, graphs=_graphs(source, done, made))
        verdict = result.write()
    if verdict.proof.slices.failed and not request.options.no_repair:
        with _timed(seconds, "repair"):
            result, verdict, done = _repaired(result, verdict, done, report)
            if verdict.proof.slices.failed:
                result, verdict, done = _split(result, verdict, done, report)
    if judge is not None and not verdict.passed:
        with _timed(seconds, "mending"):
            result, verdict = _with_layers_in_float(result, verdict, done, report)
    if request.answers is not None:
        _save_answers(request.answers, result.truth, verdict)
    if not verdict.proof.passed:
        report({"doing": "finding the first difference", "done": len(steps) + 1, "total": len(steps) + 2})
        raise result.failure(verdict)
    report({"doing": "done", "done": len(steps) + 2, "total": len(steps) + 2})
    artifact = verdict.artifact
    return ConvertResult(
        format=artifact.manifest.format,
        precision=artifact.manifest.precision,
        files=tuple(sorted([*artifact.manifest.files, "manifest.json"])),
        proof=artifact.manifest.proof,
        accuracy=artifact.manifest.proof.get("accuracy"),
        notes=(*truth.notes, *(judge.notes() if judge else ()), *result.made.notes, *verdict.notes),
        left=result.made.remaining_commands,
        seconds={name: round(value, 3) for name, value in seconds.items()},
    )


def _save_answers(place: Path, truth: Reference, verdict: _Verdict) -> None:
    """Write the answers of the proof to its first inputs, see `ConvertRequest.answers`."""
    inputs = truth.samples.inputs.samples
    kinds = {SOURCE: truth.answers, EXPECTED: verdict.truth, RESULT: verdict.given, INPUT: inputs}
    arrays = {f"{kind}{name}": values for kind, one in kinds.items() for name, values in one.items()}
    count = min(len(values) for values in arrays.values())
    size = sum(values.nbytes // max(1, len(values)) for values in arrays.values())
    save_arrays(
        place, {name: values[: min(count, max(1, _MAX_ANSWERS_BYTES // size))] for name, values in arrays.items()}
    )


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def _repaired(
    result: _Result, first: _Verdict, done: tuple[CompletedTask, ...], report: Report
) -> tuple[_Result, _Verdict, tuple[CompletedTask, ...]]:
    """Keep the last layers in float where slices are lost in int8, if that makes the proof pass.

    Slices of different scale in one output need it: after the last Concat, they share one quantization scale.
    """
    worst, request = first.proof.slices.worst, result.request
    if worst is None or not done or done[-1].task.calibration is None:
        return result, first, done
    last = done[-1]
    for place, keep in enumerate(last.task.step.head_layers(last.task.model, last.made.model)):
        report({"doing": "keeping the last layers in float", "done": len(done) + 1, "total": len(done) + 2})
        folder = request.scratch / f"repair-{place}"
        options = replace(last.task.options, keep=keep, float_outputs=True)
        task = replace(last.task, folder=folder, options=options)
        made = task.run()
        kept = replace(request, options=replace(request.options, keep=keep, float_outputs=True), out=folder)
        attempt = replace(result, request=kept, made=made, lost=worst.where)
        verdict = attempt.write()
        if verdict.proof.passed:
            _empty(request.out)
            shutil.copytree(folder, request.out, dirs_exist_ok=True)
            made = replace(made, model=request.out / made.model.relative_to(folder))
            note = f"the last layers stay in float, or int8 would lose {worst.where}: {', '.join(map(short, keep))}"
            artifact = replace(verdict.artifact, path=request.out)
            verdict = replace(verdict, artifact=artifact, notes=(*verdict.notes, note))
            task = replace(task, folder=request.out)
            attempt = replace(attempt, made=made, request=replace(kept, out=request.out))
            return attempt, verdict, (*done[:-1], replace(last, task=task, made=made))
    return result, first, done


def _split(
    result: _Result, first: _Verdict, done: tuple[CompletedTask, ...], report: Report
) -> tuple[_Result, _Verdict, tuple[CompletedTask, ...]]:
    """Give the parts of failed outputs a scale each by splitting these outputs, if that makes the proof pass."""
    request, worst = result.request, first.proof.slices.worst
    if request.options.precision != "int8" or worst is None or not done:
        return result, first, done
    failed = {one.output for one in first.proof.slices.failed}
    pairs = pair_tensors(result.truth.outputs, first.artifact.manifest.outputs, "output")
    names = {pair.source.name for pair in pairs if pair.other.name in failed}
    split = split_source(result.source, names, request.scratch / "split-source")
    if split is None:
        return result, first, done
    report({"doing": "splitting the output", "done": len(done) + 1, "total": len(done) + 2})
    folder = request.scratch / "split"
    folder.mkdir()
    again = replace(request, out=folder, scratch=request.scratch / "split-steps")
    steps = [one.task.step for one in done]
    done_again = run_conversions(again, split.source, steps, result.truth, lambda _: None)
    attempt = replace(result, request=again, made=done_again[-1].made, graphs=result.graphs[:1], split=split)
    verdict = attempt.write()
    if not verdict.proof.passed:
        return result, first, done
    _empty(request.out)
    shutil.copytree(folder, request.out, dirs_exist_ok=True)
    joins = verdict.artifact.manifest.join
    what = ", ".join(f"'{join.output}' into {', '.join(join.parts)}" for join in joins)
    note = f"outputs are split, or int8 would lose {worst.where}: {what}; edge joins them again (manifest: join)"
    verdict = replace(verdict, artifact=replace(verdict.artifact, path=request.out), notes=(*verdict.notes, note))
    return replace(attempt, request=request), verdict, done_again


def _with_layers_in_float(
    result: _Result, first: _Verdict, done: tuple[CompletedTask, ...], report: Report
) -> tuple[_Result, _Verdict]:
    """Keep as few layers as necessary in higher precision. Raises ProofError if that fails or is not supported."""
    assert first.accuracy is not None
    layers = _worst_layers(done)
    verdict = first
    for keep, made in _retry_with_layers_kept(done[-1], layers) if _can_keep(done) else ():
        report({"doing": f"keeping {len(keep)} layers in float", "done": len(done) + 1, "total": len(done) + 2})
        options = replace(result.request.options, keep=keep)
        kept = replace(result, request=replace(result.request, options=options), made=made, first=first.accuracy)
        verdict = kept.write()
        if verdict.passed:
            return kept, verdict
    accuracy = verdict.accuracy
    if accuracy is None or accuracy.passed:
        return result, verdict
    remedy = _REMEDY if _can_keep(done) or not layers else _ALL_INT8
    raise accuracy.error(
        describe_layers(layers), f"{remedy}; the result is kept in {result.request.kept or result.request.out}"
    )


def _graphs(
    source: OpenedSource, done: Sequence[CompletedTask], made: ConversionOutput
) -> tuple[tuple[Path, str], ...]:
    """Return the models that compute the outputs, with their formats: the source, intermediate ones, the result."""
    steps = [(one.task.model, one.task.step.source) for one in done[1:]]
    final = [(made.model, made.format or done[-1].task.step.target)] if done else []
    return ((source.model, source.format), *steps, *final)


def _worst_layers(done: tuple[CompletedTask, ...]) -> list[Layer]:
    """Rank the layers of the quantizing step, worst first; empty if there is none or it does not support that."""
    for one in done:
        calibration = one.task.calibration
        if calibration is not None and one.task.step.keeps_layers:
            few = Calibration({name: values[:SAMPLES] for name, values in calibration.samples.items()})
            return list(one.task.step.layer_errors(one.task.model, one.made.model, one.task.options, few))
    return []


def _can_keep(done: tuple[CompletedTask, ...]) -> bool:
    """Return whether the last step can keep layers in higher precision; a compiler after it could not accept them."""
    return bool(done) and done[-1].task.calibration is not None and done[-1].task.step.keeps_layers


def _retry_with_layers_kept(
    last: CompletedTask, layers: list[Layer]
) -> Iterator[tuple[tuple[str, ...], ConversionOutput]]:
    """Repeat the last step with more and more layers kept, each time into an empty folder."""
    for keep in growing(layers):
        _empty(last.task.folder)
        keep = tuple(dict.fromkeys((*last.task.options.keep, *keep)))
        yield keep, replace(last.task, options=replace(last.task.options, keep=keep)).run()


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@dataclass(frozen=True)
class _Verdict:
    """A written result and its verification; `accuracy` only with labeled inputs.

    truth, given: The answers of the source and of the result, by the result's names.
    """

    artifact: Artifact
    proof: Verification
    accuracy: Score | None
    notes: tuple[str, ...]
    truth: Arrays
    given: Arrays

    @property
    def passed(self) -> bool:
        return self.proof.passed and (self.accuracy is None or self.accuracy.passed)


@dataclass(frozen=True)
class _Result:
    """The converted model and its source, before it becomes an artifact."""

    request: ConvertRequest
    source: OpenedSource
    truth: Reference
    made: ConversionOutput
    judge: Gate | None = None
    first: Score | None = None  # before layers were kept in higher precision
    graphs: tuple[tuple[Path, str], ...] = ()  # the source and the intermediate results
    split: SplitSource | None = None  # the source with split outputs, of which the result was made
    lost: str = ""  # the slices that int8 lost, before the last layers were kept in float

    def write(self) -> _Verdict:
        """Run the model on the reference samples, verify its outputs, and write the artifact; returns notes too."""
        precision = self.request.options.precision
        manifest = self._manifest(precision)
        session, run_as = self._open(manifest)
        if self.split is not None:
            with closing(session):
                manifest = replace(manifest, join=self.split.joins_of(session.outputs))
            session, run_as = self._open(manifest)
        with closing(session):
            inputs, outputs = tuple(session.inputs), tuple(session.outputs)
            feeds = to_model_dtypes(inputs, map_tensors(self.truth.inputs, inputs, self.truth.samples.inputs.samples))
            soaked = self._soak(session, feeds, manifest)
            given = answers(session, feeds)
            others = self._at_other_sizes(session, precision)
            accuracy = self.judge.accuracy(session, self._size()) if self.judge else None
        truth = self._expected(outputs, given)
        checks = self._checks(outputs, truth, given)
        proof = verify(precision, truth, given, checks)
        responses = {} if proof.passed or precision != "fp32" else self._rounding_responses(outputs)
        if responses:
            proof = explained_by_rounding(
                proof, verify(precision, truth, beyond_rounding(truth, given, responses), checks)
            )
        proof = combine_sizes(self._as_device(proof), others)
        second = self.made.witness(feeds, list(given)) if self.made.witness else None
        if second is not None:
            proof = combine_verdicts(proof, second, precision, truth, checks)
        proof = with_soak(proof, soaked.difference)
        count = selfcheck_count(feeds, self.made.max_selfcheck_bytes)
        rows = selfcheck_rows(truth, given, count=count, in_order=self.truth.stateful)
        checks = stored_checks(proof, precision, checks, truth, given, rows)
        manifest = replace(
            manifest,
            inputs=inputs,
            outputs=outputs,
            preprocess=self._turned(inputs),
            output=None if self.request.task else self.truth.meaning,
            task=self.request.task,
            selfcheck=selfcheck_rule(precision, truth, self.truth.samples.kind, checks, stateful=self.truth.stateful),
            proof={
                **self._proof(proof, run_as, accuracy),
                **({"sizes": [self.truth.sizes, *others]} if others else {}),
                **({"witness": second.engine} if second else {}),
            },
        )
        if self.truth.labels is not None:
            (self.request.out / LABELS).write_text("\n".join(self.truth.labels) + "\n", encoding="utf-8")
        if self.request.tokenizer is not None:
            shutil.copyfile(self.request.tokenizer, self.request.out / TOKENIZER)
        stored = ({name: values[rows] for name, values in arrays.items()} for arrays in (feeds, truth))
        notes = (
            *([describe_rounding(responses, list(responses))] if responses else ()),
            *ties(truth, given),
            *proof.slices.faint,
            *(second.notes if second else ()),
        )
        return _Verdict(write(self.request.out, manifest, *stored), proof, accuracy, notes, truth, given)

    def failure(self, verdict: _Verdict) -> ProofError:
        """Return the error of a failed verdict, with the first tensor that differs if it can be found."""
        request, precision = self.request, self.request.options.precision
        divergence = None
        if not verdict.proof.unsteady:
            divergence = explained(
                FailedProof(
                    reference=self.truth,
                    made=self.made,
                    graphs=self.graphs,
                    truth=verdict.truth,
                    given=verdict.given,
                    precision=precision,
                    scratch=request.scratch,
                    worst=verdict.proof.slices.worst,
                )
            )
        kept = request.kept or str(request.out)
        return verdict.proof.error(precision, kept, self.truth.samples.are_made_up, divergence)

    def _soak(self, session: Session, feeds: Arrays, manifest: Manifest) -> Soak:
        """Repeat inferences of the fresh session; a model with a state is opened again instead."""
        options = self.request.options
        count, is_half = options.soak, options.precision == "fp16"
        if self.truth.stateful:
            return soak_sequence(lambda: self._open(manifest)[0], feeds, count=count, is_half=is_half)
        return soak(session, feeds, count=count, is_half=is_half)

    def _at_other_sizes(self, session: Session, precision: str) -> dict[str, Verification]:
        """Verify the result in the other sizes that it keeps free."""
        found = {}
        for other in self.truth.others:
            arrays = map_tensors(self.truth.inputs, session.inputs, other.samples.inputs.samples)
            if not all(fits(arrays[spec.name].shape[1:], spec.shape) for spec in session.inputs):
                continue
            try:
                given = answers(session, to_model_dtypes(session.inputs, arrays))
            except EngineError as error:
                found[other.sizes] = Verification(False, {}, {}, f"the result does not run: {error.message}")
                continue
            renamed = map_tensors(self.truth.outputs, session.outputs, other.answers, "output")
            checks = self._checks(tuple(session.outputs), renamed, given)
            found[other.sizes] = verify(precision, renamed, given, checks)
        return found

    def _as_device(self, proof: Verification) -> Verification:
        """Also verify the model that rounds what the device rounds, if there is one."""
        if self.made.device_model is None:
            return proof
        precision = self.request.options.precision
        return combine(proof, verify_device_model(self.made.device_model, precision, self.truth, self.graphs))

    def _rounding_responses(self, outputs: tuple[TensorSpec, ...]) -> Arrays:
        """Return how far the source's own answers move by rounding, by the result's names; empty if it has a state."""
        if self.truth.stateful:
            return {}
        with opened(self.source, self.truth, self.request) as session:
            found = rounding_responses(session, self.truth.samples.inputs.samples, self.truth.answers)
        pairs = pair_tensors(self.truth.outputs, outputs, "output")
        return {pair.other.name: found[pair.source.name] for pair in pairs if pair.source.name in found}

    def _size(self) -> int:
        """Return the size in bytes of the model's files, which are the only files so far."""
        return sum(path.stat().st_size for path in self.request.out.rglob("*") if path.is_file())

    def _open(self, manifest: Manifest) -> tuple[Session, str]:
        """Open the result, or its stand-in if its engine or device is not available; returns session and format."""
        stand_in = self.made.stand_in
        try:
            return new_session(Artifact(self.request.out, manifest)), manifest.format
        except EngineError:
            if stand_in is None:
                raise
        model = stand_in.model
        known = Manifest(model.stem, stand_in.format, manifest.precision, model.name, join=manifest.join)
        return new_session(Artifact(model.parent, known)), stand_in.format

    def _manifest(self, precision: str) -> Manifest:
        known = self.source.artifact.manifest
        options = self.request.options.to_json()
        return Manifest(
            name=known.name,
            format=self.made.format or self.request.format,
            precision=precision,
            model=self.made.model.name,
            source=self.request.origin or self.source.origin(),
            conversion={
                "steps": list(self.request.steps),
                "options": {key: value for key, value in options.items() if value},
                "libraries": _libraries(self.request.steps),
                "calibration_samples": len(self.truth.calibration or ()),
                **self.made.facts,
            },
        )

    def _expected(self, outputs: tuple[TensorSpec, ...], given: Arrays) -> Arrays:
        """Return the source's outputs with the result's names, axes and shapes."""
        renamed = map_tensors(self.truth.outputs, outputs, self.truth.answers, "output")
        return {name: reshaped(renamed[name], values) for name, values in given.items()}

    def _checks(self, outputs: tuple[TensorSpec, ...], truth: Arrays, given: Arrays) -> tuple[OutputCheck, ...]:
        """Return how each output is compared with the source's; the arrays have the result's names."""
        pairs = pair_tensors(self.truth.outputs, outputs, "output")
        checks = row_checks(output_checks(self.graphs, pairs), pairs, self.truth.inputs, self.graphs, truth, given)
        return measured_checks(checks, truth, given, outputs)

    def _proof(self, proof: Verification, run_as: str, accuracy: Score | None) -> JsonObject:
        return {
            "run_as": run_as,
            "passed": proof.passed and (accuracy is None or accuracy.passed),
            "metrics": {name: float(f"{value:.6g}") for name, value in proof.metrics.items()},
            "limits": dict(proof.limits),
            "samples": len(self.truth.samples.inputs),
            "inputs": self.truth.samples.kind,
            **self._range(),
            **proof.inside(),
            **({"repair": {"lost": self.lost, "kept": list(self.request.options.keep)}} if self.lost else {}),
            **({"accuracy": self._trade(accuracy)} if accuracy else {}),
        }

    def _range(self) -> JsonObject:
        """Describe synthetic inputs, so that the user can judge whether they suit the model."""
        if not self.truth.samples.are_made_up:
            return {}
        return {"range": [float(f"{value:.3g}") for value in value_range(self.truth.samples.inputs)]}

    def _trade(self, accuracy: Score) -> JsonObject:
        """Return the accuracy, the layers kept in higher precision, and the accuracy before that."""
        if self.first is None:
            return accuracy.as_dict()
        before = {key: self.first.as_dict()[key] for key in ("artifact", "bytes")}
        return {**accuracy.as_dict(), "kept": list(self.request.options.keep), "before": before}

    def _turned(self, inputs: tuple[TensorSpec, ...]) -> Preprocess | None:
        """Return the source's preprocessing, adapted to the result's layout."""
        if self.truth.preprocess is None or pair_tensors(self.truth.inputs, inputs, "input")[0].axes is None:
            return self.truth.preprocess
        return replace(self.truth.preprocess, layout="NCHW" if self.truth.preprocess.layout == "NHWC" else "NHWC")


def _libraries(steps: Sequence[str]) -> dict[str, str]:
    """Return the version of every library that the steps used, by import name."""
    libraries = {one.module: one.version for name in steps for one in converter(name).requires}
    return {name: version for name, version in sorted(libraries.items()) if version}
