"""ONNX to TFLite with onnx2tf and TensorFlow's own converter; runs inside its environment (see runner.py)."""

from __future__ import annotations

import enum
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict

import numpy as np
import onnx
import onnx2tf.onnx2tf as onnx2tf
import onnxruntime
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

# Not imported: the packages of edge do not belong to this environment.
_OP_REWRITES = runpy.run_path(str(Path(__file__).parents[2] / "tensorflow" / "op_rewrites.py"))
_TURNS = ((0, 2, 3, 1), (0, 3, 1, 2))  # NCHW to NHWC, NHWC to NCHW
_MOVED_RANKS = (3, 4, 5)  # of inputs whose second axis onnx2tf moves to the end
_WIDE = {tf.int16: tf.int32, tf.uint16: tf.int32, tf.uint32: tf.int64}
_Array = np.ndarray[Any, Any]
_ROUNDING = 1e-3  # of the largest value: far below what another order of axes changes
_IN_LAYER = "Exception encountered when calling layer"  # Keras' first line, which names a layer of its own
_PLACE = re.compile(r"\{\{function_node [^}]*\}\}")  # of a TensorFlow error
_CONTROL_FLOW = ("If", "Loop", "Scan")
_MANY = 50  # different integers, which every integer dtype holds
_MAX_CORRECTIONS = 4  # a corrected guess may show the next wrong one


class _Facts(TypedDict):
    """What onnx2tf knows of a tensor; the names are its own."""

    tf_node: Any
    before_op_output_shape_trans: bool  # whether the second axis is at the end


class Job(TypedDict):
    """See `run`."""

    model: str
    out: str
    precision: str
    shapes: dict[str, list[int]]
    kept: list[str]
    io_dtype: str
    samples: str
    keep: list[str]
    outputs: list[str]


def run(job: Job) -> dict[str, str]:
    """Write job["out"] from the ONNX file job["model"]. Returns {}.

    "precision": fp32, fp16, w8 or int8; "shapes": {input: its fixed shape}; "kept": inputs whose axes are not moved;
    "io_dtype" and "samples" (an .npz, [n, *shape] by input name in the model's own axes) for int8;
    "keep": the tensors whose layers stay in float32, and with them the outputs; among them names of "outputs", which
    the result gets later.
    """
    # onnx2tf would download a picture to compare its layers with the source's.
    onnx2tf.download_test_image_data = _noise
    _simplify(job)
    feeds = _feeds(job)
    function, specs = _function(_network(job, feeds), job, feeds)
    # Variables in the graph would be uninitialized during calibration.
    frozen = _OP_REWRITES["freeze"](function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if job["precision"] != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job["precision"] == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if job["precision"] == "int8":
        _set_int8(converter, job, specs)
    Path(job["out"]).write_bytes(_quantize_except(converter, job) if job["keep"] else converter.convert())
    return {}


class _Inputs(enum.Enum):
    """What is assumed of inputs whose shape does not show their layout."""

    GUESSED = "moved, and onnx2tf takes them for unmoved"
    MOVED = "moved"
    UNMOVED = "unmoved"


class _Network:
    """A Keras model of model.onnx with a fixed batch and pictures in NHWC.

    onnx2tf moves the second axis of inputs and inner tensors to the end, and tells from a tensor's shape whether it is
    moved. Where all sizes behind the first are the same, it guesses; `wrong_guesses` computes these tensors.
    """

    def __init__(self, job: Job, inputs: _Inputs, known: dict[str, bool]) -> None:
        """Convert the model; `known` says of inner tensors whether they are moved."""
        self._job = job
        self._inputs = inputs
        self._known = known
        self._tensors: dict[str, _Facts] = {}
        onnx2tf.importlib = self  # through which onnx2tf gets its operators
        self.model = onnx2tf.convert(
            input_onnx_file_path="model.onnx",
            output_folder_path=".",
            not_use_onnxsim=True,  # done before; onnx2tf would search for a program of that name
            disable_model_save=True,
            replace_to_pseudo_operators=["erf"],  # TFLite has no Erf, which ONNX uses for GELU
            non_verbose=True,
        )

    def import_module(self, name: str) -> Any:
        """Return an operator of onnx2tf that uses what is known instead of its guess."""
        operator = import_module(name)

        def make_node(**words: Any) -> None:
            if _is_softmax_of_hidden_layout(
                words.get("graph_node"), words["tf_layers_dict"]
            ):  # onnx2tf would try all axes on values that its inputs may not suit
                words["disable_strict_mode"] = True
            with _errors_name(words.get("graph_node")):
                operator.make_node(**words)
            self._tensors = words["tf_layers_dict"]
            for made in [words["graph_input"]] if "graph_input" in words else words["graph_node"].outputs:
                is_moved = self._known.get(_source_name(made.name))
                if "graph_input" in words and self._inputs is _Inputs.MOVED:
                    is_moved = True
                if is_moved is not None and _hides_layout(self._tensors[made.name]["tf_node"]):
                    self._tensors[made.name]["before_op_output_shape_trans"] = is_moved

        return SimpleNamespace(make_node=make_node)

    @property
    def guessed(self) -> dict[str, _Facts]:
        """The computed tensors whose shape does not show their layout, by the source's names."""
        return {
            _source_name(name): facts
            for name, facts in self._tensors.items()
            if _hides_layout(facts["tf_node"]) and onnx2tf.tf_keras.backend.is_keras_tensor(facts["tf_node"])
        }

    def inputs(self, given: list[Any]) -> list[Any]:
        """Return the inputs (pictures in NHWC, others in the source's axes) in the model's layout."""
        found = []
        for name, one, port in zip(self._job["shapes"], given, self.model.inputs):
            is_unmoved = self._inputs is _Inputs.UNMOVED and _hides_layout(port)
            found.append(_move_axes(one, tuple(port.shape)) if name in self._job["kept"] and not is_unmoved else one)
        return found

    def compute(self, tensors: list[Any], feeds: dict[str, _Array]) -> list[Any]:
        """Return the values of tensors of the model for inputs of the source."""
        given = []
        for name, values in feeds.items():
            is_picture = name not in self._job["kept"] and values.ndim == 4
            given.append(tf.constant(values.transpose(_TURNS[0]) if is_picture else values))
        found = onnx2tf.tf_keras.Model(self.model.inputs, tensors)(self.inputs(given))
        return [np.asarray(one) for one in tf.nest.flatten(found)]

    def wrong_guesses(self, feeds: dict[str, _Array]) -> dict[str, bool]:
        """Return of the inner tensors for which onnx2tf guessed wrongly whether they are moved."""
        source = onnx.load("model.onnx")
        inner = {name for node in source.graph.node for name in node.output}
        guessed = {name: facts for name, facts in self.guessed.items() if name in inner}
        if not guessed:
            return {}
        expected = _source_values(source, list(guessed), feeds)
        given = self.compute([facts["tf_node"] for facts in guessed.values()], feeds)
        found = {}
        for (name, facts), value in zip(guessed.items(), given):
            is_moved = _are_alike(np.moveaxis(expected[name], 1, -1), value)
            is_known = is_moved != _are_alike(expected[name], value)
            if is_known and is_moved != facts["before_op_output_shape_trans"]:
                found[name] = is_moved
        return found

    def turns(self, feeds: dict[str, _Array] | None) -> list[tuple[int, ...] | None]:
        """Return for each output the permutation that gives it the source's axes; None if it stays as it is.

        Which outputs onnx2tf leaves with the channels last is not told by their shapes alone.
        """
        outputs = tf.nest.flatten(self.model.outputs)
        if feeds is None:
            return [None] * len(outputs)
        expected = _source_values(onnx.load("model.onnx"), [], feeds).values()
        return [_turn(mine, other) for mine, other in zip(expected, self.compute(outputs, feeds))]

    def is_right(self, feeds: dict[str, _Array]) -> bool:
        """Return whether the outputs are the source's, in either layout."""
        expected = _source_values(onnx.load("model.onnx"), [], feeds).values()
        pairs = zip(expected, self.compute(tf.nest.flatten(self.model.outputs), feeds))
        return all(
            _are_alike(mine, other) or (mine.ndim in _MOVED_RANKS and _are_alike(np.moveaxis(mine, 1, -1), other))
            for mine, other in pairs
        )


@contextmanager
def _errors_name(node: Any) -> Iterator[None]:
    """Let what onnx2tf raises, such as "list index out of range", name the node that it converts, and its operator.

    Its SystemExit has a number in place of a reason.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if node is None:
            raise
        # Nodes without a name get one that only onnx2tf knows.
        own = node.outputs[0].name if node.name.startswith("sng_") and node.outputs else node.name
        what = f"node '{_source_name(own)}' ({node.op}) is not converted"
        if node.op in _CONTROL_FLOW:
            raise RuntimeError(f"{what}: it becomes no branch or loop of TFLite") from error
        if isinstance(error, SystemExit):
            raise RuntimeError(what) from error
        lines = [_PLACE.sub("", line).strip() for line in str(error).splitlines()]
        text = next((line for line in lines if line and not line.startswith(_IN_LAYER)), "")
        name = type(error).__name__
        raise RuntimeError(f"{what}: {f'{name}: {text}' if text else name}") from error


def _network(job: Job, feeds: dict[str, _Array] | None) -> _Network:
    """Convert model.onnx, again where a guess was wrong; without `feeds` this is not known.

    If no way gives the source's outputs, the first one is returned, and the proof explains what differs.
    """
    first = None
    for inputs in _Inputs:
        known: dict[str, bool] = {}
        for _ in range(_MAX_CORRECTIONS):
            network = _Network(job, inputs, known)
            first = first or network
            if feeds is None or not network.guessed or network.is_right(feeds):
                return network
            wrong = network.wrong_guesses(feeds)
            if not wrong:
                break
            known = {**known, **wrong}
    assert first is not None
    return first


def _simplify(job: Job) -> None:
    """Write model.onnx, with fixed sizes.

    In a separate process, as in onnx2tf, because some models crash the simplifier; those are converted without it.
    """
    _fix_shapes(onnx.load(job["model"]), job["shapes"])
    # A Pad is not fused into a pool: onnx2tf pads pools with minus infinity, which int8 cannot represent.
    simplify = [sys.executable, "-m", "onnxsim", "model.onnx", "model.onnx"]
    subprocess.run([*simplify, "--skip-optimization", "fuse_pad_into_pool"], stdout=sys.stderr, check=False)


def _hides_layout(tensor: Any) -> bool:
    sizes = set(tensor.shape[1:])
    return len(tensor.shape) in _MOVED_RANKS and len(sizes) == 1 and not sizes & {None, 1}


def _is_softmax_of_hidden_layout(node: Any, tensors: dict[str, _Facts]) -> bool:
    if node is None or node.op not in ("Softmax", "LogSoftmax"):
        return False
    known = tensors.get(node.inputs[0].name)
    return known is not None and _hides_layout(known["tf_node"])


def _source_name(name: str) -> str:
    return name[2:] if name.startswith("wa/") else name  # onnx2tf's names do not begin with a slash


def _function(network: _Network, job: Job, feeds: dict[str, _Array] | None) -> tuple[Any, list[Any]]:
    """Return the network as a function of its inputs, and their specs.

    onnx2tf's option to keep an input's axes produces wrong networks, so inputs whose axes are kept are transposed here,
    which TensorFlow's converter optimizes away. Outputs get the source's axes back, except pictures that show by their
    shape that they are in NHWC.
    """
    specs = [
        tf.TensorSpec(shape if name in job["kept"] else port.shape, port.dtype, name=name)
        for (name, shape), port in zip(job["shapes"].items(), network.model.inputs)
    ]
    turns = network.turns(feeds)

    @tf.function(input_signature=[specs])  # type: ignore[untyped-decorator, unused-ignore]
    def forward(inputs: list[Any]) -> Any:
        outputs = tf.nest.flatten(network.model(network.inputs(inputs)))
        return [one if axes is None else _transposed(one, axes) for one, axes in zip(outputs, turns)]

    return forward.get_concrete_function(), specs


def _move_axes(tensor: Any, wanted: tuple[int, ...]) -> Any:
    """Return the tensor in the network's layout: a scalar as [1], and the second axis last."""
    shape, rank = tuple(tensor.shape), len(tensor.shape)
    if rank != len(wanted):
        return tf.reshape(tensor, [1 if size is None else size for size in wanted])
    if rank in _MOVED_RANKS and (shape[0], *shape[2:], shape[1]) == wanted:  # also where all sizes are the same
        return _transposed(tensor, [0, *range(2, rank), 1])
    return tensor


def _transposed(tensor: Any, axes: Sequence[int]) -> Any:
    """Transpose a tensor, by way of a dtype that TFLite transposes."""
    wide = _WIDE.get(tensor.dtype)
    if wide is None:
        return tf.transpose(tensor, axes)
    return tf.cast(tf.transpose(tf.cast(tensor, wide), axes), tensor.dtype)


def _feeds(job: Job) -> dict[str, _Array] | None:
    """Return random inputs that model.onnx computes; None if there are none."""
    try:
        ports = _session(Path("model.onnx").read_bytes()).get_inputs()
    except Exception as error:  # ONNX Runtime may lack what onnx2tf has
        print(f"the layout of the outputs is not known: {error}", file=sys.stderr)
        return None
    # 0 kills the process where a model divides by it; an index may have to be 0, also one of several axes.
    for count, lowest in product((_MANY, 2), (1, 0)):
        generator = np.random.default_rng(0)
        feeds = {one.name: _random(generator, job["shapes"][one.name], one.type, lowest, count) for one in ports}
        try:
            _source_values(onnx.load("model.onnx"), [], feeds)
        except Exception as error:  # random values need not suit the model: its outputs stay as they are
            print(f"the layout of the outputs is not known: {error}", file=sys.stderr)
        else:
            return feeds
    return None


def _source_values(source: Any, names: list[str], feeds: dict[str, _Array]) -> dict[str, _Array]:
    """Return the values of inner tensors of the ONNX model; without names, of its outputs."""
    if names:
        del source.graph.output[:]
        source.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = _session(source.SerializeToString())
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, feeds)))


def _session(model: bytes) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def _turn(expected: Any, given: Any) -> tuple[int, ...] | None:
    rank = expected.ndim
    is_picture = rank == 4 and expected.shape != given.shape
    if rank not in _MOVED_RANKS or given.ndim != rank or is_picture or _are_alike(expected, given):
        return None
    axes = (0, rank - 1, *range(1, rank - 1))
    return axes if _are_alike(expected, given.transpose(axes)) else None


def _are_alike(expected: Any, given: Any) -> bool:
    if expected.shape != given.shape:
        return False
    largest = float(np.abs(expected).max(initial=1e-30))
    return bool(np.abs(expected.astype(np.float64) - given).max(initial=0) <= _ROUNDING * largest)


def _random(generator: Any, shape: list[int], kind: str, lowest: int, count: int) -> Any:
    """Return random values; truth values are any, and integers `lowest` or one more.

    Those of more than two axes, which are hardly counts or indices, have `count` values: few could hide a wrong layout.
    """
    dtype = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}.get(kind)
    if dtype is not None:
        return np.asarray(generator.standard_normal(shape), dtype)
    if kind == "tensor(bool)":
        return np.asarray(generator.integers(0, 2, shape), np.bool_)
    end = lowest + (count if len(shape) > 2 else 2)
    return np.asarray(generator.integers(lowest, end, shape), kind[len("tensor(") : -1])


def _fix_shapes(model: Any, shapes: dict[str, list[int]]) -> None:
    """Write model.onnx with these input shapes; the shapes that depend on them are inferred again."""
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ())):
            dim.dim_value = size
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.Clear()
    onnx.save(model, "model.onnx")


def _set_int8(converter: Any, job: Job, inputs: Any) -> None:
    samples = np.load(job["samples"])
    turned = [_transpose_samples(samples[name], tensor.shape) for name, tensor in zip(samples.files, inputs)]
    converter.representative_dataset = lambda: ([values[i] for values in turned] for i in range(len(turned[0])))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.dtypes.as_dtype(job["io_dtype"])
    converter.inference_output_type = tf.float32 if job["keep"] else converter.inference_input_type
    # Runtimes as old as the Edge TPU compiler only read the first scale of a dense layer, and give wrong results.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True


def _quantize_except(converter: Any, job: Job) -> Any:
    """Return the int8 model with the layers of job["keep"] in float32, as in converters.tensorflow."""
    from tensorflow.lite.python.convert import mlir_quantize

    converter._experimental_calibrate_only = True
    calibrated = converter.convert()
    graph = schema.ModelT.InitFromPackedBuf(calibrated, 0).subgraphs[0]
    own = dict(zip(job["outputs"], (graph.tensors[place].name.decode() for place in graph.outputs)))
    return mlir_quantize(
        calibrated,
        input_data_type=converter.inference_input_type,
        output_data_type=converter.inference_output_type,
        denylisted_nodes=[own.get(name, name) for name in job["keep"]],
        disable_per_channel_for_dense_layers=True,
    )


def _transpose_samples(samples: Any, shape: Any) -> Any:
    """Transpose samples [n, *shape of the source] to the axes of the converted model."""
    if samples.shape[1:] == tuple(shape):
        return samples
    for axes in _TURNS:
        turned = samples.transpose(0, *(axis + 1 for axis in axes)) if samples.ndim == 5 else samples
        if turned.shape[1:] == tuple(shape):
            return turned
    raise ValueError(f"an input of {list(samples.shape[1:])} became {list(shape)}")


def _noise() -> Any:
    return np.random.default_rng(0).uniform(0, 1, (20, 128, 128, 3)).astype(np.float32)
