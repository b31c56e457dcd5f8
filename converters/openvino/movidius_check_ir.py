"""Check whether a Movidius stick can run an OpenVINO IR, layer by layer, by type and operation set version.

Sources: as in `movidius_check_onnx`. The versions that the plugin lowers (NMS 1/3/4 → 5, Gather 8 → 7 → 1, GatherND
8 → 5) are from its passes, the failures from https://github.com/open-edge-platform/geti/issues/2063 (NonMaxSuppression
of opset9) and https://github.com/luxonis/blobconverter/issues/16 (Gather of opset7).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from converters.check.report import CompatibilityIssue, Report, place_node
from converters.openvino.movidius_check_onnx import MOVIDIUS

_LAYERS = """
    Abs Acos Add Asin Atan AvgPool BatchNormInference Broadcast Bucketize CTCGreedyDecoder CTCGreedyDecoderSeqLen
    Ceiling Clamp Concat Const Convert Convolution DeformableConvolution DepthToSpace DetectionOutput Divide Elu Equal
    Erf Exp ExperimentalDetectronDetectionOutput ExperimentalDetectronGenerateProposalsSingleImage
    ExperimentalDetectronPriorGridGenerator ExperimentalDetectronROIFeatureExtractor ExperimentalDetectronTopKROIs
    Floor FloorMod GRN Gather GatherElements GatherND Gelu Greater GreaterEqual GroupConvolution
    GroupConvolutionBackpropData ConvolutionBackpropData HSigmoid HSwish Interpolate LRN LSTMCell LSTMSequence Less
    LessEqual Log LogicalAnd LogicalNot LogicalOr MVN MatMul MaxPool Maximum Minimum Mish Multiply Negative
    NonMaxSuppression NonZero NormalizeL2 NotEqual OneHot PReLU PSROIPooling Pad Parameter Power PriorBox
    PriorBoxClustered Proposal ROIAlign ROIPooling Range ReLU ReduceL2 ReduceLogicalAnd ReduceMax ReduceMean ReduceMin
    ReduceSum RegionYolo ReorgYolo Reshape Result ReverseSequence Round ScatterElementsUpdate ScatterUpdate Select
    ShapeOf Sigmoid SoftMax SoftPlus Softmax SpaceToDepth Split Sqrt SquaredDifference Squeeze StridedSlice Subtract
    Swish Tanh TensorIterator Tile TopK Transpose Unsqueeze VariadicSplit
"""
_SUPPORTED = frozenset(_LAYERS.split())
_NO_WORK = frozenset(("Parameter", "Const", "Result"))
# The newest operation set that the plugin supports (that of OpenVINO 2022.1), and the exceptions by layer type.
_NEWEST_OPSET = 8
_NEWEST = {"NonMaxSuppression": 5}
_OLD_CONVERTER = "convert with OpenVINO 2021.4: edge convert MODEL.onnx --for ncs2, or its own `mo --data_type FP16`"


@dataclass(frozen=True, kw_only=True)
class IrLayer:
    """One layer.

    Attributes:
        type: Its type, such as "Convolution".
        version: Its `version` attribute, such as "opset5".
        name: Its name.
        is_static: Whether its outputs have fixed sizes.
    """

    type: str
    version: str
    name: str
    is_static: bool


_OTHER_PRECISIONS = ("fp32", "bf16", "int8", "w8", "w4")


def check_ir(layers: Iterable[IrLayer], precision: str, parameter_bytes: int) -> Report:
    """Check the layers of an IR. Constants, inputs and outputs are not reported as nodes."""
    all_layers = list(layers)
    working = [layer for layer in all_layers if _works(layer)]
    nodes = tuple(
        place_node(index=index, op=layer.type, name=layer.name, problem=_problem(layer))
        for index, layer in enumerate(working)
    )
    refusals = []
    if precision in _OTHER_PRECISIONS:
        what = f"its weights are {precision}; the stick supports only fp16"
        refusals.append(CompatibilityIssue(what, "convert in fp16"))
    if any(not layer.is_static for layer in all_layers if layer.type == "Parameter"):
        refusals.append(
            CompatibilityIssue("an input has a free dimension; the plugin supports only static shapes", _STATIC)
        )
    return Report(
        accelerator=MOVIDIUS, nodes=nodes, refusals=tuple(refusals), warnings=(), parameter_bytes=parameter_bytes
    )


_STATIC = "convert it again: edge fixes the batch at 1"


def _works(layer: IrLayer) -> bool:
    return layer.type not in _NO_WORK


def _problem(layer: IrLayer) -> CompatibilityIssue | None:
    if layer.type == "FakeQuantize":
        return CompatibilityIssue(
            "the plugin computes only in fp16, not in int8", "convert without quantization, in fp16"
        )
    if layer.type not in _SUPPORTED:
        fix = "replace it, or run it on the host with HETERO:MYRIAD,CPU"
        return CompatibilityIssue("the MYRIAD plugin does not support this layer", fix)
    number = layer.version.removeprefix("opset")
    newest = _NEWEST.get(layer.type, _NEWEST_OPSET)
    if number.isdecimal() and len(number) < 4 and int(number) > newest:
        return CompatibilityIssue(
            f"it is of {layer.version}; the plugin supports it up to opset{newest}", _OLD_CONVERTER
        )
    return None
