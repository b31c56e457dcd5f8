"""Does a converted file give the same outputs as its source? Both are opened by their own engines, without edge's code.

The result's files are opened directly with ONNX Runtime, OpenVINO and LiteRT. Its manifest is only read for the name of
the file and those of its states; names and axes are matched here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
# For each output: the largest error as a share of its range (fp32), and the lowest signal-to-noise ratio in dB.
LARGEST_ERROR = 2e-3
LEAST_DB = {"fp16": 20.0, "w8": 10.0, "int8": 6.0}
_STILL = 0.02  # of the source's variation: a column of the result that varies by less counts as dead
_BOX_APART, _SCORE_APART, _SURE = 0.05, 0.1, 0.3  # detections: coordinates and scores of 0 to 1


@dataclass(frozen=True)
class Port:
    """An input or output of an engine."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float = 0.0
    zero: int = 0


class Engine:
    """A model opened by its own engine; `run` takes and returns arrays in the order of `inputs` and `outputs`."""

    inputs: list[Port]
    outputs: list[Port]
    run: Callable[[list[np.ndarray]], list[np.ndarray]]


def open_engine(path: Path, engine: str = "") -> Engine:
    """Open a file by its suffix, or with `engine`. A SavedModel is a folder."""
    if path.is_dir():
        return _saved_model(path)
    if engine == "openvino":
        return _openvino(path)
    ways = {".onnx": _onnx, ".tflite": _litert, ".xml": _openvino, ".jit": _torchscript, ".h5": _keras2}
    return ways[path.suffix](path)


def _onnx(path: Path) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")  # no kernels that saturate in 16 bits
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = {"float": "float32", "float16": "float16", "double": "float64", "bool": "bool"}

    def port(one: Any) -> Port:
        kind = one.type[len("tensor(") : -1]
        sizes = tuple(size if isinstance(size, int) and size > 0 else -1 for size in one.shape)
        return Port(one.name, sizes, np.dtype(kinds.get(kind, kind)))

    engine = Engine()
    engine.inputs, engine.outputs = (
        [port(one) for one in ports] for ports in (session.get_inputs(), session.get_outputs())
    )
    engine.run = lambda values: session.run(
        None, {one.name: value for one, value in zip(engine.inputs, values, strict=True)}
    )
    return engine


def _litert(path: Path) -> Engine:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=2)

    def port(one: Mapping[str, Any]) -> Port:
        scale, zero = one["quantization"]
        return Port(
            one["name"], tuple(int(size) for size in one["shape_signature"]), np.dtype(one["dtype"]), scale, zero
        )

    taken, given = interpreter.get_input_details(), interpreter.get_output_details()

    def run(values: list[np.ndarray]) -> list[np.ndarray]:
        sizes = [value.shape for value in values]
        if run.sizes != sizes:
            for one, value in zip(taken, values, strict=True):
                if tuple(one["shape"]) != value.shape:
                    interpreter.resize_tensor_input(one["index"], value.shape)
            interpreter.allocate_tensors()
            run.sizes = sizes
        for one, value in zip(taken, values, strict=True):
            interpreter.set_tensor(one["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(one["index"]) for one in given]

    run.sizes = []
    engine = Engine()
    engine.inputs, engine.outputs, engine.run = [port(one) for one in taken], [port(one) for one in given], run
    return engine


def _openvino(path: Path) -> Engine:
    import openvino

    model = openvino.Core().read_model(path)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    if "vnni" not in Path("/proc/cpuinfo").read_text():  # the plugin's int8 kernels saturate in 16 bits there
        config["LP_TRANSFORMS_MODE"] = "NO"
    compiled = openvino.Core().compile_model(model, "CPU", config)
    # The format has no scales for inputs and outputs: a model that has some holds them here.
    place = ["edge", "quantization"]
    scales = json.loads(str(model.get_rt_info(place).value)) if model.has_rt_info(place) else {}

    def port(one: Any) -> Port:
        sizes = tuple(-1 if size.is_dynamic else size.get_length() for size in one.get_partial_shape())
        name, dtype = min(one.get_names() or {""}), np.dtype(one.get_element_type().to_dtype())
        known = next((scales[other] for other in one.get_names() if other in scales), None)
        if known is None:
            return Port(name, sizes, dtype)
        return Port(name, sizes, dtype, known["scales"][0], known["zero_points"][0])

    def run(values: list[np.ndarray]) -> list[np.ndarray]:
        answers = compiled(dict(enumerate(values)))
        return [np.array(answers[place]) for place in range(len(compiled.outputs))]

    engine = Engine()
    engine.inputs, engine.outputs = ([port(one) for one in ports] for ports in (model.inputs, model.outputs))
    engine.run = run
    return engine


def _torchscript(path: Path) -> Engine:
    import torch

    module = torch.jit.load(str(path)).eval()
    engine = Engine()
    engine.inputs = [Port("x", (-1, -1), np.dtype("float32")), Port("sr", (), np.dtype("int64"))]
    engine.outputs = [Port("output", (-1, 1), np.dtype("float32"))]

    def run(values: list[np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            return [module(torch.from_numpy(np.array(values[0])), int(values[1])).numpy()]

    engine.run = run
    return engine


def _saved_model(path: Path) -> Engine:
    """Load with TensorFlow 1's loader, because that of version 2 fails on the optimizer's slots."""
    import tensorflow as tf

    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    with graph.as_default():
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
    signature = loaded.signature_def["serving_default"]

    def port(name: str, info: Any) -> Port:
        sizes = tuple(int(one.size) for one in info.tensor_shape.dim)
        return Port(name, sizes, np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype))

    taken, given = dict(signature.inputs), dict(signature.outputs)
    engine = Engine()
    engine.inputs, engine.outputs = ([port(*one) for one in ports.items()] for ports in (taken, given))
    engine.run = lambda values: session.run(
        [one.name for one in given.values()],
        {one.name: value for one, value in zip(taken.values(), values, strict=True)},
    )
    return engine


def _keras2(path: Path) -> Engine:
    """Load a file of Keras 2 with Keras 3, without what it no longer accepts: `groups` of depthwise convolutions."""
    import h5py
    import keras

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
        def __init__(self, *args: Any, groups: int = 1, **more: Any) -> None:
            assert groups == 1
            super().__init__(*args, **more)

    with h5py.File(path) as file:
        assert file.attrs["keras_version"].startswith("2.")
    model = keras.models.load_model(path, compile=False, custom_objects={"DepthwiseConv2D": DepthwiseConv2D})
    engine = Engine()
    engine.inputs = [Port("input_1", (-1, *model.input_shape[1:]), np.dtype("float32"))]
    engine.outputs = [Port("output", (-1, *model.output_shape[1:]), np.dtype("float32"))]
    engine.run = lambda values: [np.asarray(model(values[0], training=False))]
    return engine


def answers(engine: Engine, inputs: Arrays, names: list[str] | None = None) -> list[np.ndarray]:
    """Run every sample; returns real values [n, *shape], one array for each output.

    `inputs` [n, *shape] are the source's, real or in its quantized type; `names` is the source's order of them.
    """
    order = names or list(inputs)
    count = len(next(iter(inputs.values())))
    rows = []
    for place in range(count):
        given = []
        for at, port in enumerate(engine.inputs):
            value = inputs[port.name if port.name in inputs else order[at]][place]
            given.append(_as_taken(value, port))
        rows.append([_real(value, port) for value, port in zip(engine.run(given), engine.outputs, strict=True)])
    return [np.stack(column) for column in zip(*rows, strict=True)]


def real_inputs(engine: Engine, inputs: Arrays) -> Arrays:
    """Return the real values of inputs that the source takes quantized."""
    ports = {one.name: one for one in engine.inputs}
    return {
        name: (values.astype(np.float32) - ports[name].zero) * ports[name].scale
        if name in ports and ports[name].scale
        else values
        for name, values in inputs.items()
    }


def _as_taken(value: np.ndarray, port: Port) -> np.ndarray:
    if value.ndim == len(port.shape) and not _fits(value.shape, port.shape):
        value = next(
            (
                turned
                for axes in itertools.permutations(range(value.ndim))
                if _fits((turned := value.transpose(axes)).shape, port.shape)
            ),
            value,
        )
    if value.ndim != len(port.shape) and value.size == abs(int(np.prod(port.shape))):
        value = value.reshape(port.shape)
    if port.scale and value.dtype.kind == "f":
        bounds = np.iinfo(port.dtype)
        value = np.clip(np.round(value / port.scale) + port.zero, bounds.min, bounds.max)
    return np.ascontiguousarray(value.astype(port.dtype)).reshape(value.shape)


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(b < 0 or a == b for a, b in zip(shape, wanted, strict=True))


def _real(value: np.ndarray, port: Port) -> np.ndarray:
    value = np.asarray(value)
    return (value.astype(np.float64) - port.zero) * port.scale if port.scale else value.astype(np.float64)


def paired(
    source: Engine, result: Engine, expected: list[np.ndarray], given: list[np.ndarray]
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Pair the outputs by name, else by order, with the axes of the result transposed to the source's."""
    if len(given) != len(expected):
        raise ValueError(f"the source has {len(expected)} outputs, the result {len(given)}")
    names = {port.name: place for place, port in enumerate(result.outputs)}
    pairs = []
    for place, (port, values) in enumerate(zip(source.outputs, expected, strict=True)):
        other = given[names.get(port.name, place)]
        pairs.append((port.name, values, _turned(other, values)))
    return pairs


def _turned(values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    if values.shape == expected.shape:
        return values
    if values.ndim == expected.ndim:
        for axes in itertools.permutations(range(1, values.ndim)):
            turned = values.transpose(0, *axes)
            if turned.shape == expected.shape:
                return turned
    return values.reshape(expected.shape)


def verdict(name: str, expected: np.ndarray, given: np.ndarray, precision: str) -> tuple[bool, str]:
    """Judge an output [n, ...]: as a whole, and that no column that varies in the source is dead in the result."""
    if not np.isfinite(given).all():
        return False, f"'{name}' is not finite"
    wrong = given - expected
    span = float(np.ptp(expected))
    if span == 0:
        return bool(np.abs(wrong).max() == 0), f"'{name}' is constant"
    error = float(np.abs(wrong).max()) / max(span, float(np.abs(expected).max()))
    signal = float(np.square(expected - expected.mean()).sum())
    db = float(10 * np.log10(signal / max(float(np.square(wrong).sum()), 1e-30)))
    words = f"'{name}' {min(db, 200):.0f} dB"
    if precision == "fp32":
        return error <= LARGEST_ERROR, f"{words}, error {error:.1e}"
    if expected.ndim == 1:  # scalars
        expected, given = expected[:, np.newaxis], given[:, np.newaxis]
    columns, others = (values.reshape(len(values), -1, values.shape[-1]) for values in (expected, given))
    moved, moves = (np.ptp(values, axis=0).max(axis=0) for values in (columns, others))
    dead = int(((moves <= _STILL * moved) & (moved > 0.25 * span)).sum())
    if dead:
        return False, f"{words}, {dead} of {len(moved)} columns are dead"
    return db >= LEAST_DB[precision], words


def same_detections(expected: list[np.ndarray], given: list[np.ndarray]) -> tuple[bool, str]:
    """Compare boxes, classes and scores as sets: every confident detection of one is in the other too."""
    missing, total = 0, 0
    for one, other in ((expected, given), (given, expected)):
        for row in range(len(one[0])):
            for place in np.flatnonzero(one[2][row].reshape(-1) >= _SURE):
                box = one[0][row].reshape(-1, 4)[place]
                near = np.abs(other[0][row].reshape(-1, 4) - box).max(axis=1) <= _BOX_APART
                like = other[1][row].reshape(-1) == one[1][row].reshape(-1)[place]
                close = np.abs(other[2][row].reshape(-1) - one[2][row].reshape(-1)[place]) <= _SCORE_APART
                total += 1
                missing += not (near & like & close).any()
    return missing <= 0.1 * total, f"{total - missing} of {total} confident detections agree"


def same_key_points(expected: np.ndarray, given: np.ndarray) -> tuple[bool, str]:
    """Compare key points [..., 3]: nearly all of those that the source is sure of are in the same place."""
    points, others = expected.reshape(-1, 3), given.reshape(-1, 3)
    sure = points[:, 2] >= _SURE
    near = np.hypot(*(points - others)[sure, :2].T) <= _BOX_APART
    return bool(near.mean() >= 0.95), f"{near.sum()} of {sure.sum()} confident key points agree"


def model_file(artifact: Path) -> Path:
    """Return the file that an artifact's engine opens."""
    manifest = json.loads((artifact / "manifest.json").read_text())
    return artifact / str(manifest["model"])


def open_artifact(artifact: Path) -> Engine:
    """Open the file of an artifact; the states that its manifest names are passed on, as any program would do it."""
    engine, states = open_engine(model_file(artifact)), json.loads((artifact / "manifest.json").read_text())["states"]
    if not states:
        return engine
    held = {one.name: np.full(one.shape, one.zero, one.dtype) for one in engine.inputs if one.name in states}
    plain = Engine()
    plain.inputs = [one for one in engine.inputs if one.name not in states]
    plain.outputs = [one for one in engine.outputs if one.name not in states.values()]

    def run(values: list[np.ndarray]) -> list[np.ndarray]:
        given = {**held, **{one.name: value for one, value in zip(plain.inputs, values, strict=True)}}
        found = engine.run([given[one.name] for one in engine.inputs])
        answer = {one.name: value for one, value in zip(engine.outputs, found, strict=True)}
        held.update({name: answer[output] for name, output in states.items()})
        return [answer[one.name] for one in plain.outputs]

    plain.run = run
    return plain


def judge(
    source: Path, artifact: Path, inputs: Arrays, precision: str, *, sets: bool = False, points: bool = False
) -> tuple[bool, str]:
    """Return whether the artifact's outputs for `inputs` equal the source's, and how closely."""
    original, result = open_engine(source), open_artifact(artifact)
    expected = answers(original, inputs)
    # Inputs that are quantized in the source are passed unchanged if the result has the same types, else as real ones.
    types = [sorted(port.dtype.name for port in engine.inputs) for engine in (original, result)]
    stored = inputs if types[0] == types[1] else real_inputs(original, inputs)
    pairs = paired(original, result, expected, answers(result, stored, [port.name for port in original.inputs]))
    if points:
        return same_key_points(*pairs[0][1:])
    lines = []
    if sets:
        boxes = [[pair[at] for pair in pairs[:3]] for at in (1, 2)]
        agree, words = same_detections(*boxes)
        if not agree:
            return False, words
        lines, pairs = [words], pairs[4:]
    for name, values, others in pairs:
        agree, words = verdict(name, values, others, precision)
        if not agree:
            return False, words
        lines.append(words)
    return True, "; ".join(lines)
