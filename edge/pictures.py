"""Pictures from files to pixels, as a manifest's `preprocess` says. Host only: a board gets uint8 tensors.

Pillow's bilinear filter averages over all source pixels when it shrinks, as the training pipelines of Keras and
torchvision do; the reference accuracies of this project were measured with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact import Preprocess
from runtimes.errors import EngineMissing, InputError, UsageError
from runtimes.registry import install_hint

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
LONGEST_SIDE = 32_768  # pixels; no camera comes near
MOST_PIXELS = 89_478_485  # where Pillow itself warns of a decompression bomb: 256 MiB once decoded
# Formats that Pillow decodes itself: others start programs (EPS) or are of no use here.
_DECODERS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_HINT = "give a whole JPEG or PNG file"


def picture_files(folder: Path) -> list[Path]:
    """The pictures in `folder` and below, sorted by path; InputError when there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", "give a folder of pictures")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"{folder} holds no pictures", f"known suffixes: {' '.join(SUFFIXES)}")
    return found


def load_pixels(path: Path, preprocess: Preprocess) -> Array:
    """The picture as the model will see it: uint8 [height, width, 3] in RGB, upright, resized and cropped.

    InputError for a file that is no whole picture or is beyond `LONGEST_SIDE` or `MOST_PIXELS`.
    """
    resized = _resized(_decoded(path), path, preprocess)
    return np.asarray(_centre(resized, preprocess.crop, path), np.uint8)


def load_all(paths: Sequence[Path], preprocess: Preprocess) -> Array:
    """Several pictures: uint8 [n, height, width, 3]."""
    return np.stack([load_pixels(path, preprocess) for path in paths])


def _decoded(path: Path) -> Image:
    if find_spec("PIL") is None:
        raise EngineMissing("reading pictures needs Pillow, which is not installed", install_hint("pictures"))
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=_DECODERS) as image:
                _check_size(image, path)
                return _rgb(ImageOps.exif_transpose(image))
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{path} does not exist", "give a picture file") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise _too_large(path) from None
        except MemoryError:
            raise InputError(f"{path} does not fit in memory once decoded", "make it smaller") from None
        except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error and more
            said = f": {error}" if str(error) and str(path) not in str(error) else ""
            raise InputError(f"{path} cannot be read as a picture{said}", _HINT) from None


def _check_size(image: Image, path: Path) -> None:
    width, height = image.size
    if max(width, height) > LONGEST_SIDE or width * height > MOST_PIXELS:
        raise InputError(f"{path} is {width} × {height} pixels, which is more than is read here", "make it smaller")


def _too_large(path: Path) -> InputError:
    return InputError(f"{path} would decode to more pixels than is safe", "make it smaller")


def _rgb(image: Image) -> Image:
    """Three channels: transparency is dropped, grey repeated, 16-bit grey scaled to 8 bits."""
    if image.mode.startswith("I"):
        from PIL.Image import fromarray

        return fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _resized(image: Image, path: Path, preprocess: Preprocess) -> Image:
    height, width = preprocess.crop
    if preprocess.resize == "shorter_side":
        width, height = _by_shorter_side(image.size, preprocess.size, path)
    return image.resize((width, height), _filter(preprocess.method))


def _by_shorter_side(size: tuple[int, int], shorter: int, path: Path) -> tuple[int, int]:
    """Width and height with the shorter one `shorter` pixels, the longer rounded down as torchvision does."""
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


def _centre(image: Image, crop: tuple[int, int], path: Path) -> Image:
    height, width = crop
    if image.width < width or image.height < height:
        raise UsageError(
            f"{path} resized to {image.width} × {image.height} is smaller than the crop {width} × {height}",
            "the shorter side has to be at least the crop's size",
        )
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
