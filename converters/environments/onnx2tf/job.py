"""ONNX to TFLite with onnx2tf and TensorFlow's own converter; runs inside its environment (see child.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx2tf.onnx2tf as onnx2tf
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

_TURNS = ((0, 2, 3, 1), (0, 3, 1, 2))  # NCHW to NHWC, NHWC to NCHW


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Write job["out"] from the ONNX file job["model"]; answers {}.

    "precision": fp32, fp16, w8 or int8; "shapes": {input: its fixed shape}; "kept": inputs whose axes
    stay as they are; "io_dtype" and "samples" (an .npz, [n, *shape] by input name in the model's own axes) for int8.
    """
    # onnx2tf compares its layers with the source's on a picture that it would download.
    onnx2tf.download_test_image_data = _noise
    function, specs = _function(_network(job), job)
    # Variables left in the graph are read as uninitialised while it is calibrated.
    frozen = convert_variables_to_constants_v2(function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if job["precision"] != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job["precision"] == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if job["precision"] == "int8":
        _set_int8(converter, job, specs)
    Path(job["out"]).write_bytes(converter.convert())
    return {}


def _network(job: dict[str, Any]) -> Any:
    """The model as a Keras model, batch fixed, pictures in NHWC."""
    _fix_shapes(onnx.load(job["model"]), job["shapes"])
    # As onnx2tf does it: in a process of its own, as some models crash it. Those go on as they are.
    # A Pad before a pool stays apart: onnx2tf pads pools with minus infinity, which int8 cannot hold.
    simplify = [sys.executable, "-m", "onnxsim", "model.onnx", "model.onnx"]
    subprocess.run([*simplify, "--skip-optimization", "fuse_pad_into_pool"], stdout=sys.stderr, check=False)
    return onnx2tf.convert(
        input_onnx_file_path="model.onnx",
        output_folder_path=".",
        not_use_onnxsim=True,  # done above: it would look for a program of that name
        disable_model_save=True,
        replace_to_pseudo_operators=["erf"],  # TFLite has no Erf, of which ONNX makes GELU
        non_verbose=True,
    )


def _function(network: Any, job: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The network as a function of its inputs, and their specs.

    onnx2tf moves the second axis of every input to the end. Told to leave an input as it is, it builds networks that
    answer wrong; so one that is to stay is moved here, which TensorFlow's converter folds away.
    """
    shapes = [shape if name in job["kept"] else None for name, shape in job["shapes"].items()]
    moved = [shape is not None and tuple(shape) != tuple(one.shape) for shape, one in zip(shapes, network.inputs)]
    specs = [
        tf.TensorSpec(shape if shape is not None else one.shape, one.dtype, name=name)
        for (name, shape), one in zip(zip(job["shapes"], shapes), network.inputs)
    ]

    @tf.function(input_signature=[specs])  # type: ignore[untyped-decorator, unused-ignore]
    def forward(inputs: list[Any]) -> Any:
        return network([_second_last(one) if move else one for one, move in zip(inputs, moved)])

    return forward.get_concrete_function(), specs


def _second_last(tensor: Any) -> Any:
    rank = len(tensor.shape)
    return tf.transpose(tensor, [0, *range(2, rank), 1])


def _fix_shapes(model: Any, shapes: dict[str, list[int]]) -> None:
    """Write model.onnx with these input shapes; what the old ones led to is inferred anew."""
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ())):
            dim.dim_value = size
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.Clear()
    onnx.save(model, "model.onnx")


def _set_int8(converter: Any, job: dict[str, Any], inputs: Any) -> None:
    samples = np.load(job["samples"])
    turned = [_turned(samples[name], tensor.shape) for name, tensor in zip(samples.files, inputs)]
    converter.representative_dataset = lambda: ([values[i] for values in turned] for i in range(len(turned[0])))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(job["io_dtype"])
    # Runtimes of the Edge TPU compiler's age read only the first scale of a dense layer, and answer wrong.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True


def _turned(samples: Any, shape: Any) -> Any:
    """Samples [n, *shape of the source] in the axes of the converted model."""
    if samples.shape[1:] == tuple(shape):
        return samples
    for axes in _TURNS:
        turned = samples.transpose(0, *(axis + 1 for axis in axes)) if samples.ndim == 5 else samples
        if turned.shape[1:] == tuple(shape):
            return turned
    raise ValueError(f"an input of {list(samples.shape[1:])} became {list(shape)}")


def _noise() -> Any:
    return np.random.default_rng(0).uniform(0, 1, (20, 128, 128, 3)).astype(np.float32)
