"""Load pictures and resize them as specified by a manifest's `preprocess`. Host only: boards receive uint8 tensors.

When it shrinks a picture, Pillow's bilinear filter averages over all source pixels, like the training pipelines of
Keras and torchvision. The reference accuracies of this project were measured with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact import Preprocess
from runtimes.errors import EngineMissingError, InputError, UsageError
from runtimes.registry import install_hint
from runtimes.task import Placement

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
LONGEST_SIDE = 32_768  # pixels; far beyond any camera
MAX_PIXELS = 89_478_485  # Pillow's own threshold for decompression bombs: 256 MiB once decoded
# Formats that Pillow decodes itself: others start external programs (EPS) or are not useful here.
_DECODERS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values for pictures that are turned by 90°
_WHITE_16_BITS = 65_535
_HINT = "pass a complete JPEG or PNG file"


def find_files(folder: Path) -> list[Path]:
    """Find the files in `folder` and its subfolders, sorted by path; without hidden ones, which systems leave there."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def find_pictures(folder: Path) -> list[Path]:
    """Find the pictures in `folder` and its subfolders, sorted by path. Raises InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", "pass a folder of pictures")
    found = [path for path in find_files(folder) if path.suffix.lower() in SUFFIXES]
    if not found:
        raise InputError(f"{folder} contains no pictures", f"known suffixes: {' '.join(SUFFIXES)}")
    return found


def load_pixels(path: Path, preprocess: Preprocess) -> Array:
    """Load a picture as uint8 [height, width, 3] in RGB, rotated upright, resized and cropped.

    Raises InputError if the file is not a complete picture, or exceeds `LONGEST_SIDE` or `MAX_PIXELS`.
    """
    return load_picture(path, preprocess)[0]


def load_picture(path: Path, preprocess: Preprocess) -> tuple[Array, Placement]:
    """Load a picture like `load_pixels`, and return its pixels and the placement of the upright picture in them."""
    picture = decode(path)
    if preprocess.resize == "letterbox":
        return _letterbox(picture, preprocess)
    resized = _resize(picture, path, preprocess)
    left, top = _corner(resized, preprocess.crop, path)
    height, width = preprocess.crop
    pixels = np.asarray(resized.crop((left, top, left + width, top + height)), np.uint8)
    scale = (resized.width / picture.width, resized.height / picture.height)
    return pixels, Placement(picture.size, scale, (-float(left), -float(top)))


def load_all(paths: Sequence[Path], preprocess: Preprocess) -> Array:
    """Load several pictures as uint8 [n, height, width, 3]."""
    return np.stack([load_pixels(path, preprocess) for path in paths])


def _letterbox(picture: Image, preprocess: Preprocess) -> tuple[Array, Placement]:
    """Scale a picture to fit into the input, centered on a gray background."""
    height, width = preprocess.crop
    factor = min(width / picture.width, height / picture.height)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    pixels = np.full((height, width, 3), preprocess.pad, np.uint8)
    resized = picture.resize(size, _filter(preprocess.method))
    pixels[top : top + size[1], left : left + size[0]] = np.asarray(resized, np.uint8)
    scale = (size[0] / picture.width, size[1] / picture.height)
    return pixels, Placement(picture.size, scale, (float(left), float(top)))


def decode(path: Path) -> Image:
    """Decode a picture in RGB, rotated upright. Raises InputError as in `load_pixels`."""
    return decode_from(path, str(path))


def picture_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of a picture that is rotated upright, from its header; None if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path, formats=_DECODERS) as image:
            is_sideways = image.getexif().get(_ORIENTATION, 1) in _SIDEWAYS
            return (image.height, image.width) if is_sideways else image.size
    except Exception:  # as in `decode_from`, which says why
        return None


def decode_from(source: Path | IO[bytes], name: str) -> Image:
    """Decode the picture `name`, a file or its content, like `decode`."""
    from PIL import ImageOps

    return _open(source, name, lambda image: _rgb(ImageOps.exif_transpose(image), name))


def read_indexed_pixels(path: Path) -> Array:
    """Read a picture whose pixels are indices, gray or in a palette, as [height, width].

    Raises InputError if it has colors, and as in `load_pixels`.
    """

    def read(image: Image) -> Array:
        if image.mode not in ("1", "L", "P", "I", "I;16"):
            raise InputError(f"{path} has colors, not one index for each pixel", "save it in gray or with a palette")
        return np.asarray(image)

    return _open(path, str(path), read)


def _open(source: Path | IO[bytes], name: str, read: Callable[[Image], T]) -> T:
    """Apply `read` to an open picture. Raises InputError if it is too large, or anything that Pillow raises."""
    if find_spec("PIL") is None:
        raise EngineMissingError("reading pictures needs Pillow, which is not installed", install_hint("pictures"))
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(source, formats=_DECODERS) as image:
                _check_size(image, name)
                return read(image)
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{name} does not exist", "pass a picture file") from None
        except IsADirectoryError:
            raise InputError(f"{name} is a folder, not a picture", "pass the pictures in it") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise _too_large(name) from None
        except MemoryError:
            raise InputError(f"{name} does not fit in memory once decoded", "make it smaller") from None
        except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error and more
            reason = f": {error}" if str(error) and name not in str(error) else ""
            raise InputError(f"{name} cannot be read as a picture{reason}", _HINT) from None


def _check_size(image: Image, name: str) -> None:
    width, height = image.size
    if max(width, height) > LONGEST_SIDE or width * height > MAX_PIXELS:
        raise InputError(f"{name} is {width} × {height} pixels, which is larger than edge supports", "make it smaller")


def _too_large(name: str) -> InputError:
    return InputError(f"{name} would decode to more pixels than is safe", "make it smaller")


def _rgb(image: Image, name: str) -> Image:
    """Convert to three channels: drop transparency, repeat gray, scale 16-bit gray to 8 bits.

    Raises InputError for other numbers, such as floats: which of them is white is not known.
    """
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    from PIL.Image import fromarray

    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > _WHITE_16_BITS:
        kind = "floats" if values.dtype.kind == "f" else "integers beyond 16 bits"
        raise InputError(f"{name} holds {kind}, of which it is not known what is white", "save it with 8 or 16 bits")
    return fromarray((values >> 8).astype(np.uint8)).convert("RGB")


def _resize(image: Image, path: Path, preprocess: Preprocess) -> Image:
    height, width = preprocess.crop
    if preprocess.resize == "shorter_side":
        width, height = _by_shorter_side(image.size, preprocess.size, path)
    return image.resize((width, height), _filter(preprocess.method))


def _by_shorter_side(size: tuple[int, int], shorter: int, path: Path) -> tuple[int, int]:
    """Scale a size to a shorter side of `shorter` pixels; the longer side is rounded down, as in torchvision."""
    width, height = size
    longer = int(shorter * max(size) / min(size))
    if longer > LONGEST_SIDE:
        raise InputError(f"{path} is {width} × {height} pixels: too thin to classify", "crop it first")
    return (shorter, longer) if width < height else (longer, shorter)


def _filter(method: str) -> Any:
    from PIL import Image

    return {
        "nearest": Image.Resampling.NEAREST,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
    }[method]


def _corner(image: Image, crop: tuple[int, int], path: Path) -> tuple[int, int]:
    """Return left and top of the center crop."""
    height, width = crop
    if image.width < width or image.height < height:
        raise UsageError(
            f"{path} resized to {image.width} × {image.height} is smaller than the crop {width} × {height}",
            "the shorter side must be at least as large as the crop",
        )
    return round((image.width - width) / 2), round((image.height - height) / 2)
