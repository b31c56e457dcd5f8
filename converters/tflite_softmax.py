"""A TFLite classifier that ends at its logits: the trailing SOFTMAX is cut off, by editing the flatbuffer.

A softmax in uint8 saturates at 255/256 and hides how sure the network is; the tensor before it does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.quiet import loading
from converters.steps import check_library
from converters.tflite_packing import packed, read_network
from runtimes.errors import InputError

# What may follow the softmax: a change of dtype only.
_AFTER = ("QUANTIZE", "DEQUANTIZE")
_METADATA = b"TFLITE_METADATA"


def cut_softmax(model: Path, out: Path) -> Path:
    """Write the TFLite classifier `model` to the file `out` without its softmax; returns `out`.

    The output is the tensor that the SOFTMAX read, with its dtype and quantisation; everything before it is untouched.
    The same input gives the same bytes. InputError when the model cannot be read, or does not end with one SOFTMAX.
    """
    check_library("ai_edge_litert", "cutting off the softmax")
    with loading(model, "TFLite"):
        network = read_network(model)
        logits = _cut(network, model)
        _retarget(network, logits)
        content = packed(network)
    out.write_bytes(content)
    return out


def _cut(network: Any, model: Path) -> int:
    """Remove the operators from the softmax on; the index of the tensor that it read."""
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
    """Let the graph and its signatures end at the tensor `logits`."""
    old = int(network.subgraphs[0].outputs[0])
    network.subgraphs[0].outputs = [logits]
    for signature in network.signatureDefs or []:
        for output in signature.outputs:
            output.tensorIndex = logits if output.tensorIndex == old else output.tensorIndex
    # The metadata describe the old output, and refer to files behind the flatbuffer that are not carried over.
    network.metadata = [entry for entry in network.metadata or [] if entry.name != _METADATA]


def _unfit(model: Path, what: str) -> InputError:
    return InputError(f"{model} {what}, not with one SOFTMAX", "give a classifier that answers with probabilities")
