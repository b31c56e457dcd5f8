"""Remove the softmax from a TFLite classifier's artifact, so that it outputs (quantized) logits.

The published MobileNetV2 table mixes both heads of one network: 0.9961 is its uint8 softmax, 16.2184 a dequantized
logit. The proof compares the softmax of the new model's logits with the source's probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

from converters.base import Requirement
from converters.library_calls import loading
from converters.tflite.writer import read_network, serialize
from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, SelfCheck, write
from runtimes.artifact.json_fields import JsonObject
from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import InputError, ProofError
from runtimes.registry import for_format
from runtimes.session import RunOptions
from runtimes.tensors import softmax
from runtimes.verification.metrics import compare
from runtimes.verification.selfcheck import answers


def write_logit_head(source: Artifact, out: Path) -> JsonObject:
    """Write `source` without its final softmax as an artifact to the existing folder `out`; returns the proof.

    Raises InputError if `source` is not a TFLite classifier with probabilities, and ProofError if the softmax of the
    cut model's outputs differs from the source's by more than two steps of its output's quantization.
    """
    known = source.manifest
    if known.format != "tflite" or known.output is None or known.output.kind != "probability":
        raise InputError(
            f"{source.model} is not a TFLite classifier with probabilities", "choose one that ends in a softmax"
        )
    model = cut_softmax(source.model, out / f"{source.model.stem}_logits.tflite")
    if known.output.labels:
        copyfile(source.path / known.output.labels, out / known.output.labels)
    cut = replace(known, name=f"{known.name}_logits", model=model.name, files={}, selfcheck=None)
    inputs, _ = source.selfcheck()
    expected, _ = _answers(source, inputs)
    logits, outputs = _answers(Artifact(out, cut), inputs)
    proof = _proof(expected, logits, known.outputs[0])
    kind = known.selfcheck.inputs if known.selfcheck else "synthetic"
    manifest = replace(
        cut,
        outputs=outputs,
        output=replace(known.output, kind="logit"),
        selfcheck=SelfCheck("max_abs", 2 * _step(outputs[0]), kind),
        proof=proof,
        conversion={"steps": ["logit_head"], "before": known.conversion},
    )
    # The source has no logits, so the self-check stores the new model's own, whose softmax is proven.
    write(out, manifest, inputs, logits)
    return proof


def _answers(artifact: Artifact, inputs: Arrays) -> tuple[Arrays, tuple[TensorSpec, ...]]:
    with for_format("tflite").open(artifact, RunOptions()) as session:
        return answers(session, inputs), tuple(session.outputs)


def _proof(expected: Mapping[str, Array], outputs: Mapping[str, Array], output: TensorSpec) -> JsonObject:
    (probabilities,), (logits,) = expected.values(), outputs.values()
    metrics = compare(probabilities, softmax(logits).reshape(probabilities.shape))
    limit = 2 * _step(output)
    if metrics["max_abs"] > limit:
        what = f"the softmax of the new model's logits differs from the source by {metrics['max_abs']:.2g}"
        raise ProofError(f"{what} (limit {limit:.2g})", "the softmax may have a beta other than 1: do not remove it")
    return {"passed": True, "metrics": metrics, "limits": {"max_abs": limit}, "samples": len(probabilities)}


def _step(spec: TensorSpec) -> float:
    """Return the step of a quantized tensor; 1e-5 for a float tensor."""
    return max(spec.quantization.scales) if spec.quantization else 1e-5


# What may follow the softmax: a change of dtype only.
_AFTER = ("QUANTIZE", "DEQUANTIZE")
_METADATA = b"TFLITE_METADATA"


def cut_softmax(model: Path, out: Path) -> Path:
    """Write the TFLite classifier `model` to the file `out` without its softmax; returns `out`.

    The output is the input tensor of the SOFTMAX, with its dtype and quantization; everything before it is unchanged.
    The result is deterministic. Raises InputError if the model cannot be read, or does not end with one SOFTMAX.
    """
    Requirement("ai_edge_litert", "litert").check("cutting off the softmax")
    with loading(model, "TFLite"):
        network = read_network(model)
        logits = _cut(network, model)
        _retarget(network, logits)
        content = serialize(network)
    out.write_bytes(content)
    return out


def _cut(network: Any, model: Path) -> int:
    """Remove the softmax and the operators after it; return the index of its input tensor."""
    graph = network.subgraphs[0]
    if len(network.subgraphs) != 1 or len(graph.outputs) != 1:
        raise _unfit(model, "has more than one graph or output")
    wanted, cut = int(graph.outputs[0]), []
    for operator in reversed(graph.operators):
        if wanted not in operator.outputs:
            continue
        cut.append(operator)
        wanted = int(operator.inputs[0])
        kind = _kind(network, operator)
        if kind == "SOFTMAX":
            graph.operators = [kept for kept in graph.operators if kept not in cut]
            return wanted
        if kind not in _AFTER:
            raise _unfit(model, f"ends with {kind}")
    raise _unfit(model, "is empty")


def _kind(network: Any, operator: Any) -> str:
    from ai_edge_litert import schema_py_generated as schema

    code = network.operatorCodes[operator.opcodeIndex]
    # Codes over 127 do not fit the old field, which then holds 127; old files have only that one.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    names = (name for name, value in vars(schema.BuiltinOperator).items() if value == number)
    return next(names, f"operator {number}")


def _retarget(network: Any, logits: int) -> None:
    """Make the tensor `logits` the output of the graph and its signatures."""
    old = int(network.subgraphs[0].outputs[0])
    network.subgraphs[0].outputs = [logits]
    for signature in network.signatureDefs or []:
        for output in signature.outputs:
            output.tensorIndex = logits if output.tensorIndex == old else output.tensorIndex
    # The metadata describe the old output, and refer to files behind the flatbuffer that are not copied.
    network.metadata = [entry for entry in network.metadata or [] if entry.name != _METADATA]


def _unfit(model: Path, what: str) -> InputError:
    return InputError(
        f"the softmax of {model} cannot be removed: the model {what}",
        "choose a classifier with one output that ends with a SOFTMAX",
    )
