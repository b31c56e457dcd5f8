"""TensorFlow SavedModels to TFLite and ONNX: named by the signature; what cannot be converted is refused."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.dataset import Calibration
from converters.library_calls import suppress_output
from converters.options import ConvertOptions
from converters.registry import all_converters
from runtimes.artifact import Artifact
from runtimes.errors import InputError, UsageError
from runtimes.registry import for_format, open_session
from runtimes.session import RunOptions

pytest.importorskip("tensorflow")
STEPS = {step.id: step for step in all_converters()}
GENERATOR = np.random.default_rng(0)
START = GENERATOR.bit_generator.state
FEEDS = {"left": GENERATOR.normal(size=(1, 4)).astype(np.float32), "right": np.ones((1, 6), np.float32)}


@pytest.fixture(autouse=True)
def same_numbers_in_any_order():
    GENERATOR.bit_generator.state = START


def write(path, function, **specs):
    """A SavedModel of one function of the named inputs."""
    with suppress_output():
        import tensorflow as tf

        module = tf.Module()
        module.weight = tf.Variable(GENERATOR.normal(size=(4, 6)).astype(np.float32))
        signature = {name: tf.TensorSpec(shape, tf.float32, name=name) for name, shape in specs.items()}
        module.call = tf.function(lambda **inputs: function(tf, module.weight, **inputs))
        concrete = module.call.get_concrete_function(**signature)
        tf.saved_model.save(module, str(path), signatures={"serving_default": concrete})
    return path


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two inputs and two outputs, the batch free."""

    def function(tf, weight, left, right):
        mixed = tf.nn.relu(left @ weight) + right
        return {"total": tf.reduce_sum(mixed, axis=1), "mixed": mixed}

    return write(tmp_path_factory.mktemp("saved") / "two", function, left=[None, 4], right=[None, 6])


def answers(model, feeds):
    artifact = Artifact.open(model)
    with suppress_output(), for_format(artifact.manifest.format).open(artifact, RunOptions()) as session:
        return session.run({spec.name: feeds[spec.name.split(":")[0]] for spec in session.inputs})


def needs(step):
    for requirement in step.requires:
        pytest.importorskip(requirement.module)


@pytest.mark.parametrize("name", ["savedmodel_to_onnx", "savedmodel_to_tflite"])
def test_several_inputs_and_outputs_keep_their_order(two, tmp_path, name):
    needs(STEPS[name])
    made = STEPS[name].convert(two, tmp_path, ConvertOptions(), None).model
    expected = answers(two, FEEDS)
    given = answers(made, FEEDS)
    assert list(expected) == ["mixed", "total"]
    for one, other in zip(expected.values(), given.values(), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_onnx_keeps_the_names_and_may_keep_the_batch_free(two, tmp_path):
    step = STEPS["savedmodel_to_onnx"]
    needs(step)
    made = step.convert(two, tmp_path, ConvertOptions(opset=13, batch=None), None).model
    with for_format("onnx").open(Artifact.open(made), RunOptions()) as session:
        assert [spec.name for spec in session.inputs] == ["left", "right"]
        assert [spec.name for spec in session.outputs] == ["mixed", "total"]
        assert isinstance(session.inputs[0].shape[0], str)


def test_int8_takes_calibration_by_name(two, tmp_path):
    step = STEPS["savedmodel_to_tflite"]
    samples = {"right": np.ones((8, 1, 6), np.float32), "left": GENERATOR.normal(size=(8, 1, 4)).astype(np.float32)}
    made = step.convert(two, tmp_path, ConvertOptions(precision="int8", io_dtype="float32"), Calibration(samples)).model
    expected, given = answers(two, FEEDS), answers(made, FEEDS)
    assert np.abs(next(iter(given.values())) - expected["mixed"]).max() < 0.1


@pytest.mark.parametrize("name", ["savedmodel_to_onnx", "savedmodel_to_tflite"])
def test_a_model_that_writes_files_is_refused(tmp_path, name):
    needs(STEPS[name])
    place = tmp_path / "written"

    def function(tf, weight, left):
        tf.io.write_file(str(place), "sprung")
        return {"answer": left @ weight}

    model = write(tmp_path / "evil", function, left=[1, 4])
    place.unlink(missing_ok=True)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match="WriteFile") as caught:
        STEPS[name].convert(model, out, ConvertOptions(), None)
    assert "\n" not in caught.value.message
    assert not place.exists()
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(("shapes", "wanted"), [((), (1, "dim1", 4)), (("left=1x6x4",), (1, 6, 4))])
def test_free_sizes_stay_free_or_are_fixed(tmp_path, shapes, wanted):
    def function(tf, weight, left):
        return {"answer": tf.reduce_mean(left, axis=1) @ weight}

    model = write(tmp_path / "free", function, left=[1, None, 4])
    made = STEPS["savedmodel_to_tflite"].convert(model, tmp_path, ConvertOptions(shapes=shapes), None).model
    with open_session(Artifact.open(made)) as session:
        assert session.inputs[0].shape == wanted


def test_an_opset_that_tf2onnx_lacks_is_refused(two, tmp_path):
    needs(STEPS["savedmodel_to_onnx"])
    with pytest.raises(UsageError, match="cannot write opset 20"):
        STEPS["savedmodel_to_onnx"].convert(two, tmp_path, ConvertOptions(opset=20), None)


def test_variables_of_an_optimizer_are_left_out(tmp_path):
    """TensorFlow's loader fails to restore them into an optimizer that is not there."""
    path = write(tmp_path / "trained", lambda tf, weight, x: {"y": x @ weight}, x=[1, 4])
    with suppress_output():
        import tensorflow as tf
        from tensorflow.core.protobuf import saved_model_pb2

        weight = tf.saved_model.load(str(path)).weight.numpy()
    definition = saved_model_pb2.SavedModel()
    definition.ParseFromString((path / "saved_model.pb").read_bytes())
    nodes = definition.meta_graphs[0].object_graph_def.nodes
    variable = next(place for place, node in enumerate(nodes) if node.HasField("variable"))
    momentum, optimizer = len(nodes), len(nodes) + 1
    nodes.add().CopyFrom(nodes[variable])
    nodes.add().user_object.identifier = "optimizer"
    nodes[0].children.add(node_id=optimizer, local_name="optimizer")
    slot = {"original_variable_node_id": variable, "slot_name": "m", "slot_variable_node_id": momentum}
    nodes[optimizer].slot_variables.add(**slot)
    (path / "saved_model.pb").write_bytes(definition.SerializeToString())
    with pytest.raises(AttributeError, match="add_slot"), suppress_output():
        tf.saved_model.load(str(path))
    feeds = {"x": np.float32([[1, -2, 3, 0.5]])}
    np.testing.assert_allclose(answers(path, feeds)["y"], feeds["x"] @ weight, atol=1e-5)
    result = STEPS["savedmodel_to_tflite"].convert(path, tmp_path, ConvertOptions(), None).model
    np.testing.assert_allclose(answers(result, feeds)["y"], feeds["x"] @ weight, atol=1e-5)
