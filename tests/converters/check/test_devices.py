"""Which nodes TensorRT on each board and a Movidius stick support, on models built here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.check.report import ACCELERATOR, HOST, CompatibilityIssue, Report
from converters.openvino.movidius_check_ir import IrLayer, check_ir
from converters.openvino.movidius_check_onnx import check_movidius
from converters.tensorrt.compatibility import TensorrtTarget, check_tensorrt
from edge.compatibility.tensor_model import check_plain

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT, DOUBLE, INT64 = 1, 11, 7

NANO = TensorrtTarget(
    release=(8, 2), max_opset=13, refused={"int8": CompatibilityIssue("its GPU has no int8", "what works: fp16")}
)
XAVIER = TensorrtTarget(release=(8, 5), max_opset=17)
ORIN = TensorrtTarget(release=(10, 3), max_opset=20)


def constant(name: str, values: Any) -> Any:
    return numpy_helper.from_array(np.asarray(values), name)


def write(
    tmp_path: Path,
    *nodes: Any,
    constants: tuple[Any, ...] = (),
    opset: int = 13,
    shape: Any = (1, 4, 8, 8),
    kind: int = FLOAT,
) -> Path:
    start = helper.make_tensor_value_info("x", kind, shape)
    end = helper.make_tensor_value_info(nodes[-1].output[0], kind, None)
    graph = helper.make_graph(list(nodes), "g", [start], [end], list(constants))
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]).SerializeToString())
    return path


def node(op: str, *inputs: str, outputs: tuple[str, ...] = ("y",), **attributes: Any) -> Any:
    return helper.make_node(op, list(inputs) or ["x"], list(outputs), **attributes)


def only(report: Report) -> Any:
    assert len(report.nodes) == 1
    return report.nodes[0]


# --- TensorRT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "since"),
    [
        ("Conv", (8, 2)),
        ("HardSigmoid", (8, 2)),
        ("Xor", (8, 4)),
        ("GridSample", (8, 5)),
        ("OneHot", (8, 5)),
        ("NonZero", (8, 5)),
        ("Trilu", (8, 5)),
        ("IsInf", (8, 6)),
        ("Hardmax", (10, 1)),
        ("DeformConv", (10, 1)),
        ("QLinearConv", None),
        ("ConvInteger", None),
        ("DynamicQuantizeLinear", None),
        ("StringNormalizer", None),
    ],
)
def test_operators_come_with_releases(tmp_path: Path, op: str, since: tuple[int, int] | None) -> None:
    path = write(tmp_path, node(op, "x"))
    for target in (NANO, XAVIER, ORIN):
        report = check_tensorrt(path, target)
        taken = since is not None and since <= target.release
        assert (only(report).placement == ACCELERATOR) == taken, target.name
        assert (report.refusals == ()) == report.most_runs == taken


def test_a_missing_operator_says_where_it_is_and_what_to_write_instead(tmp_path: Path) -> None:
    first, second = node("Mod", outputs=("h",)), node("Relu", "h")
    report = check_tensorrt(write(tmp_path, first, second), NANO)
    assert [one.placement for one in report.nodes] == [HOST, ACCELERATOR]
    assert "TensorRT 8.5 does" in report.nodes[0].reason
    assert "Floor" in report.nodes[0].fix
    assert "Mod" in report.refusals[0].reason


@pytest.mark.parametrize("op", ["HardSwish", "LayerNormalization", "Gelu", "Swish"])
def test_what_edge_convert_writes_in_other_operators_passes_until_it_has(tmp_path: Path, op: str) -> None:
    path = write(tmp_path, node(op, "x"))
    report = check_tensorrt(path, NANO)
    assert only(report).placement == ACCELERATOR
    assert "edge convert writes it as" in only(report).reason
    assert any(op in warning for warning in report.warnings)
    assert only(check_tensorrt(path, replace(NANO, rewrites=False))).placement == HOST


def test_integer_operators_point_to_qdq(tmp_path: Path) -> None:
    assert "QDQ" in only(check_tensorrt(write(tmp_path, node("ConvInteger", "x", "w")), ORIN)).fix


def test_operators_of_other_domains_are_not_known(tmp_path: Path) -> None:
    path = write(tmp_path, node("FusedConv", "x", domain="com.microsoft"))
    assert "com.microsoft" in only(check_tensorrt(path, ORIN)).reason


QUANTIZE = [
    ("int8", 0, ""),
    ("int8", 3, "zero point is not 0"),
    ("uint8", 0, "uint8"),
]


@pytest.mark.parametrize(("dtype", "zero", "words"), QUANTIZE)
def test_quantization_is_symmetric_and_signed(tmp_path: Path, dtype: str, zero: int, words: str) -> None:
    scale, point = constant("s", np.float32(0.1)), constant("z", np.array(zero, dtype))
    path = write(tmp_path, node("QuantizeLinear", "x", "s", "z"), constants=(scale, point))
    found = only(check_tensorrt(path, XAVIER))
    assert (found.placement == ACCELERATOR) == (words == "")
    assert words in found.reason
    assert "no int8" in only(check_tensorrt(path, NANO)).reason


def test_weights_have_to_be_constants_before_8_5(tmp_path: Path) -> None:
    computed = write(tmp_path, node("Conv", "x", "x"))
    assert "weights to be constant" in only(check_tensorrt(computed, NANO)).reason
    assert only(check_tensorrt(computed, XAVIER)).placement == ACCELERATOR
    fixed = write(tmp_path, node("Conv", "x", "w"), constants=(constant("w", np.zeros((4, 4, 1, 1), np.float32)),))
    assert only(check_tensorrt(fixed, NANO)).placement == ACCELERATOR


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (node("Resize", "x", "", "s", mode="linear"), ""),
        (node("Resize", "x", "", "s", mode="cubic"), "cubic"),
        (node("MaxPool", "x", kernel_shape=[2, 2]), ""),
        (node("MaxPool", "x", outputs=("y", "i"), kernel_shape=[2, 2]), "indices"),
    ],
)
def test_modes_and_outputs(tmp_path: Path, made: Any, words: str) -> None:
    found = only(check_tensorrt(write(tmp_path, made, constants=(constant("s", np.ones(4, np.float32)),)), ORIN))
    assert (found.placement == ACCELERATOR) == (words == "")
    assert words in found.reason


def test_what_may_go_wrong_is_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path, node("NonMaxSuppression", "x", "x"), opset=17, shape=("batch", 4), kind=INT64)
    report = check_tensorrt(path, NANO)
    text = "\n".join(report.warnings)
    assert "export with opset 13" in text
    assert "INT64" in text
    assert "free dimension" in text
    assert "experimental" in text
    assert check_tensorrt(write(tmp_path, node("Relu"), opset=20), ORIN).warnings == ()
    doubles = check_tensorrt(write(tmp_path, node("Relu"), kind=DOUBLE), ORIN)
    assert any("DOUBLE" in warning for warning in doubles.warnings)


# --- Movidius --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (node("Conv", "x", "w"), ""),
        (node("HardSwish"), ""),
        (node("LSTM"), ""),
        (node("GRU"), "LSTM"),
        (node("Einsum", equation="ij->ji"), "Transpose"),
        (node("GridSample"), "Resize"),
        (node("Loop"), "unrolled"),
        (node("Gelu"), ""),
        (node("Pad", "x"), ""),
        (node("GatherElements", "x", "x", axis=1), ""),
        (node("GatherElements", "x", "x", axis=-1), "negative"),
        (node("Floor"), ""),
    ],
)
def test_layers_of_the_myriad_plugin(tmp_path: Path, made: Any, words: str) -> None:
    weights = constant("w", np.zeros((4, 4, 1, 1), np.float32))
    found = only(check_movidius(write(tmp_path, made, constants=(weights,))))
    assert (found.placement == ACCELERATOR) == (words == ""), found
    assert words in found.reason + found.fix


def test_three_dimensional_convolution_and_padding_are_not_there(tmp_path: Path) -> None:
    volume = (1, 4, 8, 8, 8)
    assert "3-D" in only(check_movidius(write(tmp_path, node("Conv", "x", "w"), shape=volume))).reason
    assert "5 dimensions" in only(check_movidius(write(tmp_path, node("Pad", "x"), shape=volume))).reason
    assert "integers" in only(check_movidius(write(tmp_path, node("Floor"), kind=INT64))).reason


def test_free_shapes_and_int8_are_refused(tmp_path: Path) -> None:
    free = check_movidius(write(tmp_path, node("Relu"), shape=("n", 4)))
    assert "batch at 1" in free.refusals[0].fix
    quantized = check_movidius(write(tmp_path, node("QLinearConv")))
    assert "fp16" in quantized.refusals[0].reason
    assert not quantized.most_runs
    assert check_movidius(write(tmp_path, node("Relu"))).refusals == ()


def test_suppression_and_new_opsets_are_warned_of(tmp_path: Path) -> None:
    text = "\n".join(check_movidius(write(tmp_path, node("NonMaxSuppression"), opset=17)).warnings)
    assert "version 9" in text
    assert "opset 17" in text
    assert "65,504" in text


def layer(kind: str, version: str = "opset1", static: bool = True) -> IrLayer:
    return IrLayer(type=kind, version=version, name=f"{kind}_0", is_static=static)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (layer("Convolution"), ""),
        (layer("NonMaxSuppression", "opset5"), ""),
        (layer("NonMaxSuppression", "opset9"), "opset9"),
        (layer("Gather", "opset8"), ""),
        (layer("Interpolate", "opset11"), "opset11"),
        (layer("GRUSequence", "opset5"), "does not support this layer"),
        (layer("FakeQuantize"), "int8"),
        (layer("Convolution", "experimental"), ""),
    ],
)
def test_layers_of_an_ir(one: IrLayer, words: str) -> None:
    report = check_ir([layer("Parameter"), one, layer("Result")], "fp16", 10)
    assert only(report).op == one.type
    assert (only(report).placement == ACCELERATOR) == (words == "")
    assert words in only(report).reason
    assert report.refusals == ()


def test_an_ir_in_fp32_or_with_free_shapes_is_refused() -> None:
    report = check_ir([layer("Parameter", static=False), layer("ReLU")], "fp32", 10)
    assert "fp32" in report.refusals[0].reason
    assert "batch at 1" in report.refusals[1].fix


# --- Devices without an accelerator ----------------------------------------------------------------------------------


def test_everything_runs_on_the_processor(tmp_path: Path) -> None:
    float_model = check_plain(write(tmp_path, node("Relu"), node("StringNormalizer", "y", outputs=("z",))), "onnx")
    assert [one.placement for one in float_model.nodes] == [HOST, HOST]
    assert float_model.extra == {"int8": False}
    quantized = check_plain(write(tmp_path, node("QuantizeLinear", "x", "s")), "onnx")
    assert quantized.extra == {"int8": True}
    assert check_plain(tmp_path, "keras").nodes == ()


@pytest.mark.parametrize(
    ("precision", "refused"), [("fp16", False), ("fp32", True), ("int8", True), ("unknown", False)]
)
def test_the_weights_of_an_ir_are_called_what_they_are(precision: str, refused: bool) -> None:
    found = [one.reason for one in check_ir([layer("ReLU")], precision, 10).refusals]
    assert found == ([f"its weights are {precision}; the stick supports only fp16"] if refused else [])
