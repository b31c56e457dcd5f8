"""A result that is right on average and wrong in a part of an output fails, and the part is named."""

from __future__ import annotations

import numpy as np
import pytest

from converters.keras_to_tflite import KerasToTflite
from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.request import ConvertRequest
from runtimes.artifact import Artifact
from runtimes.errors import ProofError
from runtimes.registry import open_session
from runtimes.verification.selfcheck import check

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, numpy_helper, NODE = onnx.helper, onnx.numpy_helper, onnx.helper.make_node
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def silent(progress) -> None:
    pass


def normal(*shape, scale=1.0, seed=3):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def write(path, nodes, out, constants, kind=FLOAT):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("out", kind, out)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)
    return path


@pytest.fixture
def samples(tmp_path):
    pictures = np.random.default_rng(3).uniform(0, 1, (60, 3, 1, 1)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=pictures + normal(60, 3, 32, 32, scale=0.2))
    return tmp_path / "samples.npz"


@pytest.fixture
def detector(tmp_path):
    """Boxes in pixels and scores from 0 to 1 in one output."""
    nodes = [
        NODE("Conv", ["x", "w"], ["c"], strides=[4, 4], kernel_shape=[4, 4]),
        NODE("Split", ["c", "sizes"], ["b", "s"], axis=1),
        NODE("Sigmoid", ["b"], ["b1"]),
        NODE("Mul", ["b1", "k"], ["b2"]),
        NODE("Sigmoid", ["s"], ["s1"]),
        NODE("Concat", ["b2", "s1"], ["out"], axis=1),
    ]
    constants = {"w": normal(7, 3, 4, 4, scale=0.15), "sizes": np.array([4, 3]), "k": np.float32(640)}
    return write(tmp_path / "detector.onnx", nodes, [1, 7, 8, 8], constants)


@pytest.fixture
def label_map(tmp_path):
    """Class ids of which 1 and 2 lie close together by `gap`, away from 0."""

    def make(gap):
        a, u = normal(3, 3, 3, seed=5), normal(3, 3, 3, seed=6)
        weights = np.stack([-4 * a, 4 * a - gap * u, 4 * a + gap * u])
        nodes = [
            NODE("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
            NODE("ArgMax", ["c"], ["out"], axis=1, keepdims=0),
        ]
        return write(tmp_path / "labels.onnx", nodes, [1, 32, 32], {"w": weights}, INT64)

    return make


@pytest.fixture
def request_for(tmp_path, samples):
    def make(source, precision="int8", **options):
        (tmp_path / "out").mkdir()
        return ConvertRequest(
            source=source,
            steps=("onnx_to_onnx",),
            format="onnx",
            options=ConvertOptions(precision=precision, **options),
            out=tmp_path / "out",
            scratch=tmp_path / "scratch",
            samples=samples,
        )

    return make


def on_the_device(folder):
    artifact = Artifact.open(folder)
    with open_session(artifact) as session:
        return check(artifact, session)


def test_scores_that_died_beside_boxes_in_pixels_fail_by_name(detector, request_for):
    request = request_for(detector, no_repair=True)
    seen = []
    with pytest.raises(ProofError, match=r"output 'out', channels 4\.\.6") as caught:
        convert(request, lambda progress: seen.append(progress["doing"]))
    assert "done" not in seen
    assert caught.value.details["worst_slice"]["first"] == 4
    assert "into a separate output" in caught.value.hint
    proof = Artifact.open(request.out).manifest.proof
    assert proof["slices"]["worst"] == "output 'out', channels 4..6"
    verdict = on_the_device(request.out)
    assert not verdict.passed
    assert "channels 4..6" in verdict.message


def scores_of(folder, pictures):
    """The scores of a model file, computed by ONNX Runtime alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"x": one[None]})[0][:, 4:] for one in pictures])


def test_scores_beside_boxes_in_pixels_stay_alive_where_the_last_layers_stay_in_float(detector, request_for, samples):
    request = request_for(detector)
    result = convert(request, silent)
    assert result.proof["repair"] == {"lost": "output 'out', channels 4..6", "kept": ["out"]}
    assert any("stay in float" in note for note in result.notes)
    pictures = np.load(samples)["x"][4::5]
    expected, given = (scores_of(path, pictures) for path in (detector, request.out / "detector.onnx"))
    assert np.sqrt(np.square(expected - given).mean()) < 0.02
    assert (given.std(axis=0) > 0).all()
    kinds = {node.op_type for node in onnx.load(request.out / "detector.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    assert on_the_device(request.out).passed
    artifact = Artifact.open(request.out)
    artifact.verify_digests()
    assert artifact.manifest.conversion["options"]["keep"] == ["out"]


def test_a_single_layer_whose_channels_differ_in_scale_stays_in_float(tmp_path, request_for):
    nodes = [
        NODE("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        NODE("Sigmoid", ["c"], ["s"]),
        NODE("Mul", ["s", "k"], ["out"]),
    ]
    factor = np.array([640, 640, 1], np.float32).reshape(1, 3, 1, 1)
    source = write(tmp_path / "one.onnx", nodes, [1, 3, 30, 30], {"w": normal(3, 3, 3, 3, scale=0.2), "k": factor})
    assert convert(request_for(source), silent).proof["repair"]["lost"] == "output 'out', channel 2"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' own, of numpy 2
@pytest.mark.parametrize("source", ["keras", "tflite"])
def test_tflite_keeps_the_scores_too(tmp_path, source):
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(3)
    x = keras.layers.Input((16, 16, 3), name="x")
    boxes = keras.layers.Rescaling(640.0)(keras.layers.Conv2D(4, 4, strides=4, activation="sigmoid")(x))
    scores = keras.layers.Conv2D(3, 4, strides=4, activation="sigmoid")(x)
    keras.Model(x, keras.layers.Concatenate()([boxes, scores])).save(tmp_path / "m.keras")
    np.savez(tmp_path / "samples.npz", x=normal(40, 16, 16, 3))
    (tmp_path / "out").mkdir()
    if source == "tflite":
        pytest.importorskip("ai_edge_quantizer")
        KerasToTflite().convert(tmp_path / "m.keras", tmp_path, ConvertOptions(), None)
    request = ConvertRequest(
        source=tmp_path / f"m.{source}",
        steps=(f"{source}_to_tflite",),
        format="tflite",
        options=ConvertOptions(precision="int8"),
        out=tmp_path / "out",
        scratch=tmp_path / "scratch",
        samples=tmp_path / "samples.npz",
    )
    assert convert(request, silent).proof["repair"]["lost"].endswith("channels 4..6")
    artifact = Artifact.open(request.out)
    inputs = {"keras": "uint8", "tflite": "int8"}
    assert (artifact.manifest.inputs[0].dtype, artifact.manifest.outputs[0].dtype) == (inputs[source], "float32")
    assert on_the_device(request.out).passed


def test_the_same_detector_passes_in_fp16(detector, request_for):
    request = request_for(detector, "fp16")
    slices = convert(request, silent).proof["slices"]
    assert (slices["failed"], slices["worst"]) == ([], None)
    assert slices["checked"] >= 7
    assert on_the_device(request.out).passed


def test_labels_that_lie_close_together_fail_by_name(label_map, request_for):
    request = request_for(label_map(0.002))
    with pytest.raises(ProofError, match=r"output 'out', label [12]: .* % of [\d,]+ elements kept"):
        convert(request, silent)
    verdict = on_the_device(request.out)
    assert not verdict.passed
    assert "label" in verdict.message


def test_labels_that_lie_apart_pass(label_map, request_for):
    request = request_for(label_map(4.0))
    proof = convert(request, silent).proof
    assert set(proof["metrics"]) == {"labels_equal"}
    assert proof["labels"]["out"]["equal"] > 0.97
    verdict = on_the_device(request.out)
    assert verdict.passed, verdict.message
    assert "labels" in verdict.message
