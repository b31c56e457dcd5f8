"""LiteRT, formerly the TensorFlow Lite runtime: `ai_edge_litert` or, on many boards, `tflite_runtime`."""

from __future__ import annotations

from runtimes.artifact import Artifact
from runtimes.engine_support.adapter import check_options
from runtimes.engine_support.tflite import REQUIRES, interpreter_module, interpreter_version, is_compiled, open_model
from runtimes.errors import InputError
from runtimes.session import RunOptions, Session, TensorEngine


class Adapter(TensorEngine):
    """Opens TFLite flatbuffers on the CPU; uses one thread by default."""

    id = "litert"
    formats: tuple[str, ...] = ("tflite",)
    requires = REQUIRES
    # Checked in 2.3.0; its C library has one, whose functions are not a stable interface.
    no_profile = "the Python package of LiteRT has no profiler; convert to ONNX or OpenVINO to see the shares there"

    def version(self) -> str:
        """Return the version of the installed distribution."""
        return interpreter_version()

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model. Raises InputError if it was compiled for the Edge TPU."""
        check_options(self, options)
        module = interpreter_module(self)
        if is_compiled(artifact.model):
            message = f"{artifact.model} was compiled for the Edge TPU; a CPU cannot run it"
            raise InputError(message, "open it with --runtime edgetpu, or use the model before compilation")
        return open_model(self, module, artifact.model, options)
