"""TFLite → ONNX through tf2onnx: fp32, and quantized files as QDQ with their own scales."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import ConversionOutput, Converter, Requirement
from converters.library_calls import converting
from converters.onnx.opset import check_opset, choose_opset
from converters.options import ConvertOptions
from runtimes.errors import EngineError

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from converters.tflite.reader import Graph
    from runtimes.artifact import Quantization

DEFAULT_OPSET = 17
_OLDEST, _NEWEST = 11, 18  # tf2onnx 1.17 cannot write newer opsets
_POST_PROCESS = "TFLite_Detection_PostProcess"
_INSTEAD = "what works: --to openvino reads TFLite itself; or convert from the model that the file was made from"


class TfliteToOnnx(Converter):
    """Inputs and outputs keep the names and the layout of the source. Those of a quantized file become float32.

    What the source keeps in variables becomes inputs and outputs.

    ONNX has no scales at the ends of a graph: only QDQ pairs say what an integer means. TensorRT takes no bytes either.
    """

    source = "tflite"
    target = "onnx"
    precisions = ("fp32",)
    keeps_quantized = ("int8", "w8")
    requires = (Requirement("tensorflow"), Requirement("tf2onnx", "table"), Requirement("onnx", "table"))

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, _calibration: Calibration | None
    ) -> ConversionOutput:
        """Write `<model name>.onnx`; see `converters.base.Converter`."""
        if options.precision not in self.keeps_quantized:
            self.check_precision(options.precision)
        self.check_libraries()
        from converters.tflite.reader import read_tflite
        from converters.tflite.states import with_explicit_states

        model, states = with_explicit_states(model, options)
        graphs = read_tflite(model).graphs
        _check_dtypes(graphs[0], model)
        ends = [graphs[0].tensors[place].spec for place in (*graphs[0].inputs, *graphs[0].outputs)]
        opset = choose_opset(options.opset, DEFAULT_OPSET, _OLDEST, _NEWEST, "tf2onnx")
        with converting(model, "tf2onnx"):
            import tf2onnx

            from converters.onnx.cleanup import tidy

            proto, _ = tf2onnx.convert.from_tflite(str(model), opset=opset)
            _check_operators(proto, {operator.name for graph in graphs for operator in graph.operators}, model)
            _make_ends_float(proto.graph, {spec.name: spec.quantization for spec in ends if spec.quantization})
            _separate_constants(proto.graph)
            _keep_post_process(proto, graphs[0])
            tidy(proto)
        check_opset(proto, opset, "tf2onnx")
        path = out / f"{model.stem}.onnx"
        path.write_bytes(proto.SerializeToString(deterministic=True))
        return ConversionOutput(model=path, states=states)


def _check_dtypes(graph: Graph, model: Path) -> None:
    """Raise EngineError for activations in int16: QDQ pairs take them from opset 21 on, which tf2onnx cannot write."""
    wide = [one.spec.name for one in graph.tensors if one.spec.quantization is not None and one.spec.dtype == "int16"]
    if wide:
        what = f"{model} computes in int16 ('{wide[0]}'), of which tf2onnx makes no valid ONNX"
        raise EngineError(what, _INSTEAD)


def _make_ends_float(graph: Any, quantizations: Mapping[str, Quantization]) -> None:
    """Move the scales of integer inputs and outputs into the graph: QuantizeLinear after one, DequantizeLinear before.

    quantizations: Those of the source's inputs and outputs, by name.
    """
    from onnx import TensorProto

    from converters.onnx.cleanup import all_nodes

    for operator, ends in (("QuantizeLinear", graph.input), ("DequantizeLinear", graph.output)):
        for end in ends:
            kind = end.type.tensor_type
            if end.name not in quantizations or kind.elem_type not in (TensorProto.UINT8, TensorProto.INT8):
                continue
            integers = f"{end.name}/integers"
            for node in all_nodes(graph):
                node.input[:] = [integers if name == end.name else name for name in node.input]
                node.output[:] = [integers if name == end.name else name for name in node.output]
            names = (end.name, integers) if operator == "QuantizeLinear" else (integers, end.name)
            _add_quantization(graph, operator, names, quantizations[end.name], kind.elem_type)
            kind.elem_type = TensorProto.FLOAT


def _add_quantization(graph: Any, operator: str, names: tuple[str, str], scales: Quantization, kind: int) -> None:
    """Add a node that quantizes or dequantizes the tensor names[0] to names[1]; `tidy` puts it in its place."""
    from onnx import TensorProto, helper

    scale, zero_point = (f"{names[0]}/{part}" for part in ("scale", "zero_point"))
    graph.initializer.append(helper.make_tensor(scale, TensorProto.FLOAT, (), scales.scales))
    graph.initializer.append(helper.make_tensor(zero_point, kind, (), scales.zero_points))
    graph.node.append(
        helper.make_node(operator, [names[0], scale, zero_point], [names[1]], name=f"{names[1]}/{operator}")
    )


def _separate_constants(graph: Any) -> None:
    """Give each node that dequantizes a constant its own constant and zero point; tf2onnx shares them.

    ONNX Runtime cannot open weights that share one if it rewrites them to uint8 (`session.x64quantprecision`).
    """
    from onnx import TensorProto

    constants = {tensor.name: tensor for tensor in graph.initializer}
    used: set[str] = set()
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants and len(node.input) == 3:
            for place, part in ((0, "values"), (2, "zero_point")):
                if place == 2 or node.input[place] in used:
                    own = TensorProto.FromString(constants[node.input[place]].SerializeToString())
                    own.name = node.input[place] = f"{node.output[0]}/{part}"
                    graph.initializer.append(own)
                used.add(node.input[place])


def _keep_post_process(proto: Any, graph: Graph) -> None:
    """Let the operator at the end of a detector compute and mean what it does in the source.

    Its outputs are named in the metadata, by which `runtimes.decoders.ssd` knows them.
    """
    from flatbuffers import flexbuffers

    from converters.onnx.fast_nms import suppress_across_classes

    for operator in graph.operators:
        if operator.name == _POST_PROCESS:
            names = [graph.tensors[place].spec.name for place in operator.outputs]
            proto.metadata_props.add(key=_POST_PROCESS, value="\n".join(names))
            if not flexbuffers.Loads(bytearray(operator.options.view)).get("use_regular_nms", False):
                suppress_across_classes(proto)


def _check_operators(proto: Any, known: set[str], model: Path) -> None:
    """Raise EngineError, naming the operator, for one that tf2onnx left as it was in the TFLite file."""
    left = next((node for node in proto.graph.node if node.op_type.removeprefix("TFL_") in known), None)
    if left is not None:
        kind = left.op_type.removeprefix("TFL_")
        raise EngineError(f"{model}: tf2onnx has no ONNX operator for {kind} (node '{left.name}')", _INSTEAD)
