"""What single steps promise beside the contract: dtypes, opsets, batches, names and operators of what they write."""

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

from converters.calibration import Calibration
from converters.quiet import converting, loading, no_telemetry, quiet, useful_line
from converters.steps import StepOptions, feeds_for, find_steps, step_id
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import EngineError, InputError, UsageError
from runtimes.registry import for_format
from runtimes.session import RunOptions

STEPS = {step_id(step): step for step in find_steps()}
SAMPLES = np.random.default_rng(0).uniform(-1, 1, (12, 1, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with two outputs and a BatchNorm behind a depthwise convolution."""
    path = tmp_path_factory.mktemp("keras") / "two.keras"
    with quiet():
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
    return STEPS["keras_to_onnx"].convert(keras_file, keras_file.parent, StepOptions(), None)


def _specs(model: Path) -> tuple[list[TensorSpec], list[TensorSpec]]:
    artifact = Artifact.open(model)
    with quiet(), for_format(artifact.manifest.format).open(artifact, RunOptions()) as session:
        return list(session.inputs), list(session.outputs)


@pytest.mark.parametrize(
    ("asked", "given"), [(None, "uint8"), ("uint8", "uint8"), ("int8", "int8"), ("float32", "float32")]
)
def test_full_int8_tflite_takes_and_gives_what_was_asked(
    asked: str | None, given: str, keras_file: Path, tmp_path: Path
) -> None:
    options = StepOptions("int8", io_dtype=asked)
    made = STEPS["keras_to_tflite"].convert(keras_file, tmp_path, options, Calibration({"image": SAMPLES}))
    inputs, outputs = _specs(made)
    assert [(spec.dtype, spec.shape) for spec in inputs] == [(given, (1, 8, 8, 3))]
    assert [(spec.dtype, spec.shape) for spec in outputs] == [(given, (1, 4)), (given, (1, 2))]


def test_dense_layers_of_tflite_have_one_scale(keras_file: Path, tmp_path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    made = STEPS["keras_to_tflite"].convert(keras_file, tmp_path, StepOptions("int8"), Calibration({"image": SAMPLES}))
    network = schema.ModelT.InitFromPackedBuf(made.read_bytes(), 0)
    graph, dense = network.subgraphs[0], schema.BuiltinOperator.FULLY_CONNECTED
    kinds = [network.operatorCodes[operator.opcodeIndex].builtinCode for operator in graph.operators]
    weights = [graph.tensors[op.inputs[1]] for op, kind in zip(graph.operators, kinds, strict=True) if kind == dense]
    assert [len(tensor.quantization.scale) for tensor in weights] == [1, 1]
    assert all(tensor.shapeSignature is None for tensor in graph.tensors)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (StepOptions("fp32", io_dtype="uint8"), "fp32 cannot take uint8"),
        (StepOptions("int8", io_dtype="int16"), "int8 cannot take int16"),
        (StepOptions("fp32", batch=None), "needs a fixed batch"),
    ],
)
def test_tflite_refuses_what_it_cannot_write(
    options: StepOptions, words: str, keras_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        STEPS["keras_to_tflite"].convert(keras_file, tmp_path, options, Calibration({"image": SAMPLES}))


@pytest.mark.parametrize("opset", [11, 13, 17, 18])
def test_an_opset_is_met(opset: int, keras_file: Path, tmp_path: Path) -> None:
    import onnx

    made = STEPS["keras_to_onnx"].convert(keras_file, tmp_path, StepOptions(opset=opset), None)
    model = onnx.load(made)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [opset]


@pytest.mark.parametrize("opset", [0, 10, 19, 99])
def test_an_opset_that_cannot_be_met_is_refused(opset: int, keras_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"cannot write opset {opset}") as caught:
        STEPS["keras_to_onnx"].convert(keras_file, tmp_path, StepOptions(opset=opset), None)
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
    made = STEPS["keras_to_onnx"].convert(keras_file, tmp_path, StepOptions(batch=batch), None)
    inputs, outputs = _specs(made)
    for spec in (*inputs, *outputs):
        assert spec.shape[0] == batch if batch else isinstance(spec.shape[0], str)


def test_openvino_fixes_a_free_batch(keras_file: Path, tmp_path: Path) -> None:
    no_telemetry()
    with quiet():
        pytest.importorskip("openvino")
    free = STEPS["keras_to_onnx"].convert(keras_file, tmp_path, StepOptions(batch=None), None)
    fixed = STEPS["onnx_to_openvino"].convert(free, tmp_path, StepOptions(), None)
    assert [spec.shape for spec in _specs(fixed)[0]] == [(1, 8, 8, 3)]


def test_int8_onnx_keeps_to_onnx_own_operators_and_to_its_opset(onnx_file: Path, tmp_path: Path) -> None:
    import onnx

    step, calibration = STEPS["onnx_to_onnx"], Calibration({"other name": SAMPLES})
    made = onnx.load(step.convert(onnx_file, tmp_path, StepOptions("int8", opset=17), calibration))
    assert [(entry.domain, entry.version) for entry in made.opset_import] == [("", 17)]
    assert {"QuantizeLinear", "DequantizeLinear"} < {node.op_type for node in made.graph.node}
    with pytest.raises(UsageError, match="has opset 17, not 13"):
        step.convert(onnx_file, tmp_path, StepOptions("int8", opset=13), calibration)


def test_int8_onnx_refuses_an_opset_without_axes(keras_file: Path, tmp_path: Path) -> None:
    old = STEPS["keras_to_onnx"].convert(keras_file, tmp_path, StepOptions(opset=11), None)
    with pytest.raises(UsageError, match="has opset 11: int8 per channel needs 13"):
        STEPS["onnx_to_onnx"].convert(old, tmp_path, StepOptions("int8"), Calibration({"image": SAMPLES}))


def test_a_keras_model_of_free_size_is_refused(tmp_path: Path) -> None:
    with quiet():
        pytest.importorskip("tensorflow")
        keras = pytest.importorskip("keras")
        image = keras.Input((None, None, 3), name="image")
        keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)).save(tmp_path / "free.keras")
    with pytest.raises(InputError, match=r"free\.keras: input 'image' has the free shape"):
        STEPS["keras_to_tflite"].convert(tmp_path / "free.keras", tmp_path, StepOptions(), None)


def test_code_in_a_keras_model_is_not_run(tmp_path: Path) -> None:
    with quiet():
        pytest.importorskip("tensorflow")
        keras = pytest.importorskip("keras")
        image = keras.Input((2,), name="image")
        keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "code.keras")
    with pytest.raises(InputError, match=r"code\.keras cannot be read as a Keras model"):
        STEPS["keras_to_tflite"].convert(tmp_path / "code.keras", tmp_path, StepOptions(), None)


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
    assert useful_line(RuntimeError()) == "RuntimeError"
    assert len(useful_line(RuntimeError("x" * 5000))) == 300


def test_chatter_stops_at_the_end_of_the_block(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(1, b"from C++\n")
        print("from Python")
        warnings.warn("deprecated", stacklevel=1)
    print("after")
    assert capfd.readouterr() == ("after\n", "")


def test_openvino_reports_to_nobody() -> None:
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    command = (
        "from converters.quiet import no_telemetry; no_telemetry(); "
        "import openvino.tools.ovc.telemetry_utils as used; print(used.tm.__name__)"
    )
    told = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
