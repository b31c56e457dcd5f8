"""Read the files of Keras 2 with Keras 3: the layers' configuration is rewritten in a temporary copy.

Keras 3 refuses arguments that its layers no longer have, even without effect, and silently gives 'hard_sigmoid' another
meaning. What cannot be rewritten is refused, naming the layer.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from runtimes.errors import InputError

_CONFIG = "config.json"
_METADATA = "metadata.json"
_EXPORT = (
    "in an environment with Keras 2, load it and write it with model.export('folder'): a SavedModel can be converted"
)
# Layers that Keras 3 does not have, or builds from other weights.
_GONE = ("TFOpLambda", "SlicingOpLambda", "LocallyConnected1D", "LocallyConnected2D", "MultiHeadAttention")
_HARD_SIGMOID = "hard_sigmoid_of_keras_2"
_THRESHOLDED = "ThresholdedReLU"
_PACKAGE = "edge"
# Arguments that Keras 3 does not take, and their values that change nothing in Keras 2; () if none does.
_DROPPED: Sequence[tuple[Callable[[str], bool], dict[str, tuple[object, ...]]]] = (
    (lambda name: name.startswith(("Depthwise", "Separable")) or name.endswith("Transpose"), {"groups": (1, None)}),
    (
        lambda name: name.startswith("Separable"),
        {"kernel_initializer": (), "kernel_regularizer": (), "kernel_constraint": ()},
    ),
    (
        lambda name: any(kind in name for kind in ("RNN", "LSTM", "GRU")),
        {"time_major": (False, None), "implementation": ()},
    ),
    (lambda name: name.startswith("SpatialDropout"), {"trainable": (), "noise_shape": ()}),
)


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """Yield a file that Keras 3 reads with the meaning of `path`: `path` itself, or a copy that is removed later.

    Raises InputError, naming the layer, for what Keras 3 cannot express.
    """
    if not _is_old(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        if path.suffix.lower() == ".h5":
            shutil.copyfile(path, copy)
            _rewrite_hdf5(path, copy)
        else:
            _rewrite_archive(path, copy)
        _register()
        yield copy


def _is_old(path: Path) -> bool:
    """Return whether Keras 2 or older wrote the file."""
    if path.suffix.lower() == ".h5":
        import h5py

        with h5py.File(path, "r") as file:
            return "model_config" in file.attrs and not _text(file.attrs.get("keras_version", "")).startswith("3")
    with zipfile.ZipFile(path) as archive:
        metadata = json.loads(archive.read(_METADATA)) if _METADATA in archive.namelist() else {}
        return str(metadata.get("keras_version", "3")).startswith("2")


def _rewrite_hdf5(path: Path, copy: Path) -> None:
    import h5py

    with h5py.File(copy, "r+") as file:
        config = json.loads(_text(file.attrs["model_config"]))
        file.attrs["model_config"] = json.dumps(_rewrite(config, path)).encode()


def _rewrite_archive(path: Path, copy: Path) -> None:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as result:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == _CONFIG:
                content = json.dumps(_rewrite(json.loads(content), path)).encode()
            result.writestr(entry.filename, content)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _rewrite(config: Any, path: Path) -> Any:
    """Return the configuration in the form of Keras 3. Raises InputError for a layer that Keras 3 does not have."""
    names = {name: name.replace("/", "_") for name in _layer_names(config) if "/" in name}
    return _rename(_layer(config, path), names) if names else _layer(config, path)


def _layer(value: Any, path: Path) -> Any:
    """Rewrite a layer, or whatever contains layers."""
    if isinstance(value, list):
        return [_layer(one, path) for one in value]
    if not isinstance(value, dict):
        return value
    if not isinstance(value.get("class_name"), str) or not isinstance(value.get("config"), dict):
        return {key: _layer(one, path) for key, one in value.items()}
    kind, config = value["class_name"].rpartition(">")[2], dict(value["config"])
    name = str(config.get("name", value.get("name", "")))
    if kind in _GONE:
        raise InputError(f"{path}: layer '{name}' is a {kind} of Keras 2, which Keras 3 cannot read", _EXPORT)
    _drop(kind, config, f"{path}: layer '{name}' ({kind})")
    if kind == "BatchNormalization" and isinstance(config.get("axis"), list):
        (config["axis"],) = config["axis"]
    for key in ("activation", "recurrent_activation"):
        if config.get(key) == "hard_sigmoid":
            config[key] = _registered("function", _HARD_SIGMOID, config=f"{_PACKAGE}>{_HARD_SIGMOID}")
    rest = {key: one for key, one in value.items() if key != "config"}
    if kind == "Functional":
        rest["module"] = "keras.src.models.functional"
    if kind == _THRESHOLDED:
        rest.update(_registered(f"{_PACKAGE}>{kind}", kind))
    return {**rest, "config": {key: _layer(one, path) for key, one in config.items()}}


def _drop(kind: str, config: Any, where: str) -> None:
    for applies, arguments in _DROPPED:
        for name in arguments if applies(kind) else ():
            value = config.pop(name, None)
            if arguments[name] and value not in arguments[name]:
                raise InputError(f"{where} has {name}={value!r}, which Keras 3 does not support", _EXPORT)


def _registered(class_name: str, name: str, **config: str) -> Any:
    return {"class_name": class_name, "module": None, "registered_name": f"{_PACKAGE}>{name}", **config}


def _layer_names(value: Any) -> Iterator[str]:
    """Yield the names of all layers. Keras 3 allows no '/' in them."""
    if isinstance(value, list):
        for one in value:
            yield from _layer_names(one)
    elif isinstance(value, dict):
        config = value.get("config")
        if "class_name" in value and isinstance(config, dict) and isinstance(config.get("name"), str):
            yield config["name"]
        for one in value.values():
            yield from _layer_names(one)


def _rename(value: Any, names: dict[str, str]) -> Any:
    """Replace the names of layers wherever they are referred to. Weights are found by position, not by name."""
    if isinstance(value, list):
        return [_rename(one, names) for one in value]
    if isinstance(value, dict):
        return {key: _rename(one, names) for key, one in value.items()}
    return names.get(value, value) if isinstance(value, str) else value


def _register() -> None:
    """Make the functions and layers that Keras 3 lacks known to it, with the meaning of Keras 2."""
    import keras

    def hard_sigmoid(x: Any) -> Any:
        return keras.ops.clip(x * 0.2 + 0.5, 0.0, 1.0)

    class ThresholdedReLU(keras.layers.Layer):  # type: ignore[misc,unused-ignore] # a class of a library without types
        def __init__(self, theta: float = 1.0, **options: Any) -> None:
            super().__init__(**options)
            self.theta = float(theta)

        def call(self, inputs: Any) -> Any:
            return inputs * keras.ops.cast(inputs > self.theta, inputs.dtype)

        def get_config(self) -> Any:
            return {**super().get_config(), "theta": self.theta}

    register = keras.saving.register_keras_serializable
    register(_PACKAGE, _HARD_SIGMOID)(hard_sigmoid)
    register(_PACKAGE, _THRESHOLDED)(ThresholdedReLU)
