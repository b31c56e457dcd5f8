"""An int8 output that needs two scales is split where no layer can stay in float, and joined again by the session."""

from __future__ import annotations

import numpy as np
import pytest

from converters.library_calls import suppress_output
from converters.onnx.output_split import split_onnx
from converters.onnx_to_onnx import OnnxToOnnx
from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.output_split import split_keras
from converters.pipeline.request import ConvertRequest
from runtimes.artifact import Artifact, Join, Manifest
from runtimes.errors import ProofError
from runtimes.joined_session import JoinedSession
from runtimes.registry import open_session
from runtimes.verification.selfcheck import check

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, numpy_helper, NODE, FLOAT = onnx.helper, onnx.numpy_helper, onnx.helper.make_node, onnx.TensorProto.FLOAT
TURN = NODE("Transpose", ["whole"], ["out"], perm=[0, 2, 3, 1])
MOVED = {
    "at the output": ([], "out", [1, 7, 8, 8], 1),
    "behind a Transpose": ([TURN], "whole", [1, 8, 8, 7], 3),
}


def detector(path, after=(), concat="out", shape=(1, 7, 8, 8), axis=1):
    """Boxes in pixels and scores from 0 to 1 in one output."""
    weights = (np.random.default_rng(3).standard_normal((7, 3, 4, 4)) * 0.15).astype(np.float32)
    nodes = [
        NODE("Conv", ["x", "w"], ["c"], strides=[4, 4], kernel_shape=[4, 4]),
        NODE("Split", ["c", "sizes"], ["b", "s"], axis=1),
        NODE("Sigmoid", ["b"], ["b1"]),
        NODE("Mul", ["b1", "k"], ["b2"]),
        NODE("Sigmoid", ["s"], ["s1"]),
        NODE("Concat", ["b2", "s1"], [concat], axis=axis),
        *after,
    ]
    constants = {"w": weights, "sizes": np.array([4, 3]), "k": np.float32(640)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("out", FLOAT, list(shape))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)
    return path


def artifact(path):
    return Artifact(path.parent, Manifest(path.stem, "onnx", "fp32", path.name))


@pytest.mark.parametrize("place", MOVED)
@pytest.mark.parametrize("axis", [1, -3])
def test_the_parts_joined_are_the_output(tmp_path, place, axis):
    after, concat, shape, joined = MOVED[place]
    model = detector(tmp_path / "m.onnx", after, concat, shape, axis)
    joins = split_onnx(model, {"out"}, tmp_path / "split.onnx")
    assert joins == (Join("out", joined, ("out_part0", "out_part1")),)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)}
    with open_session(artifact(model)) as whole, open_session(artifact(tmp_path / "split.onnx")) as parts:
        assert np.array_equal(JoinedSession(parts, joins).run(feeds)["out"], whole.run(feeds)["out"])
    assert "Concat" not in {node.op_type for node in onnx.load(tmp_path / "split.onnx").graph.node}


def test_an_output_without_a_concat_is_not_split(tmp_path):
    after = [NODE("Relu", ["whole"], ["out"])]
    assert split_onnx(detector(tmp_path / "m.onnx", after, "whole"), {"out"}, tmp_path / "split.onnx") == ()
    assert not (tmp_path / "split.onnx").exists()


@pytest.fixture
def request_of(tmp_path, monkeypatch):
    """A conversion to int8 by a step that cannot keep a layer in float, as for the Edge TPU."""
    monkeypatch.setattr(OnnxToOnnx, "head_layers", lambda self, model, result: ())
    generator = np.random.default_rng(3)
    pictures = generator.uniform(0, 1, (60, 3, 1, 1)) + generator.standard_normal((60, 3, 32, 32)) * 0.2
    np.savez(tmp_path / "samples.npz", x=pictures.astype(np.float32))
    (tmp_path / "out").mkdir()

    def make(**options):
        return ConvertRequest(
            source=detector(tmp_path / "m.onnx"),
            steps=("onnx_to_onnx",),
            format="onnx",
            options=ConvertOptions(precision="int8", **options),
            out=tmp_path / "out",
            scratch=tmp_path / "scratch",
            samples=tmp_path / "samples.npz",
        )

    return make


def test_boxes_and_scores_get_a_scale_each(request_of, tmp_path):
    result = convert(request_of(), lambda progress: None)
    assert any("outputs are split" in note for note in result.notes)
    written = Artifact.open(tmp_path / "out")
    assert [join.output for join in written.manifest.join] == ["out"]
    assert [(spec.name, spec.shape) for spec in written.manifest.outputs] == [("out", (1, 7, 8, 8))]
    written.verify_digests()
    feeds = {"x": np.load(tmp_path / "samples.npz")["x"][:1]}
    with open_session(written) as session, open_session(artifact(tmp_path / "m.onnx")) as source:
        assert check(written, session).passed
        given, expected = (one.run(feeds)["out"] for one in (session, source))
    assert given.shape == expected.shape
    assert np.abs(given[:, 4:] - expected[:, 4:]).max() < 0.05  # scores are alive
    assert np.abs(given[:, :4] - expected[:, :4]).max() < 20


def test_without_repair_it_fails(request_of):
    with pytest.raises(ProofError, match=r"output 'out', channels 4\.\.6"):
        convert(request_of(no_repair=True), lambda progress: None)


def test_a_wrong_join_is_found(request_of, tmp_path):
    """The planted fault: the same parts in another order."""
    convert(request_of(), lambda progress: None)
    document = tmp_path / "out" / "manifest.json"
    parts = Artifact.open(tmp_path / "out").manifest.join[0].parts
    text = document.read_text(encoding="utf-8")
    place = text.index('"join"')
    swapped = text[place:].replace(f'"{parts[0]}"', '"?"').replace(f'"{parts[1]}"', f'"{parts[0]}"')
    document.write_text(text[:place] + swapped.replace('"?"', f'"{parts[1]}"'), encoding="utf-8")
    written = Artifact.open(tmp_path / "out")
    with open_session(written) as session:
        assert not check(written, session).passed


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' own, from NumPy 2
def test_a_keras_output_is_split_at_its_last_concatenate(tmp_path):
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    signal = keras.Input((6,), name="signal")
    boxes = keras.layers.Rescaling(640.0)(keras.layers.Dense(4, activation="sigmoid")(signal))
    scores = keras.layers.Dense(3, activation="sigmoid")(signal)
    model = keras.Model(signal, keras.layers.Concatenate(name="out")([boxes, scores]))
    with suppress_output():
        model.save(tmp_path / "m.keras")
    joins = split_keras(tmp_path / "m.keras", {"out"}, tmp_path / "split.keras")
    assert joins == (Join("out", 1, ("out_part0", "out_part1")),)
    with suppress_output():
        parts = keras.saving.load_model(tmp_path / "split.keras", compile=False)
    values = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
    joined = np.concatenate([one.numpy() for one in parts([values])], axis=1)
    assert np.allclose(joined, model(values).numpy(), atol=1e-6)
    assert split_keras(tmp_path / "m.keras", {"elsewhere"}, tmp_path / "again.keras") == ()
