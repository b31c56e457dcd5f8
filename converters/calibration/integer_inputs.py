"""Which whole numbers an ONNX model calculates with, so that made-up ones can be of both signs and any size.

Zeros and ones, which suit indices and lengths, hide what engines do differently: the quotient of a negative number, a
shift by more than the width of the type, lengths that a window is shorter than.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.library_calls import loading
from runtimes.artifact import TensorSpec

Bounds = tuple[int, int]

_MAX = 100
_MAX_EXPONENT = 3
_SHIFTS_DEFINED = 28  # the first opset that says what a shift by the width of the type or more yields
_KV_LENGTHS = 6  # the input of Attention that says how many keys count
_OPERATORS = """
    Abs Add And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Clip Constant Div Equal Greater GreaterOrEqual
    Identity Less LessOrEqual Max Mean Min Mod Mul Neg Not Or Pow Relu Sign Sub Sum Where Xor
"""
_ELEMENTWISE = frozenset(_OPERATORS.split())


def calculate_bounds(model: Path, inputs: Sequence[TensorSpec]) -> dict[str, Bounds]:
    """Return the least and the greatest value of each whole input that is only calculated with, element by element."""
    with loading(model, "ONNX"):
        import onnx

        proto = onnx.load(model, load_external_data=False)
    nodes, sizes = list(proto.graph.node), {spec.name: spec.shape for spec in inputs}
    opset = max((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), default=1)
    found = {}
    for spec in inputs:
        dtype = np.dtype(spec.dtype)
        if dtype.kind not in "iu" or dtype.itemsize == 1 or spec.quantization is not None:
            continue
        users = [node for node in nodes if spec.name in node.input]
        lengths = [_key_length(node, spec.name, sizes) for node in users]
        if users and all(lengths):
            found[spec.name] = (1, min(lengths))
        elif users and _is_elementwise(spec.name, nodes):
            found[spec.name] = _bounds(spec.name, dtype, users, opset)
    return found


def _key_length(node: Any, name: str, sizes: dict[str, tuple[int | str, ...]]) -> int:
    """Return the number of keys of an Attention whose lengths `name` holds; 0 if it holds something else."""
    if node.op_type != "Attention" or list(node.input).index(name) != _KV_LENGTHS:
        return 0
    keys = sizes.get(node.input[1], ())
    size = keys[-2] if len(keys) > 1 else 0
    return size if isinstance(size, int) else 0


def _is_elementwise(name: str, nodes: Sequence[Any]) -> bool:
    """Return whether everything that depends on the tensor is computed element by element."""
    reached = {name}
    for node in nodes:  # in topological order
        if reached.intersection(node.input):
            if node.op_type not in _ELEMENTWISE:
                return False
            reached.update(node.output)
    return not any(attribute.HasField("g") for node in nodes for attribute in node.attribute)


def _bounds(name: str, dtype: np.dtype[Any], users: Sequence[Any], opset: int) -> Bounds:
    second = {node.op_type for node in users if len(node.input) > 1 and node.input[1] == name}
    if "BitShift" in second:
        bits = 8 * dtype.itemsize
        return 0, bits + 1 if opset >= _SHIFTS_DEFINED else bits - 1
    if second & {"Div", "Mod"}:
        return 1, _MAX
    if any(node.op_type == "Pow" for node in users):
        return 0, _MAX_EXPONENT
    return (-_MAX if dtype.kind == "i" else 0), _MAX
