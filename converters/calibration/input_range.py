"""Detect whether a model expects raw pixels, 0 to 255, by the first operation on its input.

Many Keras networks (EfficientNet, MobileNetV3, ConvNeXt) rescale internally; with inputs from −1 to 1, they see nearly
black pictures. Nothing is run: only Keras' configuration or the first nodes of an ONNX graph are read. Other formats
are not supported.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.library_calls import loading

if TYPE_CHECKING:
    from onnx import TensorProto

PIXELS = (0.0, 255.0)
_LEAST = 64  # dividing by or subtracting at least this much only makes sense for pixels
_MAX_CONFIG_BYTES = 64 * 2**20  # bytes of JSON
_PASSING_LAYERS = ("InputLayer", "ZeroPadding2D", "Resizing", "CenterCrop", "Permute", "Random")  # as they begin
_PASSING_NODES = ("Transpose", "Cast", "Identity", "Reshape", "Pad")


def pixel_range(model: Path, model_format: str) -> tuple[float, float] | None:
    """Return (0, 255) if the model rescales pixels itself, None if unknown. Raises InputError for a damaged file."""
    takes_pixels = _DETECTORS.get(model_format)
    return PIXELS if takes_pixels is not None and takes_pixels(model) else None


def _keras_takes_pixels(model: Path) -> bool:
    with loading(model, "a Keras model"):
        first = next(_layers(keras_config(model)), {})
    known = first.get("config", {})
    if first.get("class_name") == "Rescaling":
        return _is_small(known.get("scale"))
    return first.get("class_name") == "Normalization" and _is_large(known.get("mean"))


def keras_config(model: Path) -> Any:
    """Return the configuration in a `.keras` or `.h5` file; the errors of a damaged file are the caller's."""
    if zipfile.is_zipfile(model):
        with zipfile.ZipFile(model) as archive, archive.open("config.json") as stream:
            return json.loads(stream.read(_MAX_CONFIG_BYTES))
    import h5py

    with h5py.File(model, "r") as file:
        return json.loads(file.attrs["model_config"])


def _layers(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the layers that change values, in order, including those of nested models."""
    known = config.get("config", {})
    for layer in known if isinstance(known, list) else known.get("layers", ()):  # a list in files of Keras 1 and 2.0
        if isinstance(layer.get("config"), list) or "layers" in layer.get("config", {}):
            yield from _layers(layer)
        elif not str(layer.get("class_name")).startswith(_PASSING_LAYERS):
            yield layer


def _onnx_takes_pixels(model: Path) -> bool:
    with loading(model, "ONNX"):
        import onnx

        graph = onnx.load(model, load_external_data=False).graph
        constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_location == tensor.DEFAULT}
        made = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
        constants |= {node.output[0]: node.attribute[0].t for node in made}
        place = next((value.name for value in graph.input if value.name not in constants), "")
        for node in graph.node:
            if place not in node.input:
                continue
            if node.op_type not in _PASSING_NODES:
                return _is_rescaling(node, place, constants)
            place = node.output[0]
    return False


def _is_rescaling(node: Any, place: str, constants: Mapping[str, TensorProto]) -> bool:
    """Return whether an ONNX node divides or shifts its input `place` by an amount that only makes sense for pixels."""
    from onnx import numpy_helper

    others = [constants[name] for name in node.input if name != place and name in constants]
    if len(node.input) != 2 or not others:
        return False
    value = numpy_helper.to_array(others[0])
    if node.op_type == "Mul":
        return _is_small(value)
    return node.op_type in ("Div", "Sub", "Add") and _is_large(value)


def _is_small(factor: Any) -> bool:
    values = _numbers(factor)
    return bool(values.size) and bool(0 < values.max() <= 1 / _LEAST)


def _is_large(number: Any) -> bool:
    values = _numbers(number)
    return bool(values.size) and bool(np.abs(values).max() >= _LEAST)


def _numbers(value: Any) -> Any:
    """Convert to an array; empty for None, which means that the numbers are stored with the weights."""
    if isinstance(value, Mapping):  # how Keras 3 writes an array
        value = (value.get("config") or {}).get("value")
    return np.asarray([] if value is None else value, np.float64)


# Format → whether the model in a file of it takes pixels.
_DETECTORS: Mapping[str, Callable[[Path], bool]] = {"keras": _keras_takes_pixels, "onnx": _onnx_takes_pixels}
