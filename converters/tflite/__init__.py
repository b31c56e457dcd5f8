"""TFLite FlatBuffers: reader, writer, operators, errors by layer."""

from __future__ import annotations

from converters.options import ConvertOptions
from runtimes.errors import UsageError

_IO_DTYPES = ("uint8", "int8", "float32")


def check_tflite(options: ConvertOptions) -> None:
    """Raise UsageError for a free batch, and for an input dtype that the precision does not support."""
    if options.batch is None:
        raise UsageError("a TFLite model needs a fixed batch", "leave the batch at 1")
    known = _IO_DTYPES if options.precision == "int8" else ("float32",)
    if options.io_dtype is not None and options.io_dtype not in known:
        what = f"TFLite {options.precision} cannot take {options.io_dtype}"
        raise UsageError(what, f"inputs and outputs: {', '.join(known)}")
