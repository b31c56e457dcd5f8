"""Every converter passes the contract suite on a small network, in each precision that it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from converters.base import ConversionOutput, Converter
from converters.calibration.dataset import Calibration
from converters.library_calls import suppress_output
from converters.options import ConvertOptions
from converters.registry import all_converters
from converters.testing.converter_contract import ConverterContract
from runtimes.arrays import Array
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.registry import for_format
from runtimes.session import RunOptions
from runtimes.tensors import dequantize, quantize
from tests.npm import missing, need_engines

STEPS = {step.id: step for step in all_converters()}
# A converter that keeps the source's numbers does the same in every precision.
CASES = [
    (name, precision) for name, step in STEPS.items() for precision in step.precisions[: 1 if step.packs else None]
]
# Converters that run in environments of their own, which take long to create.
ISOLATED = {name for name, step in STEPS.items() if step.environments(ConvertOptions())}
# The libraries that write the small network in a format. Converters of language models are tested in gguf/.
SOURCE_LIBRARIES = {
    "keras": ("tensorflow", "keras"),
    "onnx": ("onnx",),
    "pt2": ("torch",),
    "savedmodel": ("tensorflow", "keras"),
    "tflite": ("tensorflow", "keras"),
}
# The small network takes pictures [1, 16, 16, 3]; sources with channels first take them transposed.
SAMPLES = np.random.default_rng(0).uniform(-1, 1, (16, 1, 16, 16, 3)).astype(np.float32)

CONVERT = """
import json, sys
from pathlib import Path
import numpy as np
from converters.calibration.dataset import Calibration
from converters.registry import all_converters
steps = {step.id: step for step in all_converters()}
calibration = Calibration({"image": np.load(sys.argv[1])})
for name, precision, source, out in json.loads(sys.argv[2]):
    steps[name].convert(Path(source), Path(out), steps[name].Options(precision=precision), calibration)
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small classifier in the formats that steps read, as far as their libraries are installed."""
    folder, found = tmp_path_factory.mktemp("sources"), {}
    if _installed(*SOURCE_LIBRARIES["onnx"]):
        found["onnx"] = _small_onnx(folder / "small.onnx")
    if _installed(*SOURCE_LIBRARIES["keras"]):
        found["keras"] = _small_keras(folder / "small.keras")
        found["savedmodel"] = _small_savedmodel(found["keras"], folder / "small.savedmodel")
        step, calibration = STEPS["keras_to_tflite"], Calibration({"image": SAMPLES})
        for precision in ("fp32", "int8"):
            (out := folder / precision).mkdir()
            made = step.convert(found["keras"], out, ConvertOptions(precision=precision), calibration).model
            found["tflite" if precision == "fp32" else "tflite int8"] = made
    if _installed(*SOURCE_LIBRARIES["pt2"]):
        found["pt2"] = _small_torch(folder / "small.pt2")
    return found


@pytest.fixture(scope="module")
def elsewhere(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """Everything converted in another process, as `<step>/<precision>/small.*`."""
    folder, jobs = tmp_path_factory.mktemp("elsewhere"), []
    for name, precision in CASES:
        if name in ISOLATED and not pytestconfig.getoption("--slow"):
            continue
        if STEPS[name].source in sources and not _missing(STEPS[name]) and (not STEPS[name].packs or not missing()):
            out = folder / name / precision
            out.mkdir(parents=True)
            jobs.append([name, precision, str(_source(STEPS[name], sources)), str(out)])
    for turned in (False, True):
        part = [job for job in jobs if (STEPS[job[0]].source == "pt2") == turned]
        if not part:
            continue
        np.save(folder / "samples.npy", _turned(SAMPLES) if turned else SAMPLES)
        command = [sys.executable, "-c", CONVERT, folder / "samples.npy", json.dumps(part)]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def _source(step: Converter, sources: dict[str, Path]) -> Path:
    return sources[step.source if step.input_precision == "fp32" else f"{step.source} {step.input_precision}"]


def _installed(*libraries: str) -> bool:
    return all(find_spec(library) for library in libraries)


def _missing(step: Converter) -> list[str]:
    """Return the libraries that are not installed here and that the converter, or writing its source, needs."""
    wanted = dict.fromkeys((*(one.module for one in step.requires), *SOURCE_LIBRARIES.get(step.source, ())))
    return [library for library in wanted if not _installed(library)]


def _turned(samples: Array) -> Array:
    """[n, 1, height, width, 3] with channels first."""
    return np.ascontiguousarray(samples.transpose(0, 1, 4, 2, 3))


def _small_onnx(path: Path) -> Path:
    """The same layers as `_small_keras`, in ONNX's channels-first operators behind an input [1, 16, 16, 3]."""
    import onnx

    helper, draw = onnx.helper, np.random.default_rng(1)
    spread = np.linspace(0.5, 1.5, 8, dtype=np.float32)
    weights = {
        "first": draw.normal(0, 0.25, (8, 3, 3, 3)),
        "depthwise": draw.normal(0, 0.8, (8, 1, 3, 3)),
        "scale": spread,
        "shift": spread - 1,
        "mean": np.zeros(8),
        "variance": spread,
        "dense": draw.normal(0, 0.06, (512, 5)),
        "bias": np.zeros(5),
        "zero": np.zeros(()),
        "six": np.full((), 6.0),
    }
    norm, same = ["scale", "shift", "mean", "variance"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Transpose", ["image"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "first"], ["a"], name="first", strides=[2, 2], **same),
        helper.make_node("BatchNormalization", ["a", *norm], ["b"], name="norm", epsilon=1e-3),
        helper.make_node("Clip", ["b", "zero", "six"], ["c"], name="relu6"),
        helper.make_node("Conv", ["c", "depthwise"], ["d"], name="depthwise", group=8, **same),
        helper.make_node("BatchNormalization", ["d", *norm], ["e"], name="norm_2", epsilon=1e-3),
        helper.make_node("Clip", ["e", "zero", "six"], ["f"], name="relu6_2"),
        helper.make_node("Flatten", ["f"], ["flat"], name="flat"),
        helper.make_node("MatMul", ["flat", "dense"], ["product"], name="dense"),
        helper.make_node("Add", ["product", "bias"], ["logits"], name="bias"),
        helper.make_node("Softmax", ["logits"], ["answer"], name="answer", axis=-1),
    ]
    kind = onnx.TensorProto.FLOAT
    image = helper.make_tensor_value_info("image", kind, [1, 16, 16, 3])
    answer = helper.make_tensor_value_info("answer", kind, [1, 5])
    tensors = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "small", [image], [answer], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def _small_keras(path: Path) -> Path:
    with suppress_output():
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
    with suppress_output():
        import keras

        keras.saving.load_model(model).export(path, verbose=False)
    return path


def _small_torch(path: Path) -> Path:
    with suppress_output():
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
    with suppress_output(), for_format(artifact.manifest.format).open(artifact, RunOptions()) as session:
        (fed,), (given,) = session.inputs, session.outputs
        channels_first = fed.shape[1] == 3
        for sample in _turned(SAMPLES) if channels_first else SAMPLES:
            answer = session.run({fed.name: quantize(sample, fed)})
            rows.append(dequantize(answer[given.name], given.quantization).reshape(-1))
    return np.stack(rows)


class TestConverter(ConverterContract):
    """The suite that extensions run too, with each converter of the folder."""

    def pytest_generate_tests(self, metafunc):
        if "precision" in metafunc.fixturenames:
            marked = [pytest.param(*case, marks=[pytest.mark.slow] if case[0] in ISOLATED else []) for case in CASES]
            metafunc.parametrize(("name", "precision"), marked)
        else:
            metafunc.parametrize("name", STEPS)

    @pytest.fixture(autouse=True)
    def _choose(self, name, request):
        self.converter, self._request = STEPS[name], request
        self.calibration = Calibration({"image": _turned(SAMPLES) if self.converter.source == "pt2" else SAMPLES})

    def source(self, folder):
        name = self.converter.id
        if self.converter.source not in SOURCE_LIBRARIES:
            pytest.skip(f"{name} reads language models: tests/converters/gguf has its tests")
        if libraries := _missing(self.converter):
            wanted = f"{name}, or the making of its {self.converter.source} source, needs {', '.join(libraries)}"
            pytest.skip(f"{wanted}: not installed")
        if self.converter.packs:
            need_engines()
        return _source(self.converter, self._request.getfixturevalue("sources"))

    def answers(self, model):
        rows = _answers(model)
        assert np.ptp(rows, axis=0).max() > 0.2, "the source must answer differently to different inputs"
        return [rows]

    def convert_elsewhere(self, source, folder, precision):
        return self._request.getfixturevalue("elsewhere") / self.converter.id / precision

    def test_a_broken_model_is_named_and_leaves_nothing(self, tmp_path):
        if missing := [one.module for one in self.converter.requires if not one.is_installed]:
            pytest.skip(f"{self.converter.id} needs {', '.join(missing)}: not installed")
        super().test_a_broken_model_is_named_and_leaves_nothing(tmp_path)


class Copying(Converter):
    """Copies an ONNX model, with a fault of each kind on request."""

    source, target, precisions, fault = "onnx", "onnx", ("fp32",), ""

    def convert(self, model, out, options, calibration):
        if self.fault != "any precision":
            self.check(options, calibration)
        if not model.read_bytes().startswith(b"\x08"):
            if self.fault == "leftover":
                (out / "partial").touch()
            raise InputError(f"{model} is not ONNX")
        if self.fault == "print":
            print("converting")
        path = out / "copy.onnx"
        path.write_bytes(model.read_bytes())
        if self.fault == "weights":
            onnx = pytest.importorskip("onnx")
            copy = onnx.load(path)
            copy.graph.initializer[-1].raw_data = np.float32(2).tobytes()
            onnx.save(copy, path)
        return ConversionOutput(model=path)


class CopyingContract(ConverterContract):
    def source(self, folder):
        onnx = pytest.importorskip("onnx")
        infos = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
        one = onnx.numpy_helper.from_array(np.float32(1), "one")
        node = onnx.helper.make_node("Add", ["x", "one"], ["y"])
        graph = onnx.helper.make_graph([node], "plus", infos[:1], infos[1:], [one])
        opsets = [onnx.helper.make_opsetid("", 17)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "plus.onnx")
        return folder / "plus.onnx"

    def convert_elsewhere(self, source, folder, precision):
        folder.mkdir()
        name = "other" if self.converter.fault == "names" else "copy"
        (folder / f"{name}.onnx").write_bytes(next(source.parent.parent.glob("out/*")).read_bytes())
        return folder


@pytest.mark.parametrize("fault", ["", "print", "weights", "names", "any precision", "leftover"])
def test_the_suite_finds_the_fault(fault, tmp_path, capfd):
    pytest.importorskip("onnxruntime")
    suite = CopyingContract()
    suite.converter = Copying()
    suite.converter.fault = fault
    checks = [
        lambda folder: suite.test_an_unknown_precision_is_refused_with_those_it_knows(folder),
        lambda folder: suite.test_a_broken_model_is_named_and_leaves_nothing(folder),
        lambda folder: suite.test_it_answers_as_its_source_and_writes_the_same_bytes_in_every_process(
            "fp32", folder, capfd
        ),
    ]
    failed = []
    for number, check in enumerate(checks):
        (folder := tmp_path / str(number)).mkdir()
        try:
            check(folder)
        except (AssertionError, OSError):
            failed.append(number)
    assert failed == {"": [], "any precision": [0], "leftover": [1]}.get(fault, [2])
