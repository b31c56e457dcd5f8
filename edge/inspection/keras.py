"""Inspect Keras files: the layers, read from `config.json` in the archive without running any of its code.

A `.keras` file is a zip archive. An `.h5` file is HDF5, whose library is native code, so a child process reads it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from edge.inspection.archive import Archive, expecting
from edge.inspection.hdf5_worker import AttributesJob
from edge.inspection.report import Inspection
from runtimes.artifact.manifest import TensorSpec
from runtimes.model_files.facts import Producer

_CONFIG = "config.json"
_HDF5_SECONDS = 60.0
_DEEPEST = 32  # levels of nested models
# Dtype policy → the project's name for the precision; mixed_float16 keeps its weights in float32.
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}
_PRECISIONS |= {"mixed_float16": "fp32", "mixed_bfloat16": "fp32"}
# Layers whose output has the shape of their input.
_SAME_SHAPE = ("Activation", "Softmax", "ReLU", "Dropout", "BatchNormalization", "LayerNormalization", "Identity")


# The parts of Keras' JSON that are read. They are not validated: `expecting` converts errors to InputError.
class _LayerConfig(TypedDict, total=False):
    name: str
    layers: list[_Layer]
    output_layers: Any  # [name, node, tensor], or nested lists and objects of these
    batch_shape: list[int | None]
    batch_input_shape: list[int | None]
    dtype: Any  # a string, or an object
    units: int
    activation: Any  # a string, or an object


class _Layer(TypedDict, total=False):
    """A layer, or a nested model."""

    class_name: str
    name: str
    registered_name: str | None
    config: _LayerConfig
    build_config: dict[str, list[int | None]] | None
    inbound_nodes: list[Any]


class _Metadata(TypedDict, total=False):
    keras_version: str
    date_saved: str


def read(path: Path) -> Inspection:
    """Read a `.keras` or `.h5` file.

    Raises InputError if it is broken, and EngineMissingError for an `.h5` file if h5py is not installed.
    """
    model, metadata = _from_hdf5(path) if path.suffix.lower() == ".h5" else _from_archive(path)
    with expecting(path, _CONFIG):
        return _inspection(model, metadata)


def _from_archive(path: Path) -> tuple[_Layer, _Metadata]:
    with Archive(path) as archive:
        metadata: _Metadata = archive.json("metadata.json") if "metadata.json" in archive.names() else {}
        return archive.json(_CONFIG), metadata


def _from_hdf5(path: Path) -> tuple[_Layer, _Metadata]:
    from edge.workers.process import run_job

    job = AttributesJob(str(path))
    found = run_job(job, module="edge.inspection.hdf5_worker", timeout_s=_HDF5_SECONDS)
    with expecting(path, "attribute model_config"):
        return json.loads(found.model_config), {"keras_version": found.keras_version}


def _inspection(model: _Layer, metadata: _Metadata) -> Inspection:
    layers = list(_layers(model, _DEEPEST))
    outputs, unknown = _outputs(model)
    last = _output_layers(model)
    return Inspection(
        format="keras",
        inputs=tuple(_input(one["config"]) for one in _top_layers(model) if one["class_name"] == "InputLayer"),
        outputs=outputs,
        ops=Counter(str(one["class_name"]) for one in layers),
        precision=_precision(layers),
        producers=(Producer(_output_op(last[0][1])),) if last else (),
        metadata={
            key: value
            for key, value in {
                "name": model["config"].get("name"),
                "class": model.get("registered_name") or model["class_name"],
                "keras": metadata.get("keras_version"),
                "saved": metadata.get("date_saved"),
            }.items()
            if value
        },
        notes=tuple(f"only Keras can determine the shape of output '{name}'" for name in unknown),
    )


def _top_layers(model: _Layer) -> list[_Layer]:
    return list(model["config"].get("layers", []))


def _layers(model: _Layer, depth: int) -> Iterator[_Layer]:
    """Yield all layers except inputs, including those of nested models."""
    if depth == 0:
        raise ValueError(f"models are nested more than {_DEEPEST} deep")
    for layer in _top_layers(model):
        if "layers" in layer["config"]:
            yield from _layers(layer, depth - 1)
        elif layer["class_name"] != "InputLayer":
            yield layer


def _input(config: _LayerConfig) -> TensorSpec:
    shape = config["batch_shape"] if "batch_shape" in config else config["batch_input_shape"]
    return TensorSpec(str(config["name"]), _policy(config), _shape(shape))


def _outputs(model: _Layer) -> tuple[tuple[TensorSpec, ...], list[str]]:
    """Return the outputs whose shape the file contains, and the names of the others."""
    known, unknown = [], []
    for name, layer in _output_layers(model):
        shape = _output_shape(layer)
        if shape is None:
            unknown.append(name)
        else:
            known.append(TensorSpec(name, _policy(layer["config"]), shape))
    return tuple(known), unknown


def _output_layers(model: _Layer) -> list[tuple[str, _Layer]]:
    """Return the outputs by name: the key for a model that returns a dictionary, else the layer's name."""
    layers = _top_layers(model)
    named = model["config"].get("output_layers")
    if named is None:
        return [(_name(layer), layer) for layer in layers[-1:]]
    by_name = {_name(layer): layer for layer in layers}
    return [("/".join(keys) or str(entry[0]), by_name[entry[0]]) for keys, entry in _entries(named, ())]


def _name(layer: _Layer) -> str:
    """Return the name of a layer. The configuration of a custom one need not hold it."""
    return str(layer["config"].get("name") or layer["name"])


def _entries(named: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every [name, node, tensor] of `output_layers`, with the keys that lead to it."""
    if len(keys) > _DEEPEST:
        raise ValueError(f"outputs are nested more than {_DEEPEST} deep")
    if isinstance(named, dict):
        for key in sorted(named):  # the order in which Keras flattens it
            yield from _entries(named[key], (*keys, str(key)))
    elif named and isinstance(named[0], str):
        yield keys, named
    else:
        for place, one in enumerate(named):
            yield from _entries(one, (*keys, str(place)) if keys else ())


def _output_shape(layer: _Layer) -> tuple[int | str, ...] | None:
    shape = (layer.get("build_config") or {}).get("input_shape") or _traced_shape(layer)
    if not shape:
        return None
    if layer["class_name"] == "Dense":
        return _shape([*shape[:-1], layer["config"]["units"]])
    return _shape(shape) if layer["class_name"] in _SAME_SHAPE else None


def _traced_shape(layer: _Layer) -> Any:
    """Return the shape of the layer's input tensor in a functional model."""
    try:
        return layer["inbound_nodes"][0]["args"][0]["config"]["shape"]
    except (KeyError, TypeError, IndexError):
        return None


def _output_op(layer: _Layer) -> str:
    activation = layer["config"].get("activation")
    name = activation["config"] if isinstance(activation, dict) else activation
    return str(name) if name and name != "linear" else str(layer["class_name"])


def _shape(sizes: list[Any]) -> tuple[int | str, ...]:
    return tuple(f"d{index}" if size is None else int(size) for index, size in enumerate(sizes))


def _policy(config: _LayerConfig) -> str:
    """Return the name of a layer's dtype policy, which Keras writes as a string or as an object."""
    policy = config.get("dtype") or "float32"
    if not isinstance(policy, dict):
        return str(policy)
    known = policy["config"]  # of a quantized layer it has the two parts of the name
    return str(known["name"] if "name" in known else f"{known['mode']}_from_{known['source_name']}")


def _precision(layers: list[_Layer]) -> str:
    policies = Counter(_policy(layer["config"]) for layer in layers)
    if not policies:
        return "unknown"
    if any(policy.startswith("int8") for policy in policies):
        return "w8"
    most = policies.most_common(1)[0][0]
    return _PRECISIONS.get(most, most)
