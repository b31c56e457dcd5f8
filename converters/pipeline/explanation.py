"""Explain a failed proof: by the first tensor that differs from the source's, or by inputs that decide nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.base import ConversionOutput
from converters.calibration.dataset import to_model_dtypes
from converters.pipeline.execute import read_inputs
from converters.pipeline.reference import Reference
from converters.pipeline.verification import map_tensors, verify
from converters.proof.divergence import Divergence, LostSlice
from converters.proof.explain import ModelWithInput, explain
from converters.sources.source import OpenedSource
from converters.tflite.interpreter import other_kernels
from runtimes.arrays import Arrays
from runtimes.artifact import Artifact, Manifest
from runtimes.errors import first_line
from runtimes.registry import open_session
from runtimes.verification.selfcheck import answers
from runtimes.verification.slices import SliceDefect

_log = logging.getLogger(__name__)
_SOURCES = ("onnx", "tflite")


@dataclass(frozen=True, kw_only=True)
class FailedProof:
    """The facts of a failed proof.

    graphs: The source and the models made from it, with their formats, the result last.
    worst: The worst slice of an output, if slices failed.
    truth, given: The answers of the source and of the result, by the result's names.
    """

    reference: Reference
    output: ConversionOutput
    graphs: Sequence[tuple[Path, str]]
    truth: Arrays
    given: Arrays
    precision: str
    scratch: Path
    worst: SliceDefect | None


def explain_failure(failed: FailedProof) -> Divergence | None:
    """Return the first tensor that differs between the first graph that can be read and the result; None if unknown."""
    try:
        return _explain(failed)
    except Exception as error:  # any failure to explain leaves the verdict as it is
        _log.debug("the failed proof is not explained: %s", first_line(error))
        return None


def comparable_graphs(failed: FailedProof) -> tuple[tuple[Path, str], tuple[Path, str]] | None:
    """Return the first graph that can be read, and the one that computes the result, with formats; None if unknown."""
    sources = [one for one in failed.graphs[:-1] if one[1] in _SOURCES]
    if not sources:
        return None
    proxy = failed.output.proxy
    return sources[0], failed.graphs[-1] if proxy is None else (proxy.model, proxy.format)


def _explain(failed: FailedProof) -> Divergence | None:
    graphs = comparable_graphs(failed)
    if graphs is None:
        return None
    source, *results = graphs
    if failed.output.device_model is not None:
        results.append((failed.output.device_model.model, failed.output.device_model.format))
    sample = _worst_sample(failed.truth, failed.given)
    for result in results:
        models = [_with_feeds(failed.reference, *one, sample) for one in (source, result)]
        found = explain(models[0], models[1], failed.precision, failed.scratch, _lost(failed, source))
        if found is not None:
            return found
    return None


def _lost(failed: FailedProof, source: tuple[Path, str]) -> LostSlice | None:
    """Return the worst slice with the name that its output has in the graph it is compared with."""
    worst = failed.worst
    if worst is None or worst.axis < 0:
        return None
    with open_session(
        Artifact(
            source[0].parent, Manifest(name=source[0].stem, format=source[1], precision="fp32", model=source[0].name)
        )
    ) as one:
        names = [spec.name for spec in one.outputs]
    place = list(failed.given).index(worst.output)
    name = worst.output if worst.output in names else names[place]
    return LostSlice(output=name, axis=worst.axis, first=worst.first, last=worst.last, where=worst.place.lstrip(", "))


def _with_feeds(reference: Reference, path: Path, model_format: str, sample: int) -> ModelWithInput:
    specs = read_inputs(path, model_format)
    arrays = to_model_dtypes(specs, map_tensors(reference.inputs, specs, reference.samples.inputs.samples))
    return ModelWithInput(
        path=path, format=model_format, feeds={name: values[sample] for name, values in arrays.items()}
    )


def disagreement_with_itself(source: OpenedSource, reference: Reference, precision: str) -> str:
    """Return how a TFLite source fails the proof with LiteRT's other kernels, as a sentence; "" if it passes.

    Synthetic pictures show nothing to a model whose ArgMax or TopK then chooses among nearly equal values.
    """
    if source.format != "tflite" or reference.stateful:
        return ""
    try:
        with other_kernels(source.model) as session:
            found = answers(session, to_model_dtypes(session.inputs, reference.samples.inputs.samples))
        verdict = verify(precision, reference.answers, found)
    except Exception as error:  # any failure to explain leaves the verdict as it is
        _log.debug("the other kernels do not run the source: %s", first_line(error))
        return ""
    if verdict.passed:
        return ""
    return (
        "the source does not agree with itself on these inputs: with LiteRT's reference kernels instead of XNNPACK, "
        f"{verdict.message.split('; ')[0]}, as where an ArgMax or TopK chooses among nearly equal values"
    )


def _worst_sample(truth: Arrays, given: Arrays) -> int:
    """Return the sample whose outputs differ most; the first if they cannot be compared."""
    apart = np.zeros(len(next(iter(truth.values()))))
    for name, expected in truth.items():
        values = given[name]
        if values.shape == expected.shape and np.isfinite(values).all() and np.isfinite(expected).all():
            rows = np.square(values.astype(np.float64) - expected).reshape(len(values), -1).mean(axis=1)
            apart += rows / max(1e-30, float(np.square(expected.astype(np.float64)).mean()))
    return int(np.argmax(apart))
