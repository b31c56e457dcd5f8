"""A TFLite classifier's artifact without its softmax, so that it answers with (quantised) logits.

The published MobileNetV2 table mixes both heads of one network: 0.9961 is its uint8 softmax, 16.2184 a dequantised
logit. The cut model is proven by the softmax of its answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

from converters.tflite_softmax import cut_softmax
from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, SelfCheck, write
from runtimes.errors import InputError, ProofError
from runtimes.manifest import TensorSpec
from runtimes.metrics import compare
from runtimes.registry import for_format
from runtimes.selfcheck import answers
from runtimes.session import RunOptions
from runtimes.tensors import softmax


def write_logit_head(source: Artifact, out: Path) -> dict[str, Any]:
    """Write the artifact of `source` without its last softmax into the existing folder `out`; returns the proof.

    InputError when `source` is no TFLite classifier with probabilities, ProofError when the softmax of the cut
    model's answers is not what `source` answers, within two steps of its output's quantisation.
    """
    known = source.manifest
    if known.format != "tflite" or known.output is None or known.output.kind != "probability":
        raise InputError(
            f"{source.model} is no TFLite classifier with probabilities", "give one that ends in a softmax"
        )
    model = cut_softmax(source.model, out / f"{source.model.stem}_logits.tflite")
    if known.output.labels:
        copyfile(source.path / known.output.labels, out / known.output.labels)
    cut = replace(known, name=f"{known.name}_logits", model=model.name, files={}, selfcheck=None)
    inputs, _ = source.selfcheck()
    expected, _ = _answers(source, inputs)
    given, outputs = _answers(Artifact(out, cut), inputs)
    proof = _proof(expected, given, known.outputs[0])
    kind = known.selfcheck.inputs if known.selfcheck else "synthetic"
    manifest = replace(
        cut,
        outputs=outputs,
        output=replace(known.output, kind="logit"),
        selfcheck=SelfCheck("max_abs", 2 * _step(outputs[0]), kind),
        proof=proof,
        conversion={"steps": ["logit_head"], "before": known.conversion},
    )
    # The source has no logits to store: the cut model's own stand in for them, now that their softmax is proven.
    write(out, manifest, inputs, given)
    return proof


def _answers(artifact: Artifact, inputs: Arrays) -> tuple[Arrays, tuple[TensorSpec, ...]]:
    with closing(for_format("tflite").open(artifact, RunOptions())) as session:
        return answers(session, inputs), tuple(session.outputs)


def _proof(expected: Mapping[str, Array], given: Mapping[str, Array], output: TensorSpec) -> dict[str, Any]:
    (theirs,), (mine,) = expected.values(), given.values()
    metrics = compare(theirs, softmax(mine).reshape(theirs.shape))
    limit = 2 * _step(output)
    if metrics["max_abs"] > limit:
        what = f"the softmax of the cut model's logits is {metrics['max_abs']:.2g} off the source's probabilities"
        raise ProofError(f"{what} (limit {limit:.2g})", "the softmax may have a beta other than 1: leave it on")
    return {"passed": True, "metrics": metrics, "limits": {"max_abs": limit}, "samples": len(theirs)}


def _step(spec: TensorSpec) -> float:
    """One step of a quantised tensor, 1e-5 for a float one."""
    return max(spec.quantization.scales) if spec.quantization else 1e-5
