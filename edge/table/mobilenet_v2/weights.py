"""Find MobileNetV2's weights in a file, the data folder or Keras' download cache, or generate seeded random weights.

`find_weights` only reads headers and imports no engine; `load_weights` reads the tensors.
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

from converters.base import Requirement
from edge.table.mobilenet_v2.architecture import tensor_shapes
from edge.table.mobilenet_v2.random_weights import random_weights
from runtimes.arrays import Array, Arrays
from runtimes.artifact import sha256
from runtimes.errors import InputError

WEIGHTS_FILE = Path("mobilenet_v2", "mobilenet_v2_1.0_224_imagenet1001.safetensors")
RANDOM_SEED = 0
_KERAS_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
_KERAS_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{_KERAS_FILE}"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MAX_BYTES = 64 * 2**20
_HINT = "choose a MobileNetV2 1.0/224 weights file with folded BatchNorm and 1000 or 1001 classes"


@dataclass(frozen=True, kw_only=True)
class WeightsOrigin:
    """Where the weights come from.

    kind: "file" (safetensors), "keras" (Keras' own .h5) or "random".
    path: The file; None for random weights.
    sha256: The digest of the file, or of the seed of random weights.
    classes: 1000, or 1001 with a background class.
    """

    kind: str
    path: Path | None
    sha256: str
    classes: int

    @property
    def trained(self) -> bool:
        """Whether predictions are meaningful."""
        return self.kind != "random"

    @property
    def label_offset(self) -> int:
        """1 if class 0 is "background" (1001 classes), else 0."""
        return self.classes - 1000


def find_weights(explicit: Path | None = None, data: Path | None = None) -> WeightsOrigin:
    """Return the weights to use: `explicit`, else those of the folder `data`, else Keras' download, else random ones.

    `data` defaults to `data_folder()`. Raises InputError, naming the tensor, for a file that does not fit.
    """
    if explicit is not None:
        return weights_of(explicit)
    folder = data or data_folder()
    for path in ([folder / WEIGHTS_FILE] if folder else []) + [keras_cache()]:
        if path.is_file():
            return _from_file(path)
    return weights_of(None)


def weights_of(path: Path | None) -> WeightsOrigin:
    """Return the weights in a file; for None, seeded random weights."""
    if path is not None:
        return _from_file(path)
    seed = f"MobileNetV2, random weights, seed {RANDOM_SEED}"
    return WeightsOrigin(kind="random", path=None, sha256=hashlib.sha256(seed.encode()).hexdigest(), classes=1000)


def load_weights(weights: WeightsOrigin) -> Arrays:
    """Load the tensors of `architecture.tensor_shapes`, float32, with BatchNorm folded into weight and bias."""
    if weights.path is None:
        return random_weights(RANDOM_SEED, weights.classes)
    if weights.kind == "keras":
        from edge.table.mobilenet_v2.keras_model import read_keras_weights

        return read_keras_weights(weights.path)
    return _read_safetensors(weights.path)


def data_folder() -> Path | None:
    """Return the folder with pictures and weights that the environment variable EDGE_DATA names, or None."""
    folder = os.environ.get("EDGE_DATA")
    return Path(folder) if folder else None


def keras_cache() -> Path:
    """Return the path of Keras' own MobileNetV2 weights, which need not exist."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models" / _KERAS_FILE


def download(timeout_s: float = 20.0) -> Path | None:
    """Download Keras' own weights (14 MB, ImageNet) into Keras' cache; return None if that fails.

    `timeout_s` limits each wait for the network. An existing file is kept.
    """
    target = keras_cache()
    if target.is_file():
        return target
    partial = target.with_suffix(".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(_KERAS_URL, timeout=timeout_s) as answer, partial.open("wb") as stream:
            shutil.copyfileobj(answer, stream)
        if not partial.read_bytes().startswith(_HDF5):  # for example, a proxy's error page
            return None
        partial.replace(target)
    except (OSError, HTTPException):
        return None
    finally:
        partial.unlink(missing_ok=True)
    return target


def _from_file(path: Path) -> WeightsOrigin:
    if not path.is_file():
        raise InputError(f"the weights file {path} does not exist", _HINT)
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path} is larger than any MobileNetV2 1.0", _HINT)
    if path.suffix == ".h5":
        return WeightsOrigin(kind="keras", path=path, sha256=sha256(path), classes=1000)
    return WeightsOrigin(kind="file", path=path, sha256=sha256(path), classes=_check_header(path))


def _check_header(path: Path) -> int:
    """Check the names and shapes of a safetensors file, and return the number of classes."""
    shapes = _shapes(path)
    bias = shapes.get("classifier.bias", (1000,))
    if bias not in ((1000,), (1001,)):
        raise InputError(f"{path}: tensor 'classifier.bias' is {list(bias)}, not [1000] or [1001]", _HINT)
    (classes,) = bias
    expected = tensor_shapes(classes)
    for name, shape in expected.items():
        if name not in shapes:
            raise InputError(f"{path} lacks the tensor '{name}'", _HINT)
        if shapes[name] != shape:
            raise InputError(f"{path}: tensor '{name}' is {list(shapes[name])}, not {list(shape)}", _HINT)
    for name in sorted(set(shapes) - set(expected)):
        raise InputError(f"{path}: MobileNetV2 has no tensor '{name}'", _HINT)
    return classes


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    Requirement("safetensors", "table").check("reading weights")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}", _HINT) from None


def _read_safetensors(path: Path) -> Arrays:
    Requirement("safetensors", "table").check("reading weights")
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
