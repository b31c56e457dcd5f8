"""Where MobileNetV2's weights come from: a file, the data folder, Keras' own download, or a seeded draw.

Finding them reads headers only and imports no engine; `load_weights` reads the tensors.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np

import converters
from converters.mobilenet_v2.architecture import tensor_shapes
from converters.mobilenet_v2.random_weights import random_weights
from converters.steps import check_library
from runtimes.arrays import Array, Arrays
from runtimes.artifact import sha256
from runtimes.errors import InputError

SHARED_FILE = Path("mobilenet_v2", "mobilenet_v2_1.0_224_imagenet1001.safetensors")
RANDOM_SEED = 0
_KERAS_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
_KERAS_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{_KERAS_FILE}"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_LARGEST = 64 * 2**20
_HINT = "give a MobileNetV2 1.0/224 weights file, BatchNorm folded, with 1000 or 1001 classes"


@dataclass(frozen=True)
class Weights:
    """Which weights: `kind` is "file" (safetensors), "keras" (Keras' own .h5) or "random".

    `sha256` is the file's digest; for random weights it is the digest of the seed that they are drawn from.
    """

    kind: str
    path: Path | None
    sha256: str
    classes: int

    @property
    def trained(self) -> bool:
        """Whether answers mean anything."""
        return self.kind != "random"

    @property
    def label_offset(self) -> int:
        """1 where class 0 is "background" (1001 classes), else 0."""
        return self.classes - 1000


def find_weights(explicit: Path | None = None, data: Path | None = None) -> Weights:
    """The weights to use: `explicit`, else the `data` folder's, else Keras' download if it is there, else random ones.

    `data` defaults to `data_folder()`. Raises InputError, naming the tensor at fault, for a file that does not fit.
    """
    if explicit is not None:
        return weights_of(explicit)
    folder = data or data_folder()
    for path in ([folder / SHARED_FILE] if folder else []) + [keras_cache()]:
        if path.is_file():
            return _from_file(path)
    return weights_of(None)


def weights_of(path: Path | None) -> Weights:
    """The weights in a file, or seeded random ones for None."""
    if path is not None:
        return _from_file(path)
    seed = f"MobileNetV2, random weights, seed {RANDOM_SEED}"
    return Weights("random", None, hashlib.sha256(seed.encode()).hexdigest(), 1000)


def load_weights(weights: Weights) -> Arrays:
    """The tensors of `architecture.tensor_shapes`, float32; BatchNorm folded into weight and bias."""
    if weights.path is None:
        return random_weights(RANDOM_SEED, weights.classes)
    if weights.kind == "keras":
        from converters.mobilenet_v2.keras_model import read_keras_weights

        return read_keras_weights(weights.path)
    return _read_safetensors(weights.path)


def data_folder() -> Path | None:
    """The folder with pictures and weights: EDGE_DATA, else `../shared/data` beside a checkout; None without one."""
    named = os.environ.get("EDGE_DATA")
    if named:
        return Path(named)
    beside = Path(converters.__file__).resolve().parents[2] / "shared" / "data"
    return beside if beside.is_dir() else None


def keras_cache() -> Path:
    """Where Keras keeps its own MobileNetV2 weights, whether they are there or not."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models" / _KERAS_FILE


def download(timeout_s: float = 20.0) -> Path | None:
    """Fetch Keras' own weights (14 MB, ImageNet) into Keras' cache, for set-up; None when they cannot be had.

    `timeout_s` bounds each wait for the network. A file that is there already is kept.
    """
    target = keras_cache()
    if target.is_file():
        return target
    partial = target.with_suffix(".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(_KERAS_URL, timeout=timeout_s) as answer, partial.open("wb") as stream:
            shutil.copyfileobj(answer, stream)
        if not partial.read_bytes().startswith(_HDF5):  # a proxy's page, say
            return None
        partial.replace(target)
    except (OSError, HTTPException):
        return None
    finally:
        partial.unlink(missing_ok=True)
    return target


def _from_file(path: Path) -> Weights:
    if not path.is_file():
        raise InputError(f"the weights file {path} does not exist", _HINT)
    if path.stat().st_size > _LARGEST:
        raise InputError(f"{path} is larger than any MobileNetV2 1.0", _HINT)
    if path.suffix == ".h5":
        return Weights("keras", path, sha256(path), 1000)
    return Weights("file", path, sha256(path), _check_header(path))


def _check_header(path: Path) -> int:
    """The number of classes of a safetensors file whose names and shapes are right."""
    found = _shapes(path)
    bias = found.get("classifier.bias", (1000,))
    if bias not in ((1000,), (1001,)):
        raise InputError(f"{path}: tensor 'classifier.bias' is {list(bias)}, not [1000] or [1001]", _HINT)
    (classes,) = bias
    expected = tensor_shapes(classes)
    for name, shape in expected.items():
        if name not in found:
            raise InputError(f"{path} lacks the tensor '{name}'", _HINT)
        if found[name] != shape:
            raise InputError(f"{path}: tensor '{name}' is {list(found[name])}, not {list(shape)}", _HINT)
    for name in sorted(set(found) - set(expected)):
        raise InputError(f"{path}: MobileNetV2 has no tensor '{name}'", _HINT)
    return classes


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    check_library("safetensors", "reading weights")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}", _HINT) from None


def _read_safetensors(path: Path) -> Arrays:
    check_library("safetensors", "reading weights")
    from safetensors import SafetensorError, safe_open

    _check_header(path)
    try:
        with safe_open(path, framework="numpy") as tensors:
            return {name: _float32(path, name, tensors.get_tensor(name)) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: a dtype that numpy lacks, such as bfloat16
        raise InputError(f"{path} is not a readable safetensors file: {error}", _HINT) from None


def _float32(path: Path, name: str, array: Array) -> Array:
    if array.dtype.kind != "f":
        raise InputError(f"{path}: tensor '{name}' is {array.dtype.name}, not floating point", _HINT)
    result: Array = array.astype(np.float32)
    if not np.isfinite(result).all():
        raise InputError(f"{path}: tensor '{name}' holds values that are not finite", _HINT)
    return result
