"""What every way to TFLite can be asked for."""

from __future__ import annotations

from converters.steps import StepOptions
from runtimes.errors import UsageError

_IO_DTYPES = ("uint8", "int8", "float32")


def check_tflite(options: StepOptions) -> None:
    """UsageError for a free batch, and for inputs of a dtype that the precision does not have."""
    if options.batch is None:
        raise UsageError("a TFLite model needs a fixed batch", "leave the batch at 1")
    known = _IO_DTYPES if options.precision == "int8" else ("float32",)
    if options.io_dtype is not None and options.io_dtype not in known:
        what = f"TFLite {options.precision} cannot take {options.io_dtype}"
        raise UsageError(what, f"inputs and outputs: {', '.join(known)}")
