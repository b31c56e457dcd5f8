"""Rewrite operators that come out wrong of TensorFlow's TFLite converter, in others with the same results.

`constant - x` and `constant / x`: the pass PushTransposeThroughEwise moves a Transpose of `x` behind such an operator
and writes the constant last: `1 - transpose(x)` becomes `transpose(x - 1)`, and `2 / transpose(x)` becomes
`transpose(x / 2)` (TensorFlow 2.19 to 2.21). It does so if the constant is a scalar or has the rank of `x`. Here a
constant of one element gets the shape [1], which changes no value; one with more elements is added to `x * -1`, or
multiplied by `1 / x`. Whole numbers cannot be divided like that: their constant loses its leading axes of size 1, which
changes no value either. (If it has none, the proof refuses what becomes of it.)

The ArgMax of Keras 3: it takes -0.0 for less than 0.0, by operators on bits that TFLite lacks. Here both are equal, as
in TFLite and ONNX.

Comparisons of bytes: LiteRT takes bytes for quantized and ends the process if they have no scale (2.3.0). They are
compared as int32.

The job of the environment onnx2tf runs this file too, so it imports nothing of this project.
"""

from __future__ import annotations

from typing import Any

_DIVISIONS = ("RealDiv", "Div", "TruncateDiv")
_INVERSIONS = ("Reciprocal", "Inv")
_SUMS = ("Add", "AddV2")
_COMPARISONS = ("Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual")


def freeze(function: Any) -> Any:
    """Return the concrete function with its variables as constants, and with these operators rewritten."""
    from tensorflow.python.framework import convert_to_constants

    # As TensorFlow's converter does: it fails on some loops that are lowered ("has inputs from different frames").
    plain = convert_to_constants.convert_variables_to_constants_v2(function, lower_control_flow=False)
    definition = _Rewriter(plain.graph).definition
    return convert_to_constants._construct_concrete_function(plain, definition, set())


class _Rewriter:
    """Writes the `definition` of a graph with these operators rewritten."""

    def __init__(self, graph: Any) -> None:
        self.definition = graph.as_graph_def()
        for node in list(self.definition.node):
            self._rewrite(node, graph.get_operation_by_name(node.name))

    def _rewrite(self, node: Any, operator: Any) -> None:
        inputs = list(operator.inputs)
        if node.op == "Sub" and _is_turned(*inputs):
            self._subtract(node, *inputs)
        elif node.op in _DIVISIONS and _is_turned(*inputs):
            self._divide(node, *inputs)
        elif node.op in _INVERSIONS and (inputs[0].shape.rank or 0) > 1:  # the converter divides 1 by the input
            self._write(node, "RealDiv", [self._vector(node, 1, inputs[0].dtype), inputs[0].name])
        elif node.op in _SUMS:  # the converter subtracts from a constant what is negated
            for constant, other in (inputs, reversed(inputs)):
                if other.op.type == "Neg" and _is_turned(constant, other):
                    self._subtract(node, constant, other.op.inputs[0])
        elif node.op == "SelectV2" and _is_negative_zero(inputs[0], inputs[2]):
            node.op = "Identity"
            node.input[:] = [inputs[2].name]
        elif node.op in _COMPARISONS and inputs[0].dtype.size == 1 and inputs[0].dtype.is_integer:
            self._compare(node, inputs)

    def _subtract(self, node: Any, constant: Any, other: Any) -> None:
        if constant.shape.num_elements() == 1:
            self._write(node, "Sub", [self._vector(node, _value(constant), constant.dtype), other.name])
            return
        negated = self._new(node, "Mul", "negated", [other.name, self._vector(node, -1, constant.dtype)])
        self._write(node, "AddV2", [negated, constant.name])

    def _divide(self, node: Any, constant: Any, other: Any) -> None:
        if constant.shape.num_elements() == 1:
            self._write(node, node.op, [self._vector(node, _value(constant), constant.dtype), other.name])
        elif constant.dtype.is_floating:
            inverse = self._new(node, "RealDiv", "inverse", [self._vector(node, 1, constant.dtype), other.name])
            self._write(node, "Mul", [inverse, constant.name])
        elif constant.shape[0] == 1:
            value = _value(constant)
            while value.shape[0] == 1:
                value = value[0]
            self._write(node, node.op, [self._constant(node, value, constant.dtype), other.name])

    def _compare(self, node: Any, inputs: list[Any]) -> None:
        import tensorflow as tf

        node.input[:] = []
        for place, tensor in enumerate(inputs):
            cast = self.definition.node.add(name=f"{node.name}/cast{place}", op="Cast", input=[tensor.name])
            cast.attr["SrcT"].type = tensor.dtype.as_datatype_enum
            cast.attr["DstT"].type = node.attr["T"].type = tf.int32.as_datatype_enum
            node.input.append(f"{cast.name}:0")

    def _write(self, node: Any, op: str, inputs: list[str]) -> None:
        node.op = op
        node.input[:] = inputs

    def _new(self, node: Any, op: str, suffix: str, inputs: list[str]) -> str:
        """Add an operator on the type of `node`; returns its output."""
        new = self.definition.node.add(name=f"{node.name}/{suffix}", op=op, input=inputs)
        new.attr["T"].CopyFrom(node.attr["T"])
        return f"{new.name}:0"

    def _vector(self, node: Any, value: Any, dtype: Any) -> str:
        """Add a constant of one element; returns its output."""
        return self._constant(node, value, dtype, [1])

    def _constant(self, node: Any, value: Any, dtype: Any, shape: list[int] | None = None) -> str:
        import tensorflow as tf

        new = self.definition.node.add(name=f"{node.name}/constant", op="Const")
        new.attr["dtype"].type = dtype.as_datatype_enum
        new.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype, shape))
        return f"{new.name}:0"


def _is_turned(constant: Any, other: Any) -> bool:
    """Return whether the converter may exchange both tensors, if `other` comes from a Transpose."""
    rank = other.shape.rank
    return rank is not None and rank > 1 and _value(constant) is not None and constant.shape.rank in (0, rank)


def _is_negative_zero(condition: Any, other: Any) -> bool:
    """Return whether `condition` is x == 0 and the sign of x by its bits, for the tensor `other`."""
    if condition.op.type != "LogicalAnd":
        return False
    equal, sign = (tensor.op for tensor in condition.op.inputs)
    bits = sign.inputs[0].op if sign.type == "Less" else sign
    if (equal.type, bits.type) != ("Equal", "BitwiseAnd"):
        return False
    cast = bits.inputs[0].op
    return bool(cast.type == "Bitcast" and cast.inputs[0].name == equal.inputs[0].name == other.name)


def _value(tensor: Any) -> Any:
    """Return the value of a constant, an array; None if the tensor is none."""
    import tensorflow as tf

    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tf.get_static_value(tensor)
