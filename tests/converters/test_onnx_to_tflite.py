"""ONNX to TFLite: immediate refusals, and the results for both layouts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from converters.calibration.dataset import Calibration
from converters.onnx.opset import shapes_for_batch
from converters.onnx_to_tflite import OnnxToTflite, _readable, kept_inputs
from converters.options import ConvertOptions
from converters.tflite.reader import read_tflite
from runtimes.artifact import Artifact
from runtimes.errors import EngineError, InputError, UsageError
from runtimes.registry import for_format
from runtimes.session import RunOptions
from runtimes.tensors import dequantize, quantize

pytestmark = pytest.mark.skipif(find_spec("onnx") is None, reason="needs onnx")


def _network(path: Path, shape=(1, 3, 16, 16), opset: int = 13, batch: object = 1) -> Path:
    """A convolution, a dense layer with very unlike channels and a softmax, from `image` to `scores`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(3)
    first = shape[1] == 3
    dense = generator.normal(0, 0.2, (8 * 16 * 16, 6)) * np.geomspace(0.05, 1, 6)
    constants = {"kernel": generator.normal(0, 0.3, (8, 3, 3, 3)), "dense": dense}
    turn = [] if first else [helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2])]
    nodes = [
        *turn,
        helper.make_node("Conv", ["image" if first else "turned", "kernel"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Flatten", ["relu"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, *shape[1:]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 6])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def _samples(shape) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (24, *shape)).astype(np.float32)


def test_what_an_input_takes_is_read_without_the_environment(tmp_path):
    assert shapes_for_batch(_network(tmp_path / "n.onnx"), 1, 13) == {"image": [1, 3, 16, 16]}
    assert shapes_for_batch(_network(tmp_path / "free.onnx", batch="batch"), 2, 13) == {"image": [2, 3, 16, 16]}
    with pytest.raises(InputError, match="free dimension other than the batch"):
        shapes_for_batch(_network(tmp_path / "rows.onnx", shape=(1, 3, "rows", 16)), 1, 13)
    with pytest.raises(InputError, match="has opset 17, and 13 is the newest") as caught:
        shapes_for_batch(_network(tmp_path / "new.onnx", opset=17), 1, 13)
    assert "opset 13 or lower" in caught.value.hint


def test_a_newer_file_version_is_lowered_to_what_the_environment_opens(tmp_path):
    import onnx

    proto = onnx.load(_network(tmp_path / "m.onnx"))
    proto.ir_version = onnx.IR_VERSION
    onnx.save(proto, tmp_path / "m.onnx")
    assert _readable(tmp_path / "m.onnx", {"image": [1, 3, 16, 16]}).ir_version <= 10


def test_only_pictures_with_the_channels_first_are_turned():
    shapes = {"a": [1, 224, 224, 3], "b": [1, 3, 224, 224], "c": [1, 128], "d": [1, 64, 7, 7], "e": [1, 32, 32, 1]}
    assert kept_inputs(shapes) == ["a", "c", "e"]
    assert kept_inputs({"f": [1, 8, 8, 8], "g": [1, 4, 32], "h": [1, 2, 6, 6, 6]}) == ["f", "g", "h"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ConvertOptions(precision="fp32", batch=None), "needs a fixed batch"),
        (ConvertOptions(precision="fp32", io_dtype="uint8"), "TFLite fp32 cannot take uint8"),
    ],
)
def test_what_tflite_has_not_is_refused_before_anything_is_made(tmp_path, monkeypatch, options, message):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=message):
        OnnxToTflite().convert(_network(tmp_path / "n.onnx"), tmp_path, options, None)
    assert not (tmp_path / "cache").exists()


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """(source, model file) by layout and precision, a free batch among them."""
    folder, found = tmp_path_factory.mktemp("tflite"), {}
    for name, shape in {"nchw": (1, 3, 16, 16), "nhwc": (1, 16, 16, 3)}.items():
        source = _network(folder / f"{name}.onnx", shape, batch="batch" if name == "nchw" else 1)
        for precision in OnnxToTflite.precisions:
            out = folder / f"{name}-{precision}"
            out.mkdir()
            calibration = Calibration({"image": _samples(shape)}) if precision == "int8" else None
            found[name, precision] = (
                source,
                OnnxToTflite().convert(source, out, ConvertOptions(precision=precision), calibration).model,
            )
    return found


LIMITS = {"fp32": 1e-5, "fp16": 2e-3, "w8": 0.03, "int8": 0.05}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("precision", OnnxToTflite.precisions)
def test_it_answers_as_its_source(converted, layout, precision):
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("ai_edge_litert")
    source, model = converted[layout, precision]
    samples = _samples((1, 3, 16, 16) if layout == "nchw" else (1, 16, 16, 3))
    session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    truth = np.stack([session.run(None, {"image": sample})[0] for sample in samples])
    assert np.ptp(truth, axis=0).max() > 0.1
    with for_format("tflite").open(Artifact.open(model), RunOptions()) as lite:
        (taken,), (given,) = lite.inputs, lite.outputs
        assert taken.shape == (1, 16, 16, 3)
        assert taken.dtype == ("uint8" if precision == "int8" else "float32")
        fed = samples.transpose(0, 1, 3, 4, 2) if layout == "nchw" else samples
        rows = [lite.run({taken.name: quantize(np.ascontiguousarray(one), taken)})[given.name] for one in fed]
        answers = np.stack([dequantize(row, given.quantization) for row in rows])
    assert np.abs(answers - truth).max() < LIMITS[precision]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 4, 32), (1, 8, 8), (1, 8, 8, 8), (1, 2, 6, 5, 7), (1, 4, 4, 4, 4)])
def test_sequences_and_volumes_keep_names_and_axes(tmp_path, shape):
    """Also where all sizes are the same, so that no shape shows which axis is which."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("ai_edge_litert")
    generator, rank, sizes = np.random.default_rng(3), len(shape) - 2, {"signal": shape, "gain": ()}
    kernel = generator.standard_normal((shape[1], shape[1], *[3] * rank)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["signal", "kernel"], ["filtered"], pads=[1] * 2 * rank),
        helper.make_node("Mul", ["filtered", "gain"], ["loud"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("loud", "filtered")]
    graph = helper.make_graph(nodes, "network", inputs, outputs, [numpy_helper.from_array(kernel, "kernel")])
    source = tmp_path / "source.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), source)
    (tmp_path / "out").mkdir()
    model = OnnxToTflite().convert(source, tmp_path / "out", ConvertOptions(precision="fp32"), None).model
    feeds = {name: generator.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    truth = ort.InferenceSession(source, providers=["CPUExecutionProvider"]).run(None, feeds)
    with for_format("tflite").open(Artifact.open(model), RunOptions()) as lite:
        shapes = {spec.name: spec.shape for spec in (*lite.inputs, *lite.outputs)}
        answers = lite.run(feeds)
    assert shapes == {**sizes, "loud": shape, "filtered": shape}
    for name, expected in zip(("loud", "filtered"), truth, strict=True):
        np.testing.assert_allclose(answers[name], expected, atol=1e-4)


def _mixer(place):
    transposed = place("Transpose", place("Relu", "x"), perm=[0, 2, 1])
    return place("Add", "x", place("Transpose", place("MatMul", transposed, (6, 6)), perm=[0, 2, 1]))


def _attention(place):
    keys = place("Transpose", place("MatMul", "x", (6, 6)), perm=[0, 2, 1])
    return place("MatMul", place("Softmax", place("MatMul", "x", keys), axis=-1), "x")


def _recurrent(place):
    steps = place("Transpose", place("Conv", "x", (4, 6, 3), pads=[1, 1]), perm=[2, 0, 1])
    states = place("Squeeze", place("LSTM", steps, (1, 24, 4), (1, 24, 6), hidden_size=6), np.int64([1]))
    return place("Gather", place("Transpose", states, perm=[1, 0, 2]), np.int64(-1), axis=1)


# Networks in which a tensor's shape does not tell its layout: from the shape of `x` to the network.
EQUAL_SIZES = {
    "product": ((1, 6, 6), lambda place: place("MatMul", "x", (6, 6))),
    "mixer": ((1, 6, 6), _mixer),
    "attention": ((1, 6, 6), _attention),
    "softmax over rows": ((1, 6, 6), lambda place: place("Softmax", place("MatMul", "x", (6, 6)), axis=1)),
    "convolution and LSTM": ((1, 6, 6), _recurrent),
    "joined": ((1, 6, 6), lambda place: place("Concat", "x", place("Relu", "x"), axis=1)),
    "channels": ((1, 5, 5, 5), lambda place: place("Add", "x", (1, 5, 1, 1))),
    "turned": ((1, 5, 5, 5), lambda place: place("MatMul", place("Transpose", "x", perm=[0, 2, 3, 1]), (5, 5))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUAL_SIZES)
def test_sizes_that_are_all_the_same_do_not_confuse_axes(tmp_path, name):
    import onnx

    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("ai_edge_litert")
    shape, network = EQUAL_SIZES[name]
    nodes, constants, generator = [], [], np.random.default_rng(5)

    def place(operator: str, *inputs: object, **attributes: object) -> str:
        """Add a node and return its output; a tuple is the shape of random weights, an array a constant."""
        names = []
        for given in inputs:
            if not isinstance(given, str):
                values = generator.normal(0, 0.5, given).astype(np.float32) if isinstance(given, tuple) else given
                constants.append(onnx.numpy_helper.from_array(np.asarray(values), f"c{len(constants)}"))
            names.append(given if isinstance(given, str) else constants[-1].name)
        nodes.append(onnx.helper.make_node(operator, names, [f"t{len(nodes)}"], **attributes))
        return f"t{len(nodes) - 1}"

    last = network(place)
    ports = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)]
    outputs = [onnx.helper.make_empty_tensor_value_info(last)]
    graph = onnx.helper.make_graph(nodes, "network", ports, outputs, constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "n.onnx")
    made = OnnxToTflite().convert(tmp_path / "n.onnx", tmp_path, ConvertOptions(precision="fp32"), None)
    values = np.random.default_rng(7).normal(0, 1, shape).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(tmp_path / "n.onnx").run(None, {"x": values})
    with for_format("tflite").open(Artifact.open(made.model), RunOptions()) as lite:
        (given,) = lite.run({"x": values}).values()
    np.testing.assert_allclose(given, expected, atol=1e-4)


@pytest.mark.slow
def test_no_stray_transposes_and_dense_layers_of_one_scale(converted):
    for layout in ("nchw", "nhwc"):
        (graph,) = read_tflite(converted[layout, "int8"][1]).graphs
        names = [op.name for op in graph.operators]
        assert "CONV_2D" in names
        assert not {"DEQUANTIZE", "CAST"} & set(names)
        (dense,) = (op for op in graph.operators if op.name == "FULLY_CONNECTED")
        weights = graph.tensors[dense.inputs[1]].spec.quantization
        assert weights is not None
        assert len(weights.scales) == 1
        assert "TRANSPOSE" not in names[: names.index("CONV_2D")]


@pytest.mark.slow
def test_what_onnx2tf_cannot_convert_is_one_line(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("Imaginary", ["x"], ["y"], domain="nowhere")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("nowhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "strange.onnx")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Exception, match=r"onnx2tf on .*strange\.onnx: ") as caught:
        OnnxToTflite().convert(tmp_path / "strange.onnx", out, ConvertOptions(), None)
    assert "\n" not in caught.value.message
    assert not list(out.iterdir())


@pytest.mark.slow
def test_the_node_that_onnx2tf_fails_on_is_named(tmp_path):
    """Its convolution takes constant weights only, and says "list index out of range"."""
    import onnx
    from onnx import TensorProto, helper

    sizes = {"x": [1, 3, 8, 8], "weights": [4, 3, 3, 3], "y": [1, 4, 6, 6]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sizes.items()]
    node = helper.make_node("Conv", ["x", "weights"], ["y"], "my_filter", kernel_shape=[3, 3])
    graph = helper.make_graph([node], "g", values[:2], values[2:])
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "filter.onnx")
    with pytest.raises(EngineError, match=r"onnx2tf on .*filter\.onnx: node 'my_filter' \(Conv\) is not converted: "):
        OnnxToTflite().convert(tmp_path / "filter.onnx", tmp_path, ConvertOptions(), None)


@pytest.mark.slow
def test_padded_pools_keep_their_values_in_int8(tmp_path):
    """Minus infinity as padding, in a tensor's range, leaves one step of int8 for everything else."""
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("ai_edge_litert")
    helper, pool = onnx.helper, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["conv"]),
        helper.make_node("MaxPool", ["conv"], ["first"], **pool),
        helper.make_node("Relu", ["first"], ["relu"]),
        helper.make_node("MaxPool", ["relu"], ["second"], **pool),
    ]
    kernel = np.random.default_rng(3).normal(0, 0.5, (8, 3, 1, 1)).astype(np.float32)
    image = helper.make_tensor_value_info("image", 1, [1, 3, 16, 16])
    result = helper.make_tensor_value_info("second", 1, [1, 8, 4, 4])
    graph = helper.make_graph(nodes, "g", [image], [result], [onnx.numpy_helper.from_array(kernel, "kernel")])
    source = tmp_path / "pools.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), source)
    samples = _samples((1, 3, 16, 16))
    (tmp_path / "out").mkdir()
    model = (
        OnnxToTflite()
        .convert(source, tmp_path / "out", ConvertOptions(precision="int8"), Calibration({"image": samples}))
        .model
    )
    session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    with for_format("tflite").open(Artifact.open(model), RunOptions()) as lite:
        (taken,), (given,) = lite.inputs, lite.outputs
        for sample in samples:
            fed = quantize(np.ascontiguousarray(sample.transpose(0, 2, 3, 1)), taken)
            answer = dequantize(lite.run({taken.name: fed})[given.name], given.quantization)
            expected = session.run(None, {"image": sample})[0]
            answer = answer if answer.shape == expected.shape else answer.transpose(0, 3, 1, 2)
            assert np.abs(answer - expected).max() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inputs", "words"), [(["x"], "onnx2tf writes 1 of the 2 outputs of"), ([], "takes no inputs")]
)
def test_outputs_that_depend_on_no_input_are_reported(tmp_path, inputs, words):
    import onnx
    from onnx import TensorProto, helper

    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xyk"}
    constant = onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32)[None], "k")
    nodes = [helper.make_node("Relu", [name], ["y"]) for name in inputs]
    outputs = [values["y"], values["k"]] if inputs else [values["k"]]
    graph = helper.make_graph(nodes, "g", [values[name] for name in inputs], outputs, [constant])
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "constant.onnx")
    with pytest.raises(EngineError, match=words):
        OnnxToTflite().convert(tmp_path / "constant.onnx", tmp_path, ConvertOptions(), None)
