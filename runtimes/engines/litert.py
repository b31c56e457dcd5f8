"""LiteRT, TensorFlow Lite's runtime by its new name, as `ai_edge_litert` or, on many boards, as `tflite_runtime`."""

from __future__ import annotations

from typing import Mapping

from runtimes.adapters import check_options
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.session import RunOptions, Session
from runtimes.tflite import REQUIRES, interpreter_module, interpreter_version, is_compiled, open_model


class Adapter:
    """Opens TFLite flatbuffers on the CPU; without `threads` it uses one."""

    id = "litert"
    formats: tuple[str, ...] = ("tflite",)
    requires = REQUIRES
    settings: Mapping[str, str] = {}

    def version(self) -> str:
        """The installed distribution's version."""
        return interpreter_version()

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model; InputError for one compiled for the Edge TPU."""
        check_options(self, options)
        module = interpreter_module(self)
        if is_compiled(artifact.model):
            message = f"{artifact.model} was compiled for the Edge TPU; a CPU cannot run it"
            raise InputError(message, "open it with --runtime edgetpu, or use the model before compilation")
        return open_model(self, module, artifact.model, options)
