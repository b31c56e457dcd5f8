"""What is in a Keras file: its layers, read from `config.json` in the archive; no code of it is run.

A `.keras` file is a zip archive. An `.h5` file is HDF5, whose library is native code: it is read in a child process.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.inspection.archive import Archive, expecting
from edge.inspection.report import Inspection
from runtimes.manifest import TensorSpec

_CONFIG = "config.json"
_HDF5_SECONDS = 60.0
_DEEPEST = 32  # models within models
# Dtype policy → the project's word; mixed_float16 keeps its weights in float32.
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}
_PRECISIONS |= {"mixed_float16": "fp32", "mixed_bfloat16": "fp32"}
# Layers whose output has the shape of their input.
_SAME_SHAPE = ("Activation", "Softmax", "ReLU", "Dropout", "BatchNormalization", "LayerNormalization", "Identity")
_Config = Mapping[str, Any]


def read(path: Path) -> Inspection:
    """Read a `.keras` or `.h5` file; InputError when it is broken, EngineMissing for `.h5` without h5py."""
    model, metadata = _from_hdf5(path) if path.suffix.lower() == ".h5" else _from_archive(path)
    with expecting(path, _CONFIG):
        return _inspection(model, metadata)


def _from_archive(path: Path) -> tuple[_Config, _Config]:
    with Archive(path) as archive:
        metadata = archive.json("metadata.json") if "metadata.json" in archive.names() else {}
        return archive.json(_CONFIG), metadata


def _from_hdf5(path: Path) -> tuple[_Config, _Config]:
    from edge.workers import run_job

    job = {"job": "attributes", "artifact": str(path)}
    found = run_job(job, module="edge.inspection.hdf5_worker", timeout_s=_HDF5_SECONDS)
    with expecting(path, "attribute model_config"):
        return json.loads(found["model_config"]), {"keras_version": found["keras_version"]}


def _inspection(model: _Config, metadata: _Config) -> Inspection:
    layers = list(_layers(model, _DEEPEST))
    outputs, unknown = _outputs(model)
    last = _output_layers(model)
    return Inspection(
        format="keras",
        inputs=tuple(_input(one["config"]) for one in _top_layers(model) if one["class_name"] == "InputLayer"),
        outputs=outputs,
        ops=Counter(str(one["class_name"]) for one in layers),
        precision=_precision(layers),
        output_op=_output_op(last[0]) if last else None,
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
        notes=tuple(f"only Keras itself knows the shape of output '{name}'" for name in unknown),
    )


def _top_layers(model: _Config) -> list[_Config]:
    return list(model["config"].get("layers", []))


def _layers(model: _Config, depth: int) -> Iterator[_Config]:
    """All layers that work, those of models within the model too."""
    if depth == 0:
        raise ValueError(f"models are nested more than {_DEEPEST} deep")
    for layer in _top_layers(model):
        if "layers" in layer["config"]:
            yield from _layers(layer, depth - 1)
        elif layer["class_name"] != "InputLayer":
            yield layer


def _input(config: _Config) -> TensorSpec:
    shape = config["batch_shape"] if "batch_shape" in config else config["batch_input_shape"]
    return TensorSpec(str(config["name"]), _policy(config), _shape(shape))


def _outputs(model: _Config) -> tuple[tuple[TensorSpec, ...], list[str]]:
    """The outputs whose shape the file tells, and the names of the others."""
    known, unknown = [], []
    for layer in _output_layers(model):
        shape = _output_shape(layer)
        if shape is None:
            unknown.append(str(layer["config"]["name"]))
        else:
            known.append(TensorSpec(str(layer["config"]["name"]), _policy(layer["config"]), shape))
    return tuple(known), unknown


def _output_layers(model: _Config) -> list[_Config]:
    layers = _top_layers(model)
    named = model["config"].get("output_layers")
    if named is None:
        return layers[-1:]
    # One output is written as [name, node, tensor], several as a list of these.
    entries = [named] if named and isinstance(named[0], str) else named
    by_name = {layer["config"]["name"]: layer for layer in layers}
    return [by_name[entry[0]] for entry in entries]


def _output_shape(layer: _Config) -> tuple[int | str, ...] | None:
    shape = (layer.get("build_config") or {}).get("input_shape") or _traced_shape(layer)
    if not shape:
        return None
    if layer["class_name"] == "Dense":
        return _shape([*shape[:-1], layer["config"]["units"]])
    return _shape(shape) if layer["class_name"] in _SAME_SHAPE else None


def _traced_shape(layer: _Config) -> Any:
    """The shape of the tensor that a functional model hands to the layer."""
    try:
        return layer["inbound_nodes"][0]["args"][0]["config"]["shape"]
    except (KeyError, TypeError, IndexError):
        return None


def _output_op(layer: _Config) -> str:
    activation = layer["config"].get("activation")
    name = activation["config"] if isinstance(activation, dict) else activation
    return str(name) if name and name != "linear" else str(layer["class_name"])


def _shape(sizes: list[Any]) -> tuple[int | str, ...]:
    return tuple(f"d{index}" if size is None else int(size) for index, size in enumerate(sizes))


def _policy(config: _Config) -> str:
    """A layer's dtype policy by name; Keras writes it as a word or as an object."""
    policy = config.get("dtype") or "float32"
    return str(policy["config"]["name"] if isinstance(policy, dict) else policy)


def _precision(layers: list[_Config]) -> str:
    policies = Counter(_policy(layer["config"]) for layer in layers)
    if not policies:
        return "unknown"
    if any(policy.startswith("int8") for policy in policies):
        return "w8"
    most = policies.most_common(1)[0][0]
    return _PRECISIONS.get(most, most)
