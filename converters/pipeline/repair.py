"""Repair a candidate that loses too much in int8: keep layers in float, or split an output.

Each repair is a new candidate, which is adopted if it passes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from converters.base import ConversionOutput
from converters.calibration.dataset import Calibration
from converters.layer_errors import SAMPLES, LayerError, describe_layers, growing_sets, short_name
from converters.pipeline.candidate import Candidate, CandidateVerdict
from converters.pipeline.execute import CompletedTask, run_conversions
from converters.pipeline.output_split import split_source
from converters.pipeline.tensor_matching import pair_tensors
from runtimes.jobs import Report

_REMEDY = "calibrate with more inputs of the real task, try --precision fp16, or allow more with --max-drop"
_ALL_INT8 = "this target needs every layer in int8: train with quantization in mind, or allow more with --max-drop"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A candidate, its verdict, and the conversions that made it."""

    candidate: Candidate
    verdict: CandidateVerdict
    done: tuple[CompletedTask, ...]

    def adopt(self, other: Attempt, note: str) -> Attempt:
        """Return `other` with its artifact copied to the place of this one; `note` is for the user."""
        request, folder = self.candidate.request, other.candidate.request.out
        _empty(request.out)
        shutil.copytree(folder, request.out, dirs_exist_ok=True)
        output = replace(other.candidate.output, model=request.out / other.candidate.output.model.relative_to(folder))
        verdict = replace(
            other.verdict,
            artifact=replace(other.verdict.artifact, path=request.out),
            notes=(*other.verdict.notes, note),
        )
        last = replace(other.done[-1], task=replace(other.done[-1].task, folder=request.out), output=output)
        candidate = replace(
            other.candidate,
            output=output,
            request=replace(other.candidate.request, out=request.out, scratch=request.scratch),
        )
        return Attempt(candidate=candidate, verdict=verdict, done=(*other.done[:-1], last))


def with_last_layers_in_float(first: Attempt, report: Report) -> Attempt:
    """Keep the last layers in float where slices are lost in int8, if that makes the proof pass.

    Slices of different scale in one output need it: after the last Concat, they share one quantization scale.
    """
    request, worst, done = first.candidate.request, first.verdict.proof.slices.worst, first.done
    if worst is None or not done or done[-1].task.calibration is None:
        return first
    last = done[-1]
    for place, keep in enumerate(last.task.step.head_layers(last.task.model, last.output.model)):
        report({"doing": "keeping the last layers in float", "done": len(done) + 1, "total": len(done) + 2})
        folder = request.scratch / f"repair-{place}"
        task = replace(last.task, folder=folder, options=replace(last.task.options, keep=keep, float_outputs=True))
        output = task.run()
        options = replace(request.options, keep=keep, float_outputs=True)
        candidate = replace(
            first.candidate, request=replace(request, options=options, out=folder), output=output, lost=worst.where
        )
        verdict = candidate.write()
        if verdict.proof.passed:
            layers = ", ".join(map(short_name, keep))
            note = f"the last layers stay in float, or int8 would lose {worst.where}: {layers}"
            again = Attempt(
                candidate=candidate, verdict=verdict, done=(*done[:-1], replace(last, task=task, output=output))
            )
            return first.adopt(again, note)
    return first


def with_split_outputs(first: Attempt, report: Report) -> Attempt:
    """Give the parts of failed outputs a scale each by splitting these outputs, if that makes the proof pass."""
    candidate, worst, done = first.candidate, first.verdict.proof.slices.worst, first.done
    request = candidate.request
    if request.options.precision != "int8" or worst is None or not done:
        return first
    failed = {one.output for one in first.verdict.proof.slices.failed}
    pairs = pair_tensors(candidate.reference.outputs, first.verdict.artifact.manifest.outputs, "output")
    names = {pair.source.name for pair in pairs if pair.other.name in failed}
    split = split_source(candidate.source, names, request.scratch / "split-source")
    if split is None:
        return first
    report({"doing": "splitting the output", "done": len(done) + 1, "total": len(done) + 2})
    again = replace(request, out=request.scratch / "split", scratch=request.scratch / "split-steps")
    again.out.mkdir()
    steps = [one.task.step for one in done]
    done_again = run_conversions(again, split.source, steps, candidate.reference, lambda _: None)
    candidate = replace(
        candidate, request=again, output=done_again[-1].output, graphs=candidate.graphs[:1], split=split
    )
    verdict = candidate.write()
    if not verdict.proof.passed:
        return first
    what = ", ".join(f"'{join.output}' into {', '.join(join.parts)}" for join in verdict.artifact.manifest.join)
    note = f"outputs are split, or int8 would lose {worst.where}: {what}; edge joins them again (manifest: join)"
    return first.adopt(Attempt(candidate=candidate, verdict=verdict, done=done_again), note)


def with_lossy_layers_in_float(first: Attempt, report: Report) -> Attempt:
    """Keep as few layers as necessary in higher precision.

    Raises ProofError if too much accuracy is lost nevertheless.
    """
    assert first.verdict.accuracy is not None
    done, request = first.done, first.candidate.request
    layers, can_keep = _worst_layers(done), _can_keep(done)
    verdict = first.verdict
    for keep, output in _retry_with_layers_kept(done[-1], layers) if can_keep else ():
        report({"doing": f"keeping {len(keep)} layers in float", "done": len(done) + 1, "total": len(done) + 2})
        candidate = replace(
            first.candidate,
            request=replace(request, options=replace(request.options, keep=keep)),
            output=output,
            first_score=first.verdict.accuracy,
        )
        verdict = candidate.write()
        if verdict.passed:
            return Attempt(candidate=candidate, verdict=verdict, done=done)
    accuracy = verdict.accuracy
    if accuracy is None or accuracy.passed or not (verdict.proof.passed or layers):
        return replace(first, verdict=verdict)  # what the proof says explains the loss
    remedy = _REMEDY if can_keep or not layers else _ALL_INT8
    raise accuracy.error(describe_layers(layers), f"{remedy}; the result is kept in {request.kept or request.out}")


def _worst_layers(done: tuple[CompletedTask, ...]) -> list[LayerError]:
    """Rank the layers of the quantizing step, worst first; empty if there is none or it does not support that."""
    for one in done:
        calibration = one.task.calibration
        if calibration is not None and one.task.step.keeps_layers:
            few = Calibration({name: values[:SAMPLES] for name, values in calibration.samples.items()})
            return list(one.task.step.layer_errors(one.task.model, one.output.model, one.task.options, few))
    return []


def _can_keep(done: tuple[CompletedTask, ...]) -> bool:
    """Return whether the last step can keep layers in higher precision; a compiler after it could not accept them."""
    return bool(done) and done[-1].task.calibration is not None and done[-1].task.step.keeps_layers


def _retry_with_layers_kept(
    last: CompletedTask, layers: list[LayerError]
) -> Iterator[tuple[tuple[str, ...], ConversionOutput]]:
    """Repeat the last step with more and more layers kept, each time into an empty folder."""
    for keep in growing_sets(layers):
        _empty(last.task.folder)
        keep = tuple(dict.fromkeys((*last.task.options.keep, *keep)))
        yield keep, replace(last.task, options=replace(last.task.options, keep=keep)).run()


def _empty(folder: Path) -> None:
    """Remove everything in a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
