"""Read ONNX models that are quantized already: with QDQ pairs, or with integer operators that become QDQ pairs.

An integer operator (QLinearConv) is the float operator between DequantizeLinear and QuantizeLinear, and is written that
way: engines fuse it again, and engines that only support QDQ read it too.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#onnx-quantization-representation-format
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.library_calls import loading

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_ON_INTEGERS = ("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
INTEGER_OPERATORS = ("QLinearConv", "QLinearMatMul")
_MICROSOFT = "com.microsoft"
# ONNX Runtime's own operators: the float operator, and the number of quantized inputs of three tensors each.
_ELEMENTWISE = {
    "QLinearAdd": ("Add", 2),
    "QLinearMul": ("Mul", 2),
    "QLinearSigmoid": ("Sigmoid", 1),
    "QLinearLeakyRelu": ("LeakyRelu", 1),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", 1),
}
REWRITTEN_OPERATORS = (
    *INTEGER_OPERATORS,
    *(f"{_MICROSOFT}.{name}" for name in (*_ELEMENTWISE, "QGemm")),
)


def is_quantized(model: Path) -> bool:
    """Return whether an `.onnx` file is quantized: it has QuantizeLinear, DequantizeLinear or integer operators."""
    with loading(model, "ONNX"):
        import onnx

        from converters.onnx.cleanup import all_nodes

        proto = onnx.load(model, load_external_data=False)
    known = (*_QDQ, *_ON_INTEGERS)
    return any(node.op_type in known or node.op_type.startswith("QLinear") for node in all_nodes(proto.graph))


def integer_operators_as_qdq(proto: Any) -> Any:
    """Return a copy of the `onnx.ModelProto` whose integer operators are QDQ pairs around float ones."""
    import onnx

    from converters.onnx.cleanup import all_nodes, replace_all

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    writer = _Writer(copy.graph)
    replace_all(copy.graph.node, [made for node in copy.graph.node for made in writer.write(node)])
    used = {node.domain for node in all_nodes(copy.graph)}
    used |= {"", "ai.onnx"}
    replace_all(copy.opset_import, [entry for entry in copy.opset_import if entry.domain in used])
    return copy


class _Writer:
    """Writes the nodes of one graph."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}

    def write(self, node: Any) -> list[Any]:
        if node.op_type == "QLinearConv" and not node.domain:
            return self._conv(node)
        if node.op_type == "QLinearMatMul" and not node.domain:
            return self._between(node, "MatMul", [node.input[0:3], node.input[3:6]], node.input[6:8])
        if node.domain == _MICROSOFT and node.op_type in _ELEMENTWISE:
            op, count = _ELEMENTWISE[node.op_type]
            triples = [node.input[3 * place : 3 * place + 3] for place in range(count)]
            kept = [one for one in node.attribute if one.name == "alpha"]
            return self._between(node, op, triples, node.input[3 * count : 3 * count + 2], kept)
        if node.domain == _MICROSOFT and node.op_type == "QGemm":
            return self._gemm(node)
        return [node]

    def _conv(self, node: Any) -> list[Any]:
        x, w, y = node.input[0:3], node.input[3:6], node.input[6:8]
        bias = self._bias(node, node.input[8] if len(node.input) > 8 else "", x[1], w[1])
        return self._between(node, "Conv", [x, w], y, node.attribute, bias, weight_axis=0)

    def _gemm(self, node: Any) -> list[Any]:
        a, b, y = node.input[0:3], node.input[3:6], [*node.input[7:9]]
        bias = self._bias(node, node.input[6] if len(node.input) > 6 else "", a[1], b[1])
        transposed = any(one.name == "transB" and one.i for one in node.attribute)
        return self._between(node, "Gemm", [a, b], y, node.attribute, bias, weight_axis=0 if transposed else 1)

    def _bias(self, node: Any, name: str, first: str, second: str) -> str:
        """Write an int32 bias as float: its scale is the product of both scales. Returns its name; "" without one."""
        import numpy as np
        from onnx import numpy_helper

        if not name or name not in self._constants:
            return ""
        scale = self._values(first) * self._values(second)
        values = self._values(name).astype(np.float32) * scale.astype(np.float32)
        result = f"{node.output[0]}/bias"
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), result))
        return result

    def _values(self, name: str) -> Any:
        from onnx import numpy_helper

        return numpy_helper.to_array(self._constants[name])

    def _between(
        self,
        node: Any,
        op: str,
        inputs: Sequence[Sequence[str]],
        output: Sequence[str],
        attributes: Sequence[Any] = (),
        bias: str = "",
        weight_axis: int = 1,
    ) -> list[Any]:
        """Write `op` between DequantizeLinear for each (tensor, scale, zero point) and QuantizeLinear."""
        from onnx import helper

        result = node.output[0]
        nodes, names = [], []
        for place, triple in enumerate(inputs):
            name = f"{result}/input{place}"
            per_channel = triple[1] in self._constants and self._values(triple[1]).size > 1
            axis = {"axis": weight_axis} if per_channel else {}
            nodes.append(helper.make_node("DequantizeLinear", [one for one in triple if one], [name], **axis))
            names.append(name)
        real = f"{result}/real" if len(output) > 0 and output[0] else result
        made = helper.make_node(op, [*names, *([bias] if bias else [])], [real], name=node.name)
        made.attribute.extend(attributes)
        nodes.append(made)
        if real != result:
            nodes.append(helper.make_node("QuantizeLinear", [real, *(one for one in output if one)], [result]))
        return nodes
