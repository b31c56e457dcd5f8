"""Read a model's class names: a text file with one label per line."""

from __future__ import annotations

from pathlib import Path

from runtimes.errors import InputError

LABELS = "labels.txt"
MAX_LABELS_BYTES = 4 * 2**20
_HINT = "pass a text file with one label per line"


def read_labels(path: Path, *, hint: str = _HINT, errors: str = "strict") -> list[str]:
    """Read the labels of a text file; `errors` as in `bytes.decode`. Raises InputError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_LABELS_BYTES + 1)
        if len(content) > MAX_LABELS_BYTES:
            raise InputError(f"{path} is too large for a list of labels", hint)
        return parse_labels(content, errors=errors)
    except OSError as error:
        raise InputError(f"{path} cannot be read as labels: {error.strerror or error}", hint) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} cannot be read as labels: it is not UTF-8 text", hint) from None


def parse_labels(content: bytes, *, errors: str = "strict") -> list[str]:
    """Parse the content of a label file; surrounding whitespace is stripped."""
    return [line.strip() for line in content.decode("utf-8", errors).splitlines()]
