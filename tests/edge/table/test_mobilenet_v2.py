from __future__ import annotations

import ast
import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from converters.library_calls import suppress_output
from edge.table import mobilenet_v2
from edge.table.mobilenet_v2 import WeightsOrigin, find_weights, generated_picture, load_weights
from edge.table.mobilenet_v2.architecture import BLOCKS, convolutions, tensor_shapes
from edge.table.mobilenet_v2.random_weights import random_weights
from edge.table.mobilenet_v2.weights import WEIGHTS_FILE, download, keras_cache
from runtimes.arrays import Array, Arrays
from runtimes.errors import InputError, UsageError
from tests.real_data import real_data

save_file = pytest.importorskip("safetensors.numpy").save_file


@pytest.fixture(scope="module")
def drawn() -> Arrays:
    return random_weights(0, 1001)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder and an empty Keras cache, so that nothing of this machine is found."""
    monkeypatch.setenv("EDGE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path


def _pictures(seeds: range) -> Array:
    return np.stack([generated_picture(seed) for seed in seeds]).astype(np.float32) / 127.5 - 1


def _torch_answers(weights: Arrays, pictures: Array, logits: bool = False) -> Array:
    torch = pytest.importorskip("torch")
    from edge.table.mobilenet_v2.torch_model import build_torch

    model = build_torch(weights)
    turned = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    answer: Array = (model[:-1] if logits else model)(turned).numpy()
    return answer


def _keras_answers(weights: Arrays, pictures: Array, logits: bool = False) -> Array:
    with suppress_output():
        pytest.importorskip("tensorflow")
        keras = pytest.importorskip("keras")
        from edge.table.mobilenet_v2.keras_model import build_keras

        model = build_keras(weights)
        if not logits:
            return np.asarray(model.predict(pictures, verbose=0))
        features = keras.Model(model.input, model.get_layer("pool").output).predict(pictures, verbose=0)
    return features @ weights["classifier.weight"].T + weights["classifier.bias"]


def test_the_architecture_has_the_parameters_of_the_paper() -> None:
    shapes = tensor_shapes(1001)
    assert (len(BLOCKS), len(convolutions()), len(shapes)) == (17, 52, 106)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 3_489_097
    assert sum(block.residual for block in BLOCKS) == 10


def test_a_weights_file_is_found_described_and_read(drawn: Arrays, elsewhere: Path) -> None:
    path = elsewhere / "own.safetensors"
    save_file(drawn, path)
    weights = find_weights(path)
    assert weights == WeightsOrigin(
        kind="file", path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), classes=1001
    )
    assert weights.trained
    assert weights.label_offset == 1
    read = load_weights(weights)
    assert all(np.array_equal(read[name], tensor) for name, tensor in drawn.items())


def test_the_data_folder_comes_before_keras_and_keras_before_a_draw(drawn: Arrays, elsewhere: Path) -> None:
    assert find_weights().kind == "random"
    keras_cache().parent.mkdir(parents=True)
    keras_cache().write_bytes(b"\x89HDF\r\n\x1a\n")
    assert find_weights().kind == "keras"
    shared = elsewhere / "data" / WEIGHTS_FILE
    shared.parent.mkdir(parents=True)
    save_file(drawn, shared)
    assert find_weights().path == shared


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("blocks.3.expand.bias"), "lacks the tensor 'blocks.3.expand.bias'"),
        (lambda tensors: tensors.update({"head.bias": np.zeros(7, np.float32)}), r"'head.bias' is \[7\], not \[1280\]"),
        (lambda tensors: tensors.update({"lora": np.zeros(1, np.float32)}), "has no tensor 'lora'"),
        (lambda tensors: tensors.update({"stem.bias": np.zeros(32, np.int32)}), "'stem.bias' is int32"),
        (lambda tensors: tensors.update({"stem.bias": np.full(32, np.nan, np.float32)}), "'stem.bias' holds values"),
        (lambda tensors: tensors.update({"classifier.bias": np.zeros(10, np.float32)}), "'classifier.bias' is"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change: object, words: str, drawn: Arrays, tmp_path: Path) -> None:
    tensors = dict(drawn)
    change(tensors)  # type: ignore[operator]
    path = tmp_path / "wrong.safetensors"
    save_file(tensors, path)
    with pytest.raises(InputError, match=words):
        load_weights(find_weights(path))


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"\xff" * 100, b'\x10\x00\x00\x00\x00\x00\x00\x00{"a": 1}}}}}}}}}']
)
def test_a_broken_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable safetensors file") as caught:
        find_weights(path)
    assert "\n" not in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.safetensors does not exist"):
        find_weights(tmp_path / "none.safetensors")


def test_a_download_lands_in_keras_cache(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"\x89HDF\r\n\x1a\nweights"
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO(content))
    assert download() == keras_cache()
    assert keras_cache().read_bytes() == content


@pytest.mark.parametrize("answer", [URLError("no network"), TimeoutError(), io.BytesIO(b"<html>please log in</html>")])
def test_no_network_is_no_error_and_leaves_nothing(
    answer: object, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def urlopen(url: str, timeout: float) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    assert download() is None
    assert list(keras_cache().parent.iterdir()) == []


def test_random_weights_are_seeded_and_make_the_answer_depend_on_the_picture(drawn: Arrays) -> None:
    again = random_weights(0, 1001)
    assert all(np.array_equal(again[name], tensor) for name, tensor in drawn.items())
    assert {tensor.dtype for tensor in drawn.values()} == {np.dtype(np.float32)}
    answers = _torch_answers(drawn, _pictures(range(100, 116)))
    assert len(set(answers.argmax(axis=1))) >= 3
    assert np.ptp(answers, axis=0).max() > 0.3


def test_a_generated_picture_is_the_same_for_its_seed_only() -> None:
    picture = generated_picture(5)
    assert (picture.dtype, picture.shape) == (np.uint8, (224, 224, 3))
    assert np.array_equal(picture, generated_picture(5))
    assert not np.array_equal(picture, generated_picture(6))


def test_keras_and_pytorch_agree(drawn: Arrays) -> None:
    pictures = _pictures(range(100, 108))
    keras, torch = (answers(drawn, pictures) for answers in (_keras_answers, _torch_answers))
    assert np.abs(keras - torch).max() < 5e-5
    assert np.allclose(keras.sum(axis=1), 1, atol=1e-5)


@pytest.mark.data
def test_keras_and_pytorch_agree_in_the_logits_of_the_trained_network() -> None:
    weights = load_weights(find_weights(real_data(WEIGHTS_FILE)))
    pictures = _pictures(range(8))
    logits = [answers(weights, pictures, logits=True) for answers in (_keras_answers, _torch_answers)]
    # Measured: 2e-5 on a CPU with AVX2, 7e-5 on one with AVX-512.
    assert np.abs(logits[0] - logits[1]).max() < 1e-4


def test_keras_own_file_is_read_and_its_batch_norm_folded(tmp_path: Path) -> None:
    with suppress_output():
        pytest.importorskip("tensorflow")
        keras = pytest.importorskip("keras")
        h5py = pytest.importorskip("h5py")
        from keras.src.legacy.saving import legacy_h5_format

        keras.utils.set_random_seed(3)
        model = keras.applications.MobileNetV2(weights=None)
        generator = np.random.default_rng(3)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.set_weights([generator.uniform(0.5, 1.5, array.shape) for array in layer.get_weights()])
        path = tmp_path / "keras.h5"
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
        pictures = _pictures(range(2))
        expected = model.predict(pictures, verbose=0)
    weights = find_weights(path)
    assert (weights.kind, weights.classes, weights.label_offset, weights.trained) == ("keras", 1000, 0, True)
    folded = load_weights(weights)
    assert {name: tensor.shape for name, tensor in folded.items()} == tensor_shapes(1000)
    assert np.abs(_keras_answers(folded, pictures) - expected).max() < 1e-5


def test_another_h5_file_is_refused(tmp_path: Path) -> None:
    with suppress_output():
        pytest.importorskip("tensorflow")
    path = tmp_path / "other.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(1000))
    with pytest.raises(InputError, match=r"other\.h5 cannot be read as Keras' MobileNetV2 weights"):
        load_weights(find_weights(path))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_random_weights_do_not_depend_on_the_number_of_threads(drawn: Arrays) -> None:
    command = (
        "import hashlib; from edge.table.mobilenet_v2.random_weights import random_weights; "
        "print({name: hashlib.sha256(tensor).hexdigest() for name, tensor in random_weights(0, 1001).items()})"
    )
    expected = {name: hashlib.sha256(tensor).hexdigest() for name, tensor in drawn.items()}
    for threads in ("1", "2", "3"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", command], env=environment, check=True, capture_output=True)
        assert ast.literal_eval(done.stdout.decode()) == expected, threads


@pytest.mark.parametrize("framework", mobilenet_v2.FRAMEWORKS)
def test_a_built_model_has_the_same_bytes_in_every_process(framework: str, tmp_path: Path) -> None:
    with suppress_output():
        pytest.importorskip("tensorflow" if framework == "keras" else "torch")
    weights = WeightsOrigin(kind="random", path=None, sha256="", classes=1001)
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    made = mobilenet_v2.build(here, weights, framework)
    command = (
        "import sys; from pathlib import Path; from edge.table import mobilenet_v2 as m; "
        "m.build(Path(sys.argv[1]), m.WeightsOrigin(kind='random', path=None, sha256='', classes=1001), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", command, there, framework], check=True, capture_output=True)
    assert _digest(there / made.name) == _digest(made)  # of megabytes pytest would write the difference
    labels = (here / mobilenet_v2.LABELS).read_text(encoding="utf-8").splitlines()
    assert len(labels) == 1001
    assert (labels[0], labels[19]) == ("background", "magpie")


def test_what_the_manifest_needs() -> None:
    weights = WeightsOrigin(kind="file", path=Path("x"), sha256="", classes=1000)
    assert mobilenet_v2.meaning(weights).label_offset == 0
    assert len(mobilenet_v2.labels(weights)) == 1000
    assert mobilenet_v2.preprocess("torch").layout == "NCHW"
    assert mobilenet_v2.preprocess("keras").layout == "NHWC"
    with pytest.raises(UsageError, match="not built for 'jax'"):
        mobilenet_v2.preprocess("jax")
