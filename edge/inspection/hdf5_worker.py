"""The child process that reads an HDF5 file with h5py: native code does not meet untrusted files in the parent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtimes.errors import EngineMissing, InputError, first_line
from runtimes.registry import install_hint
from runtimes.worker import Job, Report, serve


def attributes(job: Job, _report: Report) -> dict[str, Any]:
    """Answers {"model_config", "keras_version"} of the file `artifact`; InputError when it is no Keras model."""
    path = Path(job["artifact"])
    try:
        import h5py
    except ImportError:
        raise EngineMissing("reading .h5 files needs h5py", install_hint("keras")) from None
    try:
        with h5py.File(path, "r") as file:
            return {"model_config": _text(file, "model_config"), "keras_version": _text(file, "keras_version")}
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            f"{path} is not a readable Keras .h5 model: {first_line(error)}", "copy or download the file again"
        ) from None


def _text(file: Any, name: str) -> str:
    value = file.attrs.get(name)
    if value is None and name == "model_config":
        raise KeyError("it holds weights without a model")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


if __name__ == "__main__":
    serve({"attributes": attributes})
