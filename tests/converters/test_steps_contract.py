"""Every conversion step is held to the same rules, in each precision that it writes, on a small network."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converters.calibration import Calibration
from converters.quiet import no_telemetry, quiet
from converters.steps import Step, StepOptions, find_steps, step_id
from runtimes.arrays import Array
from runtimes.artifact import Artifact
from runtimes.errors import EngineMissing, InputError, UsageError
from runtimes.registry import for_format
from runtimes.session import RunOptions
from runtimes.tensors import dequantize, quantize

STEPS = {step_id(step): step for step in find_steps()}
CASES = [(name, precision) for name, step in STEPS.items() for precision in step.precisions]
# How far a probability may be off, per precision.
LIMITS = {"fp32": 1e-5, "fp16": 2e-3, "w8": 0.03, "int8": 0.05}
SAMPLES = np.random.default_rng(0).uniform(-1, 1, (16, 1, 16, 16, 3)).astype(np.float32)

CONVERT_ALL = """
import sys
from pathlib import Path
import numpy as np
from converters.calibration import Calibration
from converters.steps import StepOptions, find_steps, step_id
sources, out = Path(sys.argv[1]), Path(sys.argv[2])
samples = np.random.default_rng(0).uniform(-1, 1, (16, 1, 16, 16, 3)).astype(np.float32)
for step in find_steps():
    for precision in step.precisions:
        folder = out / step_id(step) / precision
        folder.mkdir(parents=True)
        source = sources / f"small.{step.source}"
        step.convert(source, folder, StepOptions(precision), Calibration({"image": samples}))
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small classifier in every format that a step reads, `small.<format>`."""
    _needs(*(library for step in STEPS.values() for library in step.requires), "nncf")
    folder = tmp_path_factory.mktemp("sources")
    _small_keras(folder / "small.keras")
    STEPS["keras_to_onnx"].convert(folder / "small.keras", folder, StepOptions(), None)
    return folder


@pytest.fixture(scope="module")
def results(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything converted in another process, as `<step>/<precision>/small.*`."""
    out = tmp_path_factory.mktemp("results")
    subprocess.run([sys.executable, "-c", CONVERT_ALL, sources, out], check=True, capture_output=True)
    return out


def _needs(*libraries: str) -> None:
    with quiet():
        no_telemetry()
        for library in libraries:
            pytest.importorskip(library)


def _small_keras(path: Path) -> None:
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


def _source(sources: Path, step: Step) -> Path:
    return sources / f"small.{step.source}"


def _answers(model: Path) -> Array:
    """Real answers [n, classes] of any model of the small network to SAMPLES."""
    artifact = Artifact.open(model)
    rows = []
    with quiet(), for_format(artifact.manifest.format).open(artifact, RunOptions()) as session:
        (taken,), (given,) = session.inputs, session.outputs
        for sample in SAMPLES:
            answer = session.run({taken.name: quantize(sample, taken)})
            rows.append(dequantize(answer[given.name], given.quantization).reshape(-1))
    return np.stack(rows)


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_it_answers_as_its_source_and_writes_the_same_bytes_in_every_process(
    name: str, precision: str, sources: Path, results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    step = STEPS[name]
    made = step.convert(_source(sources, step), tmp_path, StepOptions(precision), Calibration({"image": SAMPLES}))
    assert capfd.readouterr() == ("", "")
    assert made.parent == tmp_path
    assert made.is_file()
    assert _digests(tmp_path) == _digests(results / name / precision)
    truth = _answers(sources / "small.keras")
    assert np.ptp(truth, axis=0).max() > 0.2, "the source must answer differently to different inputs"
    assert np.abs(_answers(made) - truth).max() < LIMITS[precision]


@pytest.mark.parametrize("name", STEPS)
def test_a_model_that_is_none_is_named(name: str, tmp_path: Path) -> None:
    step = STEPS[name]
    _needs(*step.requires)
    broken = tmp_path / f"broken.{step.source}"
    broken.write_bytes(np.random.default_rng(0).bytes(3000))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match=r"broken\.") as caught:
        step.convert(broken, out, StepOptions(step.precisions[0]), Calibration({"image": SAMPLES}))
    assert "\n" not in caught.value.message
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", STEPS)
def test_an_unknown_precision_is_refused_with_those_it_knows(name: str, tmp_path: Path) -> None:
    step = STEPS[name]
    with pytest.raises(UsageError, match=f"{name} cannot write int3") as caught:
        step.convert(tmp_path / "x", tmp_path, StepOptions("int3"), None)
    assert step.precisions[0] in caught.value.hint


@pytest.mark.parametrize("name", [name for name, precision in CASES if precision == "int8"])
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
