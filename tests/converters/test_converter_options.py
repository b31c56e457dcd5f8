"""What single converters promise in addition to the contract: dtypes, opsets, batches, names and operators."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from converters.base import feeds_for
from converters.calibration.dataset import Calibration
from converters.library_calls import converting, first_useful_line, loading, no_telemetry, suppress_output
from converters.options import ConvertOptions
from converters.registry import all_converters
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import EngineError, InputError, UsageError
from runtimes.registry import for_format, open_session
from runtimes.session import RunOptions

STEPS = {step.id: step for step in all_converters()}
SAMPLES = np.random.default_rng(0).uniform(-1, 1, (12, 1, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with two outputs and a BatchNorm behind a depthwise convolution."""
    path = tmp_path_factory.mktemp("keras") / "two.keras"
    with suppress_output():
        pytest.importorskip("tensorflow")
        keras = pytest.importorskip("keras")
        for library in ("tf2onnx", "onnx", "onnxruntime"):
            pytest.importorskip(library)
        keras.utils.set_random_seed(1)
        image = keras.Input((8, 8, 3), name="image")
        signal = keras.layers.DepthwiseConv2D(3, use_bias=False, padding="same")(image)
        signal = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(signal))
        flat = keras.layers.Flatten()(signal)
        small = keras.layers.Dense(2, name="small")(flat)
        large = keras.layers.Dense(4, name="large", activation="softmax")(flat)
        keras.Model(image, [large, small]).save(path)
    return path


@pytest.fixture(scope="module")
def onnx_file(keras_file: Path) -> Path:
    return STEPS["keras_to_onnx"].convert(keras_file, keras_file.parent, ConvertOptions(), None).model


def _specs(model: Path) -> tuple[list[TensorSpec], list[TensorSpec]]:
    artifact = Artifact.open(model)
    with suppress_output(), for_format(artifact.manifest.format).open(artifact, RunOptions()) as session:
        return list(session.inputs), list(session.outputs)


@pytest.mark.parametrize(
    ("asked", "given"), [(None, "uint8"), ("uint8", "uint8"), ("int8", "int8"), ("float32", "float32")]
)
def test_full_int8_tflite_takes_and_gives_what_was_asked(
    asked: str | None, given: str, keras_file: Path, tmp_path: Path
) -> None:
    options = ConvertOptions(precision="int8", io_dtype=asked)
    made = STEPS["keras_to_tflite"].convert(keras_file, tmp_path, options, Calibration({"image": SAMPLES})).model
    inputs, outputs = _specs(made)
    assert [(spec.dtype, spec.shape) for spec in inputs] == [(given, (1, 8, 8, 3))]
    assert [(spec.dtype, spec.shape) for spec in outputs] == [(given, (1, 4)), (given, (1, 2))]


def test_dense_layers_of_tflite_have_one_scale(keras_file: Path, tmp_path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    made = (
        STEPS["keras_to_tflite"]
        .convert(keras_file, tmp_path, ConvertOptions(precision="int8"), Calibration({"image": SAMPLES}))
        .model
    )
    network = schema.ModelT.InitFromPackedBuf(made.read_bytes(), 0)
    graph, dense = network.subgraphs[0], schema.BuiltinOperator.FULLY_CONNECTED
    kinds = [network.operatorCodes[operator.opcodeIndex].builtinCode for operator in graph.operators]
    weights = [graph.tensors[op.inputs[1]] for op, kind in zip(graph.operators, kinds, strict=True) if kind == dense]
    assert [len(tensor.quantization.scale) for tensor in weights] == [1, 1]
    assert all(tensor.shapeSignature is None for tensor in graph.tensors)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ConvertOptions(precision="fp32", io_dtype="uint8"), "fp32 cannot take uint8"),
        (ConvertOptions(precision="int8", io_dtype="int16"), "int8 cannot take int16"),
        (ConvertOptions(precision="fp32", batch=None), "needs a fixed batch"),
    ],
)
def test_tflite_refuses_what_it_cannot_write(
    options: ConvertOptions, words: str, keras_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        STEPS["keras_to_tflite"].convert(keras_file, tmp_path, options, Calibration({"image": SAMPLES}))


@pytest.mark.parametrize("opset", [11, 13, 17, 18])
def test_an_opset_is_met(opset: int, keras_file: Path, tmp_path: Path) -> None:
    import onnx

    made = STEPS["keras_to_onnx"].convert(keras_file, tmp_path, ConvertOptions(opset=opset), None).model
    model = onnx.load(made)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [opset]


@pytest.mark.parametrize("opset", [0, 10, 19, 99])
def test_an_opset_that_cannot_be_met_is_refused(opset: int, keras_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"cannot write opset {opset}") as caught:
        STEPS["keras_to_onnx"].convert(keras_file, tmp_path, ConvertOptions(opset=opset), None)
    assert "11 to 18" in caught.value.hint


def test_onnx_keeps_keras_names_order_and_nothing_to_fold(onnx_file: Path) -> None:
    import onnx

    graph = onnx.load(onnx_file).graph
    assert [value.name for value in graph.input] == ["image"]
    assert [value.name for value in graph.output] == ["large", "small"]
    operators = Counter(node.op_type for node in graph.node)
    assert (operators["Conv"], operators["Mul"], operators["BatchNormalization"]) == (1, 0, 0)
    assert not any("__" in name for node in graph.node for name in (*node.input, *node.output))


@pytest.mark.parametrize("batch", [1, 4, None])
def test_the_batch_of_onnx_is_fixed_or_free(batch: int | None, keras_file: Path, tmp_path: Path) -> None:
    made = STEPS["keras_to_onnx"].convert(keras_file, tmp_path, ConvertOptions(batch=batch), None).model
    inputs, outputs = _specs(made)
    for spec in (*inputs, *outputs):
        assert spec.shape[0] == batch if batch else isinstance(spec.shape[0], str)


def test_openvino_fixes_a_free_batch(keras_file: Path, tmp_path: Path) -> None:
    no_telemetry()
    with suppress_output():
        pytest.importorskip("openvino")
    free = STEPS["keras_to_onnx"].convert(keras_file, tmp_path, ConvertOptions(batch=None), None).model
    fixed = STEPS["onnx_to_openvino"].convert(free, tmp_path, ConvertOptions(), None).model
    assert [spec.shape for spec in _specs(fixed)[0]] == [(1, 8, 8, 3)]


def test_int8_onnx_keeps_to_onnx_own_operators_and_to_its_opset(onnx_file: Path, tmp_path: Path) -> None:
    import onnx

    step, calibration = STEPS["onnx_to_onnx"], Calibration({"other name": SAMPLES})
    made = onnx.load(step.convert(onnx_file, tmp_path, ConvertOptions(precision="int8", opset=17), calibration).model)
    assert [(entry.domain, entry.version) for entry in made.opset_import] == [("", 17)]
    assert {"QuantizeLinear", "DequantizeLinear"} < {node.op_type for node in made.graph.node}
    with pytest.raises(UsageError, match="has opset 17, not 13"):
        step.convert(onnx_file, tmp_path, ConvertOptions(precision="int8", opset=13), calibration)


def test_int8_onnx_lifts_an_opset_without_axes(keras_file: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    old = STEPS["keras_to_onnx"].convert(keras_file, tmp_path, ConvertOptions(opset=11), None).model
    (out := tmp_path / "int8").mkdir()
    options = ConvertOptions(precision="int8")
    made = STEPS["onnx_to_onnx"].convert(old, out, options, Calibration({"image": SAMPLES})).model
    versions = [{entry.domain: entry.version for entry in onnx.load(path).opset_import}[""] for path in (old, made)]
    assert versions == [11, 13]


def test_a_keras_model_of_free_size_stays_free_or_is_fixed(tmp_path: Path) -> None:
    with suppress_output():
        pytest.importorskip("tensorflow")
        keras = pytest.importorskip("keras")
        image = keras.Input((None, None, 3), name="image")
        keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)).save(tmp_path / "free.keras")
    for shapes, wanted in (((), (1, "dim1", "dim2", 3)), (("1x6x8x3",), (1, 6, 8, 3))):
        options = ConvertOptions(shapes=shapes)
        made = STEPS["keras_to_tflite"].convert(tmp_path / "free.keras", tmp_path, options, None).model
        with open_session(Artifact.open(made)) as session:
            assert session.inputs[0].shape == wanted


def test_code_in_a_keras_model_is_not_run(tmp_path: Path) -> None:
    with suppress_output():
        pytest.importorskip("tensorflow")
        keras = pytest.importorskip("keras")
        image = keras.Input((2,), name="image")
        keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "code.keras")
    with pytest.raises(InputError, match=r"code\.keras holds a Lambda layer"):
        STEPS["keras_to_tflite"].convert(tmp_path / "code.keras", tmp_path, ConvertOptions(), None)


def test_calibration_samples_go_by_name_and_else_in_order() -> None:
    one, two = np.zeros((1, 2)), np.ones((1, 3))
    calibration = Calibration({"a": one, "b": two})
    (same,), (ordered,) = feeds_for(calibration, ["b", "a"]), feeds_for(calibration, ["x", "y"])
    assert (same["a"].shape, same["b"].shape) == ((2,), (3,))
    assert (list(ordered), ordered["x"].shape) == (["x", "y"], (2,))


def test_a_native_error_becomes_one_line() -> None:
    with pytest.raises(InputError, match="m cannot be read as ONNX: bad magic"), loading("m", "ONNX"):
        raise ValueError("\n  bad magic\nmore")
    with pytest.raises(EngineError, match="tool failed on m: op X is unknown"), converting("m", "tool"):
        raise RuntimeError('Traceback (most recent call last):\n  File "x.py", line 3\nop X is unknown\n')
    with pytest.raises(UsageError, match="ours"), converting("m", "tool"):
        raise UsageError("ours")
    assert first_useful_line(RuntimeError()) == "RuntimeError"
    assert len(first_useful_line(RuntimeError("x" * 5000))) == 300


def test_chatter_stops_at_the_end_of_the_block(capfd: pytest.CaptureFixture[str]) -> None:
    with suppress_output():
        os.write(1, b"from C++\n")
        print("from Python")
        warnings.warn("deprecated", stacklevel=1)
    print("after")
    assert capfd.readouterr() == ("after\n", "")


def test_openvino_sends_no_telemetry() -> None:
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    command = (
        "from converters.library_calls import no_telemetry; no_telemetry(); "
        "import openvino.tools.ovc.telemetry_utils as used; print(used.tm.__name__)"
    )
    told = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
