"""ONNX to TFLite with onnx2tf and TensorFlow's own converter; runs inside its environment (see runner.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import onnx
import onnx2tf.onnx2tf as onnx2tf
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

_TURNS = ((0, 2, 3, 1), (0, 3, 1, 2))  # NCHW to NHWC, NHWC to NCHW


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


def run(job: Job) -> dict[str, str]:
    """Write job["out"] from the ONNX file job["model"]. Returns {}.

    "precision": fp32, fp16, w8 or int8; "shapes": {input: its fixed shape}; "kept": inputs whose axes are not moved;
    "io_dtype" and "samples" (an .npz, [n, *shape] by input name in the model's own axes) for int8;
    "keep": the tensors whose layers stay in float32, and with them the outputs.
    """
    # onnx2tf would download a picture to compare its layers with the source's.
    onnx2tf.download_test_image_data = _noise
    function, specs = _function(_network(job), job)
    # Variables in the graph would be uninitialized during calibration.
    frozen = convert_variables_to_constants_v2(function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if job["precision"] != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job["precision"] == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if job["precision"] == "int8":
        _set_int8(converter, job, specs)
    Path(job["out"]).write_bytes(_kept(converter, job["keep"]) if job["keep"] else converter.convert())
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
    so inputs whose axes are kept are transposed here, which TensorFlow's converter optimizes away.
    """
    shapes = [shape if name in job["kept"] else None for name, shape in job["shapes"].items()]
    wanted_shapes = [tuple(one.shape) for one in network.inputs]
    specs = [
        tf.TensorSpec(shape if shape is not None else one.shape, one.dtype, name=name)
        for (name, shape), one in zip(zip(job["shapes"], shapes), network.inputs)
    ]

    @tf.function(input_signature=[specs])  # type: ignore[untyped-decorator, unused-ignore]
    def forward(inputs: list[Any]) -> Any:
        return network([_moved(one, wanted) for one, wanted in zip(inputs, wanted_shapes)])

    return forward.get_concrete_function(), specs


def _moved(tensor: Any, wanted: tuple[int, ...]) -> Any:
    """Return the tensor in the network's layout: a scalar as [1], and the second axis last."""
    if tuple(tensor.shape) == wanted:
        return tensor
    rank = len(tensor.shape)
    return tf.reshape(tensor, wanted) if rank != len(wanted) else tf.transpose(tensor, [0, *range(2, rank), 1])


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


def _kept(converter: Any, layers: list[str]) -> Any:
    """Return the int8 model with the layers that write the tensors `layers` in float32, as in converters.tensorflow."""
    from tensorflow.lite.python.convert import mlir_quantize

    converter._experimental_calibrate_only = True
    return mlir_quantize(
        converter.convert(),
        input_data_type=converter.inference_input_type,
        output_data_type=converter.inference_output_type,
        denylisted_nodes=layers,
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
