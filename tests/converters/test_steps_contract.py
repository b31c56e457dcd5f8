"""Every conversion step is held to the same rules, in each precision that it writes, on a small network."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from converters.calibration import Calibration
from converters.quiet import quiet
from converters.steps import Step, StepOptions, environments_of, find_steps, step_id, taken
from runtimes.arrays import Array
from runtimes.artifact import Artifact
from runtimes.errors import EngineMissing, InputError, UsageError
from runtimes.registry import for_format
from runtimes.session import RunOptions
from runtimes.tensors import dequantize, quantize

STEPS = {step_id(step): step for step in find_steps()}
CASES = [(name, precision) for name, step in STEPS.items() for precision in step.precisions]
# They run in environments of their own, which are slow to make.
ISOLATED = {name for name, step in STEPS.items() if environments_of(step, StepOptions())}
# How far a probability may be off, per precision.
LIMITS = {"fp32": 1e-5, "fp16": 2e-3, "w8": 0.03, "int8": 0.05}
# The small network takes pictures [1, 16, 16, 3]; where a source has channels first, they are turned.
SAMPLES = np.random.default_rng(0).uniform(-1, 1, (16, 1, 16, 16, 3)).astype(np.float32)

CONVERT = """
import json, sys
from pathlib import Path
import numpy as np
from converters.calibration import Calibration
from converters.steps import StepOptions, find_steps, step_id
steps = {step_id(step): step for step in find_steps()}
calibration = Calibration({"image": np.load(sys.argv[1])})
for name, precision, source, out in json.loads(sys.argv[2]):
    steps[name].convert(Path(source), Path(out), StepOptions(precision), calibration)
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small classifier in the formats that steps read, as far as their libraries are installed."""
    folder, found = tmp_path_factory.mktemp("sources"), {}
    if _installed("tensorflow", "keras"):
        found["keras"] = _small_keras(folder / "small.keras")
    if "keras" in found and _installed("tf2onnx", "onnx"):
        found["onnx"] = _made(STEPS["keras_to_onnx"].convert(found["keras"], folder, StepOptions(), None))
    if "keras" in found:  # full int8, as what takes TFLite takes it
        step, calibration = STEPS["keras_to_tflite"], Calibration({"image": SAMPLES})
        found["tflite"] = _made(step.convert(found["keras"], folder, StepOptions("int8"), calibration))
    if "keras" in found:
        found["savedmodel"] = _small_savedmodel(found["keras"], folder / "small.savedmodel")
    if _installed("torch"):
        found["pt2"] = _small_torch(folder / "small.pt2")
    return found


@pytest.fixture(scope="module")
def elsewhere(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """Everything converted in another process, as `<step>/<precision>/small.*`."""
    folder, jobs = tmp_path_factory.mktemp("elsewhere"), []
    for name, precision in CASES:
        if name in ISOLATED and not pytestconfig.getoption("--slow"):
            continue
        if STEPS[name].source in sources and _installed(*STEPS[name].requires):
            out = folder / name / precision
            out.mkdir(parents=True)
            jobs.append([name, precision, str(sources[STEPS[name].source]), str(out)])
    for turned in (False, True):
        part = [job for job in jobs if (STEPS[job[0]].source == "pt2") == turned]
        np.save(folder / "samples.npy", _turned(SAMPLES) if turned else SAMPLES)
        command = [sys.executable, "-c", CONVERT, folder / "samples.npy", json.dumps(part)]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def _installed(*libraries: str) -> bool:
    return all(find_spec(library) for library in libraries)


def _turned(samples: Array) -> Array:
    """[n, 1, height, width, 3] with channels first."""
    return np.ascontiguousarray(samples.transpose(0, 1, 4, 2, 3))


def _calibration(step: Step) -> Calibration:
    return Calibration({"image": _turned(SAMPLES) if step.source == "pt2" else SAMPLES})


def _made(result: object) -> Path:
    """The model file of a step that answers with it, or with more than it."""
    return Path(getattr(result, "model", result))  # type: ignore[arg-type]


def _small_keras(path: Path) -> Path:
    with quiet():
        import keras
        from keras import layers

        keras.utils.set_random_seed(1)
        image = keras.Input((16, 16, 3), name="image")
        signal = layers.Conv2D(8, 3, strides=2, padding="same", name="first")(image)
        signal = layers.ReLU(6.0, name="relu6")(layers.BatchNormalization(name="norm")(signal))
        signal = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(signal)
        signal = layers.ReLU(6.0, name="relu6_2")(layers.BatchNormalization(name="norm_2")(signal))
        features = layers.Flatten(name="flat")(signal)
        answer = layers.Dense(5, activation="softmax", name="answer")(features)
        model = keras.Model(image, answer, name="small")
        for norm in ("norm", "norm_2"):
            gamma, _beta, mean, variance = model.get_layer(norm).get_weights()
            spread = np.linspace(0.5, 1.5, len(gamma)).astype(np.float32)
            model.get_layer(norm).set_weights([spread, spread - 1, mean, variance * spread])
        kernel, bias = model.get_layer("answer").get_weights()
        model.get_layer("answer").set_weights([8 * kernel, bias])
        model.save(path)
    return path


def _small_savedmodel(model: Path, path: Path) -> Path:
    with quiet():
        import keras

        keras.saving.load_model(model).export(path, verbose=False)
    return path


def _small_torch(path: Path) -> Path:
    with quiet():
        import torch
        from torch import nn

        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Flatten()]
        dense = nn.Linear(8 * 8 * 8, 5)
        dense.weight.data *= 8
        model = nn.Sequential(*layers, dense, nn.Softmax(dim=-1)).eval()
        torch.export.save(torch.export.export(model, (torch.zeros(1, 3, 16, 16),)), path)
    return path


def _answers(model: Path) -> Array:
    """Real answers [n, classes] of any model of the small network to SAMPLES."""
    artifact = Artifact.open(model)
    rows = []
    with quiet(), for_format(artifact.manifest.format).open(artifact, RunOptions()) as session:
        (fed,), (given,) = session.inputs, session.outputs
        channels_first = fed.shape[1] == 3
        for sample in _turned(SAMPLES) if channels_first else SAMPLES:
            answer = session.run({fed.name: quantize(sample, fed)})
            rows.append(dequantize(answer[given.name], given.quantization).reshape(-1))
    return np.stack(rows)


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "precision"),
    [pytest.param(*case, marks=[pytest.mark.slow] if case[0] in ISOLATED else []) for case in CASES],
)
def test_it_answers_as_its_source_and_writes_the_same_bytes_in_every_process(
    name: str,
    precision: str,
    sources: dict[str, Path],
    elsewhere: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    step = STEPS[name]
    if step.source not in sources or not _installed(*step.requires):
        pytest.skip(f"{name} needs {', '.join(step.requires)}")
    source = sources[step.source]
    made = _made(step.convert(source, tmp_path, StepOptions(precision), _calibration(step)))
    assert capfd.readouterr() == ("", "")
    assert made.parent == tmp_path
    assert _digests(tmp_path) == _digests(elsewhere / name / precision)
    truth = _answers(source)
    assert np.ptp(truth, axis=0).max() > 0.2, "the source must answer differently to different inputs"
    assert np.abs(_answers(made) - truth).max() < LIMITS[precision]


@pytest.mark.parametrize("name", STEPS)
def test_a_model_that_is_none_is_named(name: str, tmp_path: Path) -> None:
    step = STEPS[name]
    if not _installed(*step.requires):
        pytest.skip(f"{name} needs {', '.join(step.requires)}")
    broken = tmp_path / f"broken.{step.source}"
    broken.write_bytes(np.random.default_rng(0).bytes(3000))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match=r"broken\.") as caught:
        step.convert(broken, out, StepOptions(step.precisions[0]), _calibration(step))
    assert "\n" not in caught.value.message
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", STEPS)
def test_an_unknown_precision_is_refused_with_those_it_knows(name: str, tmp_path: Path) -> None:
    step = STEPS[name]
    with pytest.raises(UsageError, match=f"{name} cannot write int3") as caught:
        step.convert(tmp_path / "x", tmp_path, StepOptions("int3"), None)
    assert step.precisions[0] in caught.value.hint


@pytest.mark.parametrize("name", [name for name, goal in CASES if goal == "int8" != taken(STEPS[name])])
def test_int8_needs_calibration_data(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs calibration data") as caught:
        STEPS[name].convert(tmp_path / "x", tmp_path, StepOptions("int8"), None)
    assert "--calibration" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "library"), [(name, library) for name, step in STEPS.items() for library in step.requires]
)
def test_a_missing_library_names_the_extra_that_installs_it(
    name: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None if wanted == library else object())
    step = STEPS[name]
    with pytest.raises(EngineMissing, match=f"needs '{library}'") as caught:
        step.convert(tmp_path / "x", tmp_path, StepOptions(step.precisions[0]), Calibration({"image": SAMPLES}))
    assert caught.value.hint.startswith("pip install")
