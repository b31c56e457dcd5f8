"""PyTorch: exported programs are loaded as data, and run the same in either layout."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.errors import EngineError, InputError
from runtimes.session import RunOptions, example_feeds

torch = pytest.importorskip("torch")


class Trap:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def rewritten(source, target, changes):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            for ending, change in changes.items():
                content = change(content) if name.endswith(ending) else content
            new.writestr(name, content)
    return Artifact.open(target)


def open_it(model, **options):
    return registry.tensor_engine("torch").open(model, RunOptions(**options))


def refused(model):
    with pytest.raises(InputError) as caught:
        open_it(model)
    assert str(model.model) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_program_of_images_answers_the_same_in_both_layouts(tmp_path):
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3), torch.nn.Flatten()]
    network = torch.nn.Sequential(*layers).eval()
    program = torch.export.export(network, (torch.zeros(1, 3, 16, 16),))
    torch.export.save(program, str(tmp_path / "images.pt2"))
    model = Artifact.open(tmp_path / "images.pt2")
    answers = []
    for layout in ("channels_last", "contiguous"):
        with open_it(model, settings={"layout": layout}) as session:
            assert session.inputs[0].shape == (1, 3, 16, 16)
            answers.append(next(iter(session.run(example_feeds(session.inputs)).values())))
            assert answers[-1].flags.c_contiguous
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5, atol=1e-6)


def test_threads_are_set_and_reported(models):
    before = torch.get_num_threads()
    try:
        with open_it(Artifact.open(models / "torch.pt2"), threads=1) as session:
            assert session.threads == 1 == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def test_a_pickle_among_the_sample_inputs_is_not_opened(models, tmp_path):
    trap = tmp_path / "sprung"
    content = pickle.dumps(Trap(trap), protocol=2)
    model = rewritten(models / "torch.pt2", tmp_path / "m.pt2", {"sample_inputs/model.pt": lambda _: content})
    assert "the pickle 'data/sample_inputs/model.pt'" in refused(model)
    assert not trap.exists()


def test_an_operator_outside_pytorchs_own_is_not_called(models, tmp_path):
    change = {
        "model.json": lambda text: text.replace(b"torch.ops.aten.matmul.default", b"torch.serialization.os.system")
    }
    assert "torch.serialization.os.system" in refused(rewritten(models / "torch.pt2", tmp_path / "m.pt2", change))


def test_guards_in_the_file_are_not_compiled(models, tmp_path):
    trap = tmp_path / "sprung"
    guard = f"__import__('pathlib').Path('{trap}').touch() or True"
    change = {"model.json": lambda text: text.replace(b'"guards_code": [', f'"guards_code": ["{guard}", '.encode())}
    model = rewritten(models / "torch.pt2", tmp_path / "m.pt2", change)
    with zipfile.ZipFile(model.model) as archive:
        assert guard.encode() in archive.read("torch/models/model.json")
    with open_it(model) as session:
        session.run(example_feeds(session.inputs))
    assert not trap.exists()


def test_a_state_dict_is_not_a_program(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.pt2")
    assert "the entry 'data.pkl'" in refused(Artifact.open(tmp_path / "weights.pt2"))


def test_the_layout_of_older_releases_is_refused_with_a_remedy(tmp_path):
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_state_dict.pt", pickle.dumps(Trap(tmp_path / "sprung")))
    assert "an older layout" in refused(Artifact.open(tmp_path / "old.pt2"))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("cuda", "words"), [(None, "for the CPU only"), ("12.8", "finds no NVIDIA GPU")])
def test_a_missing_gpu_is_reported(models, monkeypatch, cuda, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(EngineError, match=words):
        open_it(Artifact.open(models / "torch.pt2"), device="cuda")


def test_a_failing_inference_is_an_error_of_the_engine(models):
    failing = pytest.raises(EngineError, match="torch failed to run the model")
    with open_it(Artifact.open(models / "torch.pt2")) as session, failing as caught:
        session.run({"wide": np.zeros((2, 4), np.float32), "narrow": np.zeros((3, 3), np.float32)})
    assert "\n" not in caught.value.message
