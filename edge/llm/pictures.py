"""Read a picture for a language model: untrusted files are decoded by Pillow, and llama.cpp only gets our PNG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from edge.inference.images import decode, decode_from
from runtimes.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FILE_BYTES = 64 << 20
# Picture encoders take up to about this many pixels a side, and resize larger pictures themselves.
MAX_SIDE = 2048


def load_picture(path: Path) -> bytes:
    """Return a picture as PNG in RGB, upright, at most MAX_SIDE pixels a side.

    Raises InputError if it does not exist, is too large, or is not a complete picture in a known format.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "pass a picture file") from None
    if size > MAX_FILE_BYTES:
        raise InputError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB", "make it smaller")
    return _png(decode(path))


def png_of(content: bytes) -> bytes:
    """Return a picture that a client sent, like `load_picture`. Raises InputError as well."""
    return _png(decode_from(io.BytesIO(content), "it"))


def _png(picture: Image) -> bytes:
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
