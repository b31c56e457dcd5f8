"""ONNX to TFLite with onnx2tf and TensorFlow's own converter; runs inside its environment (see runner.py)."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
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
_ROUNDING = 1e-3  # of the largest value: far below what another order of axes changes


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
    function, specs = _function(_network(job), job)
    # Variables in the graph would be uninitialized during calibration.
    frozen = _OP_REWRITES["freeze"](function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if job["precision"] != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job["precision"] == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if job["precision"] == "int8":
        _set_int8(converter, job, specs)
    Path(job["out"]).write_bytes(_kept(converter, job) if job["keep"] else converter.convert())
    return {}


def _network(job: Job) -> Any:
    """Convert the model to a Keras model with a fixed batch and pictures in NHWC."""
    _fix_shapes(onnx.load(job["model"]), job["shapes"])
    # In a separate process, as in onnx2tf, because some models crash it; those are converted without it.
    # A Pad is not fused into a pool: onnx2tf pads pools with minus infinity, which int8 cannot represent.
    simplify = [sys.executable, "-m", "onnxsim", "model.onnx", "model.onnx"]
    subprocess.run([*simplify, "--skip-optimization", "fuse_pad_into_pool"], stdout=sys.stderr, check=False)
    return onnx2tf.convert(
        input_onnx_file_path="model.onnx",
        output_folder_path=".",
        not_use_onnxsim=True,  # done above; onnx2tf would search for a program of that name
        disable_model_save=True,
        replace_to_pseudo_operators=["erf"],  # TFLite has no Erf, which ONNX uses for GELU
        non_verbose=True,
    )


def _function(network: Any, job: Job) -> tuple[Any, list[Any]]:
    """Return the network as a function of its inputs, and their specs.

    onnx2tf moves the second axis of every input to the end. Its option to keep an input's axes produces wrong networks,
    so inputs whose axes are kept are transposed here, which TensorFlow's converter optimizes away. Outputs get the
    source's axes back, except pictures that show by their shape that they are in NHWC.
    """
    shapes = [shape if name in job["kept"] else None for name, shape in job["shapes"].items()]
    wanted_shapes = [tuple(one.shape) for one in network.inputs]
    specs = [
        tf.TensorSpec(shape if shape is not None else one.shape, one.dtype, name=name)
        for (name, shape), one in zip(zip(job["shapes"], shapes), network.inputs)
    ]

    def moved(inputs: list[Any]) -> list[Any]:
        kept = [shape is not None for shape in shapes]
        return [_moved(one, wanted) if keep else one for one, wanted, keep in zip(inputs, wanted_shapes, kept)]

    turns = _output_turns(network, moved, job)

    @tf.function(input_signature=[specs])  # type: ignore[untyped-decorator, unused-ignore]
    def forward(inputs: list[Any]) -> Any:
        outputs = tf.nest.flatten(network(moved(inputs)))
        return [one if axes is None else tf.transpose(one, axes) for one, axes in zip(outputs, turns)]

    return forward.get_concrete_function(), specs


def _moved(tensor: Any, wanted: tuple[int, ...]) -> Any:
    """Return the tensor in the network's layout: a scalar as [1], and the second axis last."""
    shape, rank = tuple(tensor.shape), len(tensor.shape)
    if rank != len(wanted):
        return tf.reshape(tensor, [1 if size is None else size for size in wanted])
    if rank in _MOVED_RANKS and (shape[0], *shape[2:], shape[1]) == wanted:  # also where all sizes are the same
        return tf.transpose(tensor, [0, *range(2, rank), 1])
    return tensor


def _output_turns(network: Any, moved: Any, job: Job) -> list[tuple[int, ...] | None]:
    """Return for each output the permutation that gives it the source's axes; None if it stays as it is.

    Which outputs onnx2tf leaves with the channels last is not told by their shapes alone, so both models are run.
    """
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    for lowest in (1, 0):  # 0 kills the process where a model divides by it; an index may have to be 0
        generator = np.random.default_rng(0)
        ports = session.get_inputs()
        feeds = {one.name: _random(generator, job["shapes"][one.name], one.type, lowest) for one in ports}
        try:
            expected = session.run(None, feeds)
            break
        except Exception as error:  # random values need not suit the model: its outputs stay as they are
            print(f"the layout of the outputs is not known: {error}", file=sys.stderr)
    else:
        return [None] * len(session.get_outputs())
    inputs = []
    for name, values in feeds.items():
        is_picture = name not in job["kept"] and values.ndim == 4
        inputs.append(tf.constant(values.transpose(_TURNS[0]) if is_picture else values))
    given = [np.asarray(one) for one in tf.nest.flatten(network(moved(inputs)))]
    return [_turn(mine, other) for mine, other in zip(expected, given)]


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


def _random(generator: Any, shape: list[int], kind: str, lowest: int) -> Any:
    """Return random values; integers are `lowest` or one more, truth values any."""
    dtype = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}.get(kind)
    if dtype is not None:
        return np.asarray(generator.standard_normal(shape), dtype)
    if kind == "tensor(bool)":
        return np.asarray(generator.integers(0, 2, shape), np.bool_)
    return np.asarray(generator.integers(lowest, lowest + 2, shape), kind[len("tensor(") : -1])


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
    turned = [_turned(samples[name], tensor.shape) for name, tensor in zip(samples.files, inputs)]
    converter.representative_dataset = lambda: ([values[i] for values in turned] for i in range(len(turned[0])))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.dtypes.as_dtype(job["io_dtype"])
    converter.inference_output_type = tf.float32 if job["keep"] else converter.inference_input_type
    # Runtimes as old as the Edge TPU compiler only read the first scale of a dense layer, and give wrong results.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True


def _kept(converter: Any, job: Job) -> Any:
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


def _turned(samples: Any, shape: Any) -> Any:
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
