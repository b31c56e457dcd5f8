"""A candidate of a conversion: a converted model that is compared with its source and written as an artifact."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from converters.base import ConversionOutput
from converters.calibration.dataset import to_model_dtypes
from converters.calibration.synthetic import value_range
from converters.pipeline.choices import ChoiceVerdict, verify_choices
from converters.pipeline.execute import verify_device_model
from converters.pipeline.explanation import FailedProof, disagreement_with_itself, explain_failure
from converters.pipeline.gate import Gate, Score
from converters.pipeline.output_split import SplitSource
from converters.pipeline.reference import Reference, reopen_source
from converters.pipeline.request import ConvertRequest
from converters.pipeline.source_inputs import is_quantized_source
from converters.pipeline.tensor_matching import pair_tensors, reshape_answers
from converters.pipeline.verification import (
    SELFCHECK_SAMPLES,
    Verification,
    checks_for_device,
    combine,
    combine_sizes,
    combine_verdicts,
    complete_checks,
    explain_by_rounding,
    find_ties,
    is_quantized,
    loosen,
    map_tensors,
    selfcheck_count,
    selfcheck_rows,
    selfcheck_rule,
    sequence_length,
    verify,
    with_soak,
)
from converters.proof.conditioning import beyond_rounding, describe_rounding, rounding_responses
from converters.proof.output_checks import describe_row_scores, output_checks, row_checks, with_row_scores
from converters.pytorch.hugging_face_config import TOKENIZER
from converters.registry import converter
from converters.sources.source import OpenedSource
from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, Manifest, Preprocess, TensorSpec, write
from runtimes.artifact.json_fields import JsonObject
from runtimes.artifact.labels import LABELS
from runtimes.artifact.self_check import OutputCheck
from runtimes.errors import EngineError, ProofError
from runtimes.registry import new_session
from runtimes.session import Session, fits
from runtimes.verification.selfcheck import answers
from runtimes.verification.soak import Soak, soak, soak_sequence


@dataclass(frozen=True, kw_only=True)
class CandidateVerdict:
    """A written candidate and its verification; `accuracy` only with labeled inputs.

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
        """Whether the candidate equals its source, and loses no more accuracy than allowed."""
        return self.proof.passed and (self.accuracy is None or self.accuracy.passed)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The converted model and its source, before it becomes an artifact.

    request: The conversion; its options are those that this candidate was made with.
    source: The model that was converted.
    reference: What the source answers.
    output: What the last converter wrote.
    gate: Scores the candidate, if the request has labeled inputs.
    first_score: The score before layers were kept in higher precision.
    graphs: The models that compute the outputs, with their formats: the source, intermediate ones, the result.
    split: The source with split outputs, if the candidate was made from that.
    lost: The slices that int8 lost, before the last layers were kept in float.
    """

    request: ConvertRequest
    source: OpenedSource
    reference: Reference
    output: ConversionOutput
    gate: Gate | None = None
    first_score: Score | None = None
    graphs: tuple[tuple[Path, str], ...] = ()
    split: SplitSource | None = None
    lost: str = ""

    def write(self) -> CandidateVerdict:
        """Run the model on the reference samples, verify its outputs, and write the artifact."""
        precision, reference = self.request.options.precision, self.reference
        manifest, session, run_as = self._open_with_joins()
        with session:
            inputs, outputs = tuple(session.inputs), tuple(session.outputs)
            feeds = to_model_dtypes(inputs, map_tensors(reference.inputs, inputs, reference.samples.inputs.samples))
            soaked = self._soak(session, feeds, manifest)
            given = answers(session, feeds)
            others = self._at_other_sizes(session, precision)
            accuracy = self.gate.accuracy(session, self._size()) if self.gate else None
        truth = self._expected(outputs, given)
        checks = self._checks(outputs, truth, given)
        proof, notes = self._verify(truth, given, checks, outputs)
        choices = None if proof.passed else verify_choices(self._failed(proof, truth, given), checks)
        if choices is not None:
            proof, notes = choices.decide(proof), (*notes, *choices.notes)
        proof = combine_sizes(self._as_device(proof), others)
        second = self.output.cross_check(feeds, list(given)) if self.output.cross_check else None
        if second is not None:
            proof = combine_verdicts(proof, second, precision, truth, checks)
        proof = with_soak(proof, soaked.difference)
        rows = self._rows_for_device(feeds, truth, given, checks, choices)
        checks = checks_for_device(proof, precision, checks, truth, given, rows)
        rule = selfcheck_rule(precision, truth, reference.samples.kind, checks, stateful=reference.stateful)
        manifest = replace(
            manifest,
            inputs=inputs,
            outputs=outputs,
            preprocess=self._preprocess(inputs),
            output=None if self.request.task else reference.meaning,
            task=self.request.task,
            selfcheck=loosen(rule, truth, given, rows) if proof.choices else rule,
            proof={
                **self._proof(proof, run_as, accuracy),
                **({"sizes": [reference.sizes, *others]} if others else {}),
                **({"witness": second.engine} if second else {}),
            },
        )
        self._write_further_files()
        stored = ({name: values[rows] for name, values in arrays.items()} for arrays in (feeds, truth))
        read = describe_row_scores(checks, truth)
        notes = (*notes, *read, *find_ties(truth, given), *proof.slices.faint, *(second.notes if second else ()))
        return CandidateVerdict(
            artifact=write(self.request.out, manifest, *stored),
            proof=proof,
            accuracy=accuracy,
            notes=notes,
            truth=truth,
            given=given,
        )

    def _rows_for_device(
        self,
        feeds: Arrays,
        truth: Arrays,
        given: Arrays,
        checks: tuple[OutputCheck, ...],
        choices: ChoiceVerdict | None,
    ) -> Array:
        """Return the samples for the self-check."""
        is_sequence = self.reference.stateful
        count = sequence_length(truth) if is_sequence else SELFCHECK_SAMPLES
        count = selfcheck_count(feeds, self.output.max_selfcheck_bytes, count)
        preferred = choices.equal if choices is not None and choices.proof.passed else None
        return selfcheck_rows(truth, given, checks, count=count, in_order=is_sequence, preferred=preferred)

    def _open_with_joins(self) -> tuple[Manifest, Session, str]:
        """Open the result; the manifest says how to join outputs that were split. Returns the format that runs, too."""
        manifest = self._manifest(self.request.options.precision)
        session, run_as = self._open(manifest)
        if self.split is not None:
            with session:
                manifest = replace(manifest, join=self.split.joins_of(session.outputs))
            session, run_as = self._open(manifest)
        return manifest, session, run_as

    def _verify(
        self, truth: Arrays, given: Arrays, checks: tuple[OutputCheck, ...], outputs: tuple[TensorSpec, ...]
    ) -> tuple[Verification, tuple[str, ...]]:
        """Compare the outputs; in fp32, differences that rounding alone explains do not count. Returns notes, too."""
        precision = self.request.options.precision
        proof = verify(precision, truth, given, checks)
        responses = {} if proof.passed or precision != "fp32" else self._rounding_responses(outputs)
        if not responses:
            return proof, ()
        rest = verify(precision, truth, beyond_rounding(truth, given, responses), checks)
        return explain_by_rounding(proof, rest), (describe_rounding(responses, list(responses)),)

    def _write_further_files(self) -> None:
        if self.reference.labels is not None:
            (self.request.out / LABELS).write_text("\n".join(self.reference.labels) + "\n", encoding="utf-8")
        if self.request.tokenizer is not None:
            shutil.copyfile(self.request.tokenizer, self.request.out / TOKENIZER)

    def failure(self, verdict: CandidateVerdict) -> ProofError:
        """Return the error of a failed verdict, with the first tensor that differs if it can be found."""
        request, precision = self.request, self.request.options.precision
        divergence = None
        if not verdict.proof.unsteady:
            divergence = explain_failure(self._failed(verdict.proof, verdict.truth, verdict.given))
        kept = request.kept or str(request.out)
        error = verdict.proof.error(
            precision,
            kept,
            are_made_up=self.reference.samples.are_made_up,
            own_scales=is_quantized_source(self.source),
            divergence=divergence,
        )
        if precision == "fp16" and self.output.notes:  # a constant that fp16 cannot hold changes the answers
            error = ProofError(error.message, "; ".join((*self.output.notes, error.hint)), error.details)
        undecided = disagreement_with_itself(self.source, self.reference, precision)
        if undecided:
            error = ProofError(f"{error.message}; {undecided}", error.hint, error.details)
        if verdict.accuracy is None or verdict.accuracy.passed:
            return error
        return ProofError(f"{error.message}; {verdict.accuracy.error('', '').message}", error.hint, error.details)

    def _failed(self, proof: Verification, truth: Arrays, given: Arrays) -> FailedProof:
        return FailedProof(
            reference=self.reference,
            output=self.output,
            graphs=self.graphs,
            truth=truth,
            given=given,
            precision=self.request.options.precision,
            scratch=self.request.scratch,
            worst=proof.slices.worst,
        )

    def _soak(self, session: Session, feeds: Arrays, manifest: Manifest) -> Soak:
        """Repeat inferences of the fresh session; a model with a state is opened again instead."""
        options = self.request.options
        count, is_half = options.soak, options.precision == "fp16"
        if self.reference.stateful:
            return soak_sequence(lambda: self._open(manifest)[0], feeds, count=count, is_half=is_half)
        return soak(session, feeds, count=count, is_half=is_half)

    def _at_other_sizes(self, session: Session, precision: str) -> dict[str, Verification]:
        """Verify the result in the other sizes that it keeps free."""
        found = {}
        for other in self.reference.others:
            arrays = map_tensors(self.reference.inputs, session.inputs, other.samples.inputs.samples)
            if not all(fits(arrays[spec.name].shape[1:], spec.shape) for spec in session.inputs):
                continue
            try:
                given = answers(session, to_model_dtypes(session.inputs, arrays))
            except EngineError as error:
                found[other.sizes] = Verification(
                    passed=False, metrics={}, limits={}, message=f"the result does not run: {error.message}"
                )
                continue
            renamed = map_tensors(self.reference.outputs, session.outputs, other.answers, "output")
            checks = self._checks(tuple(session.outputs), renamed, given)
            found[other.sizes] = verify(precision, renamed, given, checks)
        return found

    def _as_device(self, proof: Verification) -> Verification:
        """Also verify the model that rounds what the device rounds, if there is one."""
        if self.output.device_model is None:
            return proof
        precision = self.request.options.precision
        return combine(proof, verify_device_model(self.output, precision, self.reference, self.graphs))

    def _rounding_responses(self, outputs: tuple[TensorSpec, ...]) -> Arrays:
        """Return how far the source's own answers move by rounding, by the result's names; empty if it has a state."""
        if self.reference.stateful:
            return {}
        with reopen_source(self.source, self.reference, self.request) as session:
            found = rounding_responses(session, self.reference.samples.inputs.samples, self.reference.answers)
        pairs = pair_tensors(self.reference.outputs, outputs, "output")
        return {pair.other.name: found[pair.source.name] for pair in pairs if pair.source.name in found}

    def _size(self) -> int:
        """Return the size in bytes of the model's files, which are the only files so far."""
        return sum(path.stat().st_size for path in self.request.out.rglob("*") if path.is_file())

    def _open(self, manifest: Manifest) -> tuple[Session, str]:
        """Open the result, or its stand-in if its engine or device is not available; returns session and format."""
        proxy = self.output.proxy
        try:
            return new_session(Artifact(self.request.out, manifest)), manifest.format
        except EngineError:
            if proxy is None:
                raise
        model = proxy.model
        known = Manifest(
            name=model.stem,
            format=proxy.format,
            precision=manifest.precision,
            model=model.name,
            join=manifest.join,
            states=manifest.states,
        )
        return new_session(Artifact(model.parent, known)), proxy.format

    def _manifest(self, precision: str) -> Manifest:
        known = self.source.artifact.manifest
        options = self.request.options.to_json()
        return Manifest(
            name=known.name,
            format=self.output.format or self.request.format,
            precision=precision,
            model=self.output.model.name,
            source=self.request.origin or self.source.origin(),
            states=self.output.states,
            conversion={
                "steps": list(self.request.steps),
                "options": {key: value for key, value in options.items() if value},
                "libraries": _libraries(self.request.steps),
                "calibration_samples": len(self.reference.calibration or ()),
                **self.output.facts,
            },
        )

    def _expected(self, outputs: tuple[TensorSpec, ...], given: Arrays) -> Arrays:
        """Return the source's outputs with the result's names, axes and shapes."""
        renamed = map_tensors(self.reference.outputs, outputs, self.reference.answers, "output")
        return {name: reshape_answers(renamed[name], values) for name, values in given.items()}

    def _checks(self, outputs: tuple[TensorSpec, ...], truth: Arrays, given: Arrays) -> tuple[OutputCheck, ...]:
        """Return how each output is compared with the source's; the arrays have the result's names."""
        pairs = pair_tensors(self.reference.outputs, outputs, "output")
        checks = row_checks(output_checks(self.graphs, pairs), pairs, self.reference.inputs, self.graphs, truth, given)
        if is_quantized(self.request.options.precision):
            checks = with_row_scores(checks, pairs, self.request.row_scores, truth)
        return complete_checks(checks, truth, given, outputs)

    def _proof(self, proof: Verification, run_as: str, accuracy: Score | None) -> JsonObject:
        return {
            "run_as": run_as,
            "passed": proof.passed and (accuracy is None or accuracy.passed),
            "metrics": {name: float(f"{value:.6g}") for name, value in proof.metrics.items()},
            "limits": dict(proof.limits),
            "samples": len(self.reference.samples.inputs),
            "inputs": self.reference.samples.kind,
            **self._range(),
            **proof.inside(),
            **({"repair": {"lost": self.lost, "kept": list(self.request.options.keep)}} if self.lost else {}),
            **({"accuracy": self._trade(accuracy)} if accuracy else {}),
        }

    def _range(self) -> JsonObject:
        """Describe synthetic inputs, so that the user can gate whether they suit the model."""
        if not self.reference.samples.are_made_up:
            return {}
        return {"range": [float(f"{value:.3g}") for value in value_range(self.reference.samples.inputs)]}

    def _trade(self, accuracy: Score) -> JsonObject:
        """Return the accuracy, the layers kept in higher precision, and the accuracy before that."""
        if self.first_score is None:
            return accuracy.as_dict()
        before = {key: self.first_score.as_dict()[key] for key in ("artifact", "bytes")}
        return {**accuracy.as_dict(), "kept": list(self.request.options.keep), "before": before}

    def _preprocess(self, inputs: tuple[TensorSpec, ...]) -> Preprocess | None:
        """Return the source's preprocessing, adapted to the result's layout."""
        if self.reference.preprocess is None or pair_tensors(self.reference.inputs, inputs, "input")[0].axes is None:
            return self.reference.preprocess
        return replace(
            self.reference.preprocess, layout="NCHW" if self.reference.preprocess.layout == "NHWC" else "NHWC"
        )


def _libraries(steps: Sequence[str]) -> dict[str, str]:
    """Return the version of every library that the steps used, by import name."""
    libraries = {one.module: one.version for name in steps for one in converter(name).requires}
    return {name: version for name, version in sorted(libraries.items()) if version}
