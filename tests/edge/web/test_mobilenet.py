"""MobileNetV2 with its real weights: the browser gives the native engine's answers, bit for bit."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="Pillow is not installed")
pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")

import edge
from edge.conversion.datasets import ConversionInputs
from edge.inference.images import load_all
from edge.inference.preprocessing import PreprocessOptions
from edge.table.mobilenet_v2 import build
from edge.table.mobilenet_v2.weights import weights_of
from edge.web.chromium import run_page
from edge.web.jobs import PageJob
from runtimes.arrays import save_arrays
from runtimes.artifact import Artifact
from runtimes.registry import open_session
from runtimes.tensors import pixels_to_input
from runtimes.verification.selfcheck import answers
from tests.npm import need_engines

MAX_BYTES, MAX_BYTES_W8 = 15_000_000, 8_000_000
MAGPIE = 18


def test_int8_answers_all_pictures_as_the_native_engine_does(data: Path, browser, tmp_path: Path) -> None:
    need_engines()
    inputs = ConversionInputs(
        preprocess_options=PreprocessOptions(preset="tflite-uint8"),
        labels=data / "mobilenet_v2" / "imagenet_labels_1001.txt",
        kind="probability",
        label_offset=1,
    )
    source = data / "mobilenet_v2" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
    made = edge.convert(source, tmp_path / "made", device="browser", inputs=inputs).artifact
    assert sum(path.stat().st_size for path in made.rglob("*") if path.is_file()) < MAX_BYTES
    artifact = Artifact.open(made)
    preprocess, spec = artifact.manifest.preprocess, artifact.manifest.inputs[0]
    pictures = [*(data / "imagenet" / "benchmark").iterdir(), *sorted((data / "imagenet" / "evaluation").iterdir())]
    pixels = load_all(pictures, preprocess)
    tensors = np.stack([pixels_to_input(picture, spec, preprocess) for picture in pixels])
    save_arrays(tmp_path / "pictures.npz", {spec.name: tensors})
    protocol = {"name": "published", "runs": 3, "pause_s": 0}
    job = PageJob(kind="measure", device="cpu", threads=1, protocol=protocol, evaluate=tmp_path / "pictures.npz")
    answer = run_page(artifact, job)
    found = np.stack([np.frombuffer(base64.b64decode(row[0]), "<f4") for row in answer["outputs"]])
    with open_session(artifact) as session:
        (native,) = answers(session, {spec.name: tensors}).values()
    assert np.array_equal(found, native.reshape(found.shape))
    assert found[0].argmax() - 1 == MAGPIE


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' own, from NumPy 2
def test_w8_on_onnx_runtime_web_is_a_small_download_that_knows_the_magpie(data: Path, browser, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    need_engines()
    weights = weights_of(data / "mobilenet_v2" / "mobilenet_v2_1.0_224_imagenet1001.safetensors")
    (tmp_path / "source").mkdir()
    source = build(tmp_path / "source", weights, "keras")
    inputs = ConversionInputs(
        preprocess_options=PreprocessOptions(preset="keras-mobilenet-v2"),
        labels=data / "mobilenet_v2" / "imagenet_labels_1001.txt",
        kind="probability",
        label_offset=1,
    )
    pictures = data / "imagenet" / "calibration"
    onnx = edge.convert(source, tmp_path / "onnx", format="onnx", inputs=inputs, calibration=pictures).artifact
    made = edge.convert(onnx, tmp_path / "made", device="browser", precision="w8", calibration=pictures).artifact
    artifact = Artifact.open(made)
    assert artifact.manifest.conversion["browser"]["engine"] == "ort_web"
    assert sum(path.stat().st_size for path in made.rglob("*") if path.is_file()) <= MAX_BYTES_W8
    (magpie,) = (data / "imagenet" / "benchmark").iterdir()
    spec, preprocess = artifact.manifest.inputs[0], artifact.manifest.preprocess
    tensors = pixels_to_input(load_all([magpie], preprocess)[0], spec, preprocess)[np.newaxis]
    save_arrays(tmp_path / "magpie.npz", {spec.name: tensors})
    protocol = {"name": "published", "runs": 3, "pause_s": 0}
    job = PageJob(kind="measure", device="cpu", threads=1, protocol=protocol, evaluate=tmp_path / "magpie.npz")
    answer = run_page(artifact, job)
    assert np.frombuffer(base64.b64decode(answer["outputs"][0][0]), "<f4").argmax() - 1 == MAGPIE
