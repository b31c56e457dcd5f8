import json

import numpy as np
import pytest

from runtimes import artifact
from runtimes.artifact.manifest import Manifest, OutputMeaning, SelfCheck, TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.jobs import EngineOptions, MeasureJob
from runtimes.measurement import tensor_model

FEW = {"name": "published", "runs": 5, "pause_s": 0}
X = TensorSpec("x", "float32", (1, 3))


def silent(progress):
    assert progress["phase"]


@pytest.fixture
def bare(tmp_path):
    path = tmp_path / "model.null"
    path.write_bytes(b"x")
    return path


@pytest.fixture
def classifier(tmp_path):
    """An artifact of the null engine, which answers its input: here, the probabilities of three classes."""
    folder = tmp_path / "classifier"
    folder.mkdir()
    (folder / "model.null").write_bytes(b"x")
    (folder / "labels.txt").write_text("background\nmagpie\njay\n")
    samples = {"x": np.array([[[0.1, 0.7, 0.2]], [[0.0, 0.4, 0.6]]], np.float32)}
    manifest = Manifest(
        "classifier",
        "null",
        "fp32",
        "model.null",
        inputs=(X,),
        outputs=(X,),
        output=OutputMeaning("probability", 1, "labels.txt"),
        selfcheck=SelfCheck("max_abs", 0.1, "pictures"),
    )
    artifact.write(folder, manifest, samples, samples)
    return folder


def measured(path, **more):
    answer = tensor_model.measure(MeasureJob(str(path), **{"protocol": FEW, **more}), silent)
    return json.loads(json.dumps(answer, allow_nan=False))


def test_a_measurement_has_every_key_of_its_contract(bare):
    found = measured(bare, options=EngineOptions(threads=2))
    keys = """status protocol artifact runtime runtime_version format threads precision device settings samples_ms
    warmup_ms total_s load_ms import_ms first_ms peak_rss_bytes energy_j energy_source energy_note
    began_at other_cores conditions input output top raw"""
    assert set(keys.split()) <= set(found)
    assert found["status"] == "ok"
    assert found["threads"] == 2
    assert found["protocol"] == FEW
    assert len(found["samples_ms"]) == 5
    assert found["total_s"] == pytest.approx(sum(found["samples_ms"]) / 1e3)
    assert found["warmup_ms"] == [found["first_ms"]]
    assert set(found["conditions"]) == {"before", "after"}
    assert found["peak_rss_bytes"] > 1e6
    assert (found["energy_j"] is None) == bool(found["energy_note"])


def test_a_bare_file_gets_seeded_numbers_and_its_answer_means_nothing(bare):
    first, second = measured(bare), measured(bare)
    assert first["input"]["kind"] == "synthetic"
    assert first["input"] == second["input"]
    assert first["output"] == {"name": "x", "kind": None}
    assert first["top"] == []
    assert first["raw"] is None


def test_an_artifact_gets_the_first_sample_of_its_own_self_check(classifier):
    found = measured(classifier)
    assert found["input"]["kind"] == "picture"
    assert found["output"]["kind"] == "probability"
    assert found["precision"] == "fp32"
    assert found["top"][0] == {"index": 0, "label": "magpie", "probability": pytest.approx(0.7)}
    assert found["raw"] == pytest.approx(0.7)


def test_given_inputs_are_passed_and_evaluated_under_any_name(classifier, tmp_path):
    given, results = tmp_path / "in.npz", tmp_path / "out.npz"
    samples = np.array([[[0.1, 0.2, 0.7]], [[0.5, 0.3, 0.2]]], np.float32)
    np.savez(given, **{"serving_default_x:0": samples})
    found = measured(classifier, inputs=str(given), input_kind="picture", evaluate=str(given), outputs=str(results))
    assert found["top"][0]["label"] == "jay"
    np.testing.assert_array_equal(np.load(results)["x"], samples)


def test_an_answer_that_is_no_number_has_no_score(classifier, tmp_path):
    given = tmp_path / "nan.npz"
    np.savez(given, x=np.full((1, 1, 3), np.nan, np.float32))
    found = measured(classifier, inputs=str(given))
    assert found["top"] == []
    assert found["raw"] is None


def test_inputs_that_do_not_fit_are_refused(bare, tmp_path):
    given = tmp_path / "in.npz"
    np.savez(given, x=np.zeros((2, 7), np.float32))
    with pytest.raises(InputError, match="'x' is float32"):
        measured(bare, inputs=str(given))


def test_inputs_without_samples_are_refused(bare, tmp_path):
    given = tmp_path / "in.npz"
    np.savez(given, x=np.zeros((0, 1), np.float32))
    with pytest.raises(InputError, match=r"\[0\] samples"):
        measured(bare, inputs=str(given))


def test_an_unknown_protocol_is_refused_before_the_model_is_opened(tmp_path):
    with pytest.raises(UsageError, match="no protocol"):
        tensor_model.measure(MeasureJob(str(tmp_path / "absent"), protocol={"name": "quick"}), silent)


def test_a_free_size_is_not_measured_as_1_but_asked_for(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, path = onnx.helper, tmp_path / "free.onnx"
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"]) for name in "xy"
    ]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    with pytest.raises(UsageError, match="the size of input 'x' is free") as refusal:
        measured(path)
    assert "such as --shape x=1x3x224x224" in refusal.value.hint
    assert measured(path, shapes=("x=1x3x16x24",))["status"] == "ok"
