"""Google's Coral Edge TPU: through pycoral if it is installed, else through LiteRT with libedgetpu as its delegate.

The package called `pycoral` on Python's package index is not Google's, so only `pycoral.utils.edgetpu` counts.
"""

from __future__ import annotations

import ctypes
import platform
import re
from contextlib import contextmanager
from ctypes.util import find_library
from typing import Any, Iterator

from runtimes.artifact import Artifact
from runtimes.engine_support.adapter import import_engine, opening
from runtimes.engine_support.tflite import (
    REQUIRES,
    TfliteSession,
    has_variables,
    interpreter_module,
    interpreter_version,
    is_compiled,
    open_model,
)
from runtimes.errors import EngineError, EngineMissingError, InputError, UsageError, first_line
from runtimes.registry import is_found
from runtimes.session import RunOptions, Session, TensorEngine, check_settings

_PYCORAL = "pycoral.utils.edgetpu"
# https://coral.ai/docs/edgetpu/tflite-python/#load-tensorflow-lite-and-run-an-inference
_LIBRARIES = {"Linux": "libedgetpu.so.1", "Darwin": "libedgetpu.1.dylib", "Windows": "edgetpu.dll"}
# Google's build works inside pycoral and tflite-runtime up to 2.11; see `edge doctor`.
_NO_LIBRARY = "install libedgetpu1-std: Google's for pycoral (coral.ai), a newer build (feranick/libedgetpu) for LiteRT"
_NEWER = "update it: sudo apt-get install libedgetpu1-std (16.0 has the runtime 14)"
_TOO_OLD = re.compile(r"requires runtime version \((\d+)\)(?:, which is newer than this runtime version \((\d+)\))?")
_NO_DEVICE = "plug it in; lsusb shows it as 1a6e:089a or 18d1:9302, a PCIe one is /dev/apex_0; check your permissions"


class Adapter(TensorEngine):
    """Opens models compiled for the Edge TPU. Devices: `usb`, `pci`, `usb:0`…; `cpu` (the default) picks any."""

    id = "edgetpu"
    formats: tuple[str, ...] = ("edgetpu",)
    requires = f"{_PYCORAL}|{REQUIRES}"
    board_packages = ("ai-edge-litert", "numpy")  # in addition to libedgetpu, which comes with the board's system

    def version(self) -> str:
        """Return the version of the interpreter that hosts the Edge TPU."""
        return interpreter_version()

    def lacks(self) -> str:
        """Return the driver library if it cannot be found; it is not a Python package."""
        return "" if find_library("edgetpu") or is_found(_PYCORAL) else "libedgetpu"

    def keeps_state(self, artifact: Artifact) -> bool:
        """See `TensorEngine.keeps_state`. A file shows it by its variables."""
        return artifact.keeps_state or has_variables(artifact.model)

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model. Raises EngineMissingError without libedgetpu, EngineError without a device."""
        check_settings(options.settings, self.settings, self.id)
        device = _device(options)
        if not is_compiled(artifact.model):
            hint = "compile it with edgetpu_compiler, or open it with --runtime litert"
            raise InputError(f"{artifact.model} was not compiled for the Edge TPU", hint)
        with _old_runtime(artifact):
            if is_found(_PYCORAL):
                return _open_with_pycoral(self, artifact, options, device)
            module = interpreter_module(self)
            return open_model(self, module, artifact.model, options, [_delegate(module, device)])


@contextmanager
def _old_runtime(artifact: Artifact) -> Iterator[None]:
    """Convert libedgetpu's error about a compiled file that needs a newer runtime."""
    try:
        yield
    except InputError as error:
        numbers = _TOO_OLD.search(error.message)
        if numbers is None:
            raise
        required, installed = numbers.groups()
        raise EngineError(
            f"{artifact.model} needs the Edge TPU runtime {required}; libedgetpu has {installed or 'an older one'}",
            f"{_NEWER}, or compile the model for the older one: edgetpu_compiler --min_runtime_version "
            f"{installed or 13}",
        ) from error


def runtime_version() -> int | None:
    """Return the runtime version of the installed library, as compiled files require it; None without the library."""
    try:
        library = ctypes.CDLL(_LIBRARIES.get(platform.system(), _LIBRARIES["Linux"]))
        library.edgetpu_version.restype = ctypes.c_char_p  # edgetpu_c.h of github.com/google-coral/libedgetpu
        text = (library.edgetpu_version() or b"").decode("ascii", "replace")
    except (OSError, AttributeError):
        return None
    match = re.search(r"RuntimeVersion\((\d+)\)", text)
    return int(match.group(1)) if match else None


def _device(options: RunOptions) -> str | None:
    if options.device == "cpu":  # RunOptions' default
        return None
    if not re.fullmatch(r"(usb|pci)(:\d+)?", options.device):
        raise UsageError(f"edgetpu has no device '{options.device}'", "its devices: usb, pci, usb:0, usb:1, pci:0, …")
    return options.device


def _open_with_pycoral(adapter: Adapter, artifact: Artifact, options: RunOptions, device: str | None) -> Session:
    pycoral = import_engine(adapter, _PYCORAL)
    if not pycoral.list_edge_tpus():
        raise EngineError("no Edge TPU found", _NO_DEVICE)
    with opening(adapter.id, artifact.model):
        interpreter = pycoral.make_interpreter(str(artifact.model), device=device)
        interpreter.allocate_tensors()
        return TfliteSession(adapter.id, interpreter, options)


def _delegate(module: Any, device: str | None) -> Any:
    library = _LIBRARIES.get(platform.system(), _LIBRARIES["Linux"])
    try:
        # Load it separately first: the interpreter's error is the same for a missing library and a missing device.
        ctypes.CDLL(library)
    except OSError as error:
        reason = first_line(error)
        if "undefined symbol" in reason:
            raise EngineError(f"the Edge TPU's library cannot be loaded: {reason}", _NO_LIBRARY) from error
        raise EngineMissingError(f"the Edge TPU's library is missing: {reason}", _NO_LIBRARY) from error
    try:
        return module.load_delegate(library, {"device": device} if device else {})
    except (ValueError, RuntimeError) as error:
        raise EngineError(f"no Edge TPU found by {library}", _NO_DEVICE) from error
