"""Does a model take pixels as they are, 0 to 255? Told by the first thing that it does to its input.

Many Keras networks (EfficientNet, MobileNetV3, ConvNeXt) rescale inside; fed with −1 to 1, all pictures are as good as
black to them. Nothing is run: Keras' own description is read, or the first nodes of an ONNX graph. What other formats
do is not looked at.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.quiet import loading

PIXELS = (0.0, 255.0)
_LEAST = 64  # dividing by this much or more, or subtracting it, makes sense for pixels alone
_LARGEST_CONFIG = 64 * 2**20  # bytes of JSON
_PASSING_LAYERS = ("InputLayer", "ZeroPadding2D", "Resizing", "CenterCrop", "Permute", "Random")  # as they begin
_PASSING_NODES = ("Transpose", "Cast", "Identity", "Reshape", "Pad")


def pixel_range(model: Path, model_format: str) -> tuple[float, float] | None:
    """(0, 255) where the model rescales pixels itself, None where nothing tells; InputError for a broken file."""
    if model_format == "keras":
        takes_pixels = _keras_takes_pixels(model)
    else:
        takes_pixels = model_format == "onnx" and _onnx_takes_pixels(model)
    return PIXELS if takes_pixels else None


def _keras_takes_pixels(model: Path) -> bool:
    with loading(model, "a Keras model"):
        first = next(_layers(_config(model)), {})
    known = first.get("config", {})
    if first.get("class_name") == "Rescaling":
        return _is_small(known.get("scale"))
    return first.get("class_name") == "Normalization" and _is_large(known.get("mean"))


def _config(model: Path) -> Any:
    if zipfile.is_zipfile(model):
        with zipfile.ZipFile(model) as archive, archive.open("config.json") as stream:
            return json.loads(stream.read(_LARGEST_CONFIG))
    import h5py

    with h5py.File(model, "r") as file:
        return json.loads(file.attrs["model_config"])


def _layers(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The layers that change values, in order, those of models inside models too."""
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


def _is_rescaling(node: Any, place: str, constants: Mapping[str, Any]) -> bool:
    """Whether an ONNX node divides its input `place` by, or moves it by, what only fits pixels."""
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
    """As an array; an empty one for None, which stands for numbers that lie among the weights."""
    if isinstance(value, Mapping):  # how Keras 3 writes an array
        value = (value.get("config") or {}).get("value")
    return np.asarray([] if value is None else value, np.float64)
