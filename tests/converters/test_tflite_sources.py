"""TFLite as a source: float and quantized files to TFLite, ONNX and OpenVINO, compared with LiteRT's answers."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.dataset import Calibration
from converters.library_calls import suppress_output
from converters.options import ConvertOptions
from converters.registry import converter
from converters.tflite.reader import read_tflite
from converters.tflite.writer import read_network, serialize
from runtimes.artifact import Artifact
from runtimes.engines.openvino import QUANTIZATION
from runtimes.errors import EdgeError, InputError, UsageError
from runtimes.registry import for_format
from runtimes.session import RunOptions

tensorflow = pytest.importorskip("tensorflow")
litert = pytest.importorskip("ai_edge_litert.interpreter")
# Keras reads its own variables in a way that numpy 2 deprecates, whenever it saves a model.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SAMPLES = np.random.default_rng(0).uniform(-1, 1, (24, 1, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small network in float, with weights in fp16, and in int8 by TensorFlow's own converter."""
    folder, keras = tmp_path_factory.mktemp("network"), pytest.importorskip("keras")
    keras.utils.set_random_seed(2)
    layers = keras.layers
    image = keras.Input((16, 16, 3), name="image")
    signal = layers.Conv2D(8, 3, activation="relu6", padding="same")(image)
    features = layers.GlobalAveragePooling2D()(layers.DepthwiseConv2D(3)(signal))
    one = layers.Dense(1, name="flag")(features)  # one element: a moving average gives it no range
    model = keras.Model(image, [layers.Dense(5, activation="softmax", name="classes")(features), one])
    with suppress_output():  # and Keras' warnings
        model.save(folder / "model.keras")
    step, found = converter("keras_to_tflite"), {}
    for precision in ("fp32", "fp16", "int8"):
        (out := folder / precision).mkdir()
        options = ConvertOptions(precision=precision)
        found[precision] = step.convert(folder / "model.keras", out, options, Calibration({"image": SAMPLES})).model
    return found


def convert(step, model, out, **options):
    return converter(step).convert(model, out, ConvertOptions(**options), Calibration({"image": SAMPLES})).model


def litert_answers(path):
    """All answers as real numbers [n, ...], by name."""
    interpreter = litert.Interpreter(str(path))
    interpreter.allocate_tensors()
    (taken,), rows = interpreter.get_input_details(), []
    for sample in SAMPLES:
        scale, zero = taken["quantization"]
        low_high = (0, 0) if not scale else (np.iinfo(taken["dtype"]).min, np.iinfo(taken["dtype"]).max)
        value = np.clip(np.round(sample / scale + zero), *low_high).astype(taken["dtype"]) if scale else sample
        interpreter.set_tensor(taken["index"], value)
        interpreter.invoke()
        rows.append({one["name"]: real(interpreter, one) for one in interpreter.get_output_details()})
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def real(interpreter, one):
    scale, zero = one["quantization"]
    value = interpreter.get_tensor(one["index"]).astype(np.float32)
    return (value - zero) * scale if scale else value


def snr_db(expected, actual):
    return 10 * np.log10(np.square(expected - expected.mean()).sum() / np.square(expected - actual).sum())


@pytest.mark.parametrize(("precision", "limit_db", "share"), [("int8", 12, 0.7), ("w8", 25, 0.7), ("fp16", 40, 0.8)])
@pytest.mark.parametrize("source", ["fp32", "fp16"])
def test_a_float_file_is_quantized_and_smaller(tmp_path, network, source, precision, limit_db, share):
    pytest.importorskip("ai_edge_quantizer")
    if source == precision:
        pytest.skip("it is that already")
    path = convert("tflite_to_tflite", network[source], tmp_path, precision=precision)
    expected, actual = litert_answers(network[source]), litert_answers(path)
    assert list(actual) == ["classes", "flag"]
    for name in expected:
        assert snr_db(expected[name], actual[name]) > limit_db, name
    constants = lambda model: sum(one.constant_bytes for one in read_tflite(model).graphs[0].tensors)  # noqa: E731
    assert constants(path) < share * constants(network["fp32"])


@pytest.mark.parametrize("source", ["fp32", "fp16"])
def test_the_layers_that_lose_most_are_named_and_kept_in_float(tmp_path, network, source):
    pytest.importorskip("ai_edge_quantizer")
    step, samples = converter("tflite_to_tflite"), Calibration({"image": SAMPLES[:8]})
    whole = convert("tflite_to_tflite", network[source], tmp_path, precision="int8")
    first, *_ = step.layer_errors(network[source], whole, ConvertOptions(precision="int8"), samples)
    assert 0 < first.noise < 1
    (tmp_path / "kept").mkdir()
    kept = convert("tflite_to_tflite", network[source], tmp_path / "kept", precision="int8", keep=first.touching)
    dtypes = {one.spec.name: one.spec.dtype for one in read_tflite(kept).graphs[0].tensors}
    assert dtypes[first.name] == "float32"
    assert "int8" in dtypes.values()
    noise = {one.name: one.noise for one in step.layer_errors(network[source], kept, ConvertOptions(), samples)}
    assert noise[first.name] < first.noise / 10
    (head,) = step.head_layers(network[source], whole)
    assert len(head) == 2  # nothing is only moved at the outputs: the softmax, and the dense layer of the other


def test_a_file_of_the_first_converters_is_quantized_too(tmp_path, network):
    """Its operator codes are in the old field alone, and it has no signature."""
    pytest.importorskip("ai_edge_quantizer")
    old = read_network(network["fp32"])
    for code in old.operatorCodes:
        code.deprecatedBuiltinCode, code.builtinCode = max(code.deprecatedBuiltinCode, code.builtinCode), 0
    old.signatureDefs = None
    (tmp_path / "old.tflite").write_bytes(serialize(old))
    path = convert("tflite_to_tflite", tmp_path / "old.tflite", tmp_path / "", precision="w8")
    dtypes = [one.spec.dtype for one in read_tflite(path).graphs[0].tensors if one.constant_bytes]
    assert "int8" in dtypes
    assert litert_answers(path).keys() == {"classes", "flag"}


def test_a_loop_is_refused_before_the_quantizer_fails_on_it(tmp_path):
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((6, 4), name="image"), keras.layers.LSTM(3)])
    model.save(tmp_path / "loop.keras")
    path = convert("keras_to_tflite", tmp_path / "loop.keras", tmp_path)
    names = {one.name for graph in read_tflite(path).graphs for one in graph.operators}
    if "WHILE" not in names:
        pytest.skip("TensorFlow fuses the loop")
    with pytest.raises(UsageError, match="contains WHILE, which ai-edge-quantizer cannot quantize"):
        convert("tflite_to_tflite", path, tmp_path / "", precision="int8")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_openvino_answers_as_litert_does(tmp_path, network, precision):
    openvino = pytest.importorskip("openvino")
    path = convert("tflite_to_openvino", network[precision], tmp_path, precision=precision)
    compiled = openvino.Core().compile_model(path, "CPU", {"LP_TRANSFORMS_MODE": "NO"})  # as our adapter opens it
    if precision == "fp32":
        expected = litert_answers(network["fp32"])
        for name in expected:
            actual = np.stack([compiled(sample)[name] for sample in SAMPLES])
            np.testing.assert_allclose(actual, expected[name], atol=1e-5)
        return
    assert compiled.input().element_type.to_dtype() == np.uint8
    raw = np.random.default_rng(1).integers(0, 256, (10, 1, 16, 16, 3), np.uint8)
    interpreter = litert.Interpreter(str(network["int8"]))
    interpreter.allocate_tensors()
    for sample in raw:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample)
        interpreter.invoke()
        for one in interpreter.get_output_details():
            difference = interpreter.get_tensor(one["index"]).astype(int) - compiled(sample)[one["name"]].astype(int)
            assert np.abs(difference).max() <= 3, one["name"]


def test_openvinos_integers_mean_what_they_mean_in_the_source(tmp_path, network):
    """OpenVINO's format has no scales: without ours, 255 of an answer would be 255 and not a probability of 1."""
    pytest.importorskip("openvino")
    path = convert("tflite_to_openvino", network["int8"], tmp_path, precision="int8")
    source = read_tflite(network["int8"]).graphs[0]
    specs = [source.tensors[place].spec for place in (*source.inputs, *source.outputs)]
    expected = {spec.name: spec for spec in specs}
    session = for_format("openvino").open(Artifact.open(path), RunOptions())
    found = {spec.name: spec for spec in (*session.inputs, *session.outputs)}
    session.close()
    assert found.keys() == expected.keys()
    for name, spec in found.items():
        assert spec.quantization == expected[name].quantization is not None


@pytest.mark.parametrize("text", ["{", "[]", '{"classes": {"scales": [1.0], "zero_points": []}}', '{"classes": 1}'])
def test_scales_that_edge_did_not_write_are_refused(tmp_path, network, text):
    openvino = pytest.importorskip("openvino")
    path = convert("tflite_to_openvino", network["int8"], tmp_path, precision="int8")
    changed = openvino.Core().read_model(path)
    changed.set_rt_info(text, list(QUANTIZATION))
    openvino.save_model(changed, tmp_path / "changed.xml", compress_to_fp16=False)
    with pytest.raises(InputError, match=r"changed\.xml|quantization of 'classes'"):
        for_format("openvino").open(Artifact.open(tmp_path / "changed.xml"), RunOptions())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_onnx_answers_as_litert_does(tmp_path, network, precision):
    """With float inputs and outputs: ONNX has no scales for integer ones, and TensorRT takes none."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    path = convert("tflite_to_onnx", network[precision], tmp_path, precision=precision)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (taken,), outputs = session.get_inputs(), session.get_outputs()
    assert [one.name for one in outputs] == ["classes", "flag"]
    assert {one.type for one in (taken, *outputs)} == {"tensor(float)"}
    expected = litert_answers(network[precision])
    graph = read_tflite(network[precision]).graphs[0]
    for place, name in enumerate(expected):
        actual = np.stack([session.run(None, {taken.name: sample})[place] for sample in SAMPLES])
        quantization = graph.tensors[graph.outputs[place]].spec.quantization
        limit = 1e-5 if precision == "fp32" else 3.01 * quantization.scales[0]
        assert np.abs(expected[name] - actual).max() <= limit, name


def test_dequantized_constants_have_a_zero_point_each(tmp_path, network):
    """ONNX Runtime cannot rewrite weights that share one, which it does on CPUs without VNNI."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx")
    graph = onnx.load(convert("tflite_to_onnx", network["int8"], tmp_path, precision="int8")).graph
    constants = {one.name for one in graph.initializer}
    points = [one.input[2] for one in graph.node if one.op_type == "DequantizeLinear" and one.input[0] in constants]
    assert len(points) == len(set(points)) > 2


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_free_sizes_are_fixed_before_the_file_is_quantized(tmp_path, precision):
    kernel = np.random.default_rng(1).normal(0, 0.3, (3, 3, 3, 4)).astype(np.float32)
    function = tensorflow.function(lambda image: tensorflow.nn.relu(tensorflow.nn.conv2d(image, kernel, 1, "SAME")))
    spec = tensorflow.TensorSpec([1, None, None, 3], name="image")
    traced = [function.get_concrete_function(spec)]
    (tmp_path / "free.tflite").write_bytes(tensorflow.lite.TFLiteConverter.from_concrete_functions(traced).convert())
    (tmp_path / "out").mkdir()
    shapes = ("1x16x16x3",)
    path = convert("tflite_to_tflite", tmp_path / "free.tflite", tmp_path / "out", precision=precision, shapes=shapes)
    (taken,), (given,) = read_tflite(path).graphs[0].inputs, read_tflite(path).graphs[0].outputs
    tensors = read_tflite(path).graphs[0].tensors
    assert (tensors[taken].spec.shape, tensors[given].spec.shape) == ((1, 16, 16, 3), (1, 16, 16, 4))
    (answers,) = litert_answers(path).values()
    expected = np.stack([np.asarray(function(sample)) for sample in SAMPLES])
    assert snr_db(expected, answers) > 25


def test_activations_in_int16_are_refused_by_name(tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    weights = np.eye(4, dtype=np.float32)
    function = tensorflow.function(lambda x: tensorflow.nn.relu(x @ weights))
    converter = tensorflow.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function(tensorflow.TensorSpec([1, 4], name="x"))]
    )
    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([np.full((1, 4), value, np.float32)] for value in (-1, 1))
    wide = tensorflow.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    converter.target_spec.supported_ops = [wide]
    (tmp_path / "wide.tflite").write_bytes(converter.convert())
    with pytest.raises(EdgeError, match="computes in int16") as caught:
        convert("tflite_to_onnx", tmp_path / "wide.tflite", tmp_path)
    assert "--to openvino" in caught.value.hint


def test_an_operator_without_an_onnx_counterpart_is_named(tmp_path, network):
    pytest.importorskip("tf2onnx")
    odd = read_network(network["fp32"])
    odd.operatorCodes[odd.subgraphs[0].operators[0].opcodeIndex].builtinCode = 32  # CUSTOM
    odd.operatorCodes[odd.subgraphs[0].operators[0].opcodeIndex].deprecatedBuiltinCode = 32
    odd.operatorCodes[odd.subgraphs[0].operators[0].opcodeIndex].customCode = b"MyOwn"
    (tmp_path / "odd.tflite").write_bytes(serialize(odd))
    with pytest.raises(EdgeError, match="MyOwn"):
        convert("tflite_to_onnx", tmp_path / "odd.tflite", tmp_path)
