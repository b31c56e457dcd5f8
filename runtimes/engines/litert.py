"""LiteRT, formerly the TensorFlow Lite runtime: `ai_edge_litert` or, on many boards, `tflite_runtime`."""

from __future__ import annotations

from runtimes.arrays import Arrays
from runtimes.artifact import Artifact
from runtimes.engine_support.adapter import check_options
from runtimes.engine_support.tflite import (
    REQUIRES,
    THREADS,
    has_variables,
    interpreter_module,
    interpreter_version,
    is_compiled,
    open_model,
)
from runtimes.errors import InputError
from runtimes.measurement.operator_times import OperatorProfile
from runtimes.session import RunOptions, Session, TensorEngine


class Adapter(TensorEngine):
    """Opens TFLite flatbuffers on the CPU; uses one thread by default."""

    id = "litert"
    formats: tuple[str, ...] = ("tflite",)
    requires = REQUIRES
    board_packages = ("ai-edge-litert", "numpy")

    def version(self) -> str:
        """Return the version of the installed distribution."""
        return interpreter_version()

    def profile(self, artifact: Artifact, options: RunOptions, feeds: Arrays, runs: int) -> OperatorProfile:
        """Run the model with the profiler of LiteRT's C library; see `TensorEngine.profile`."""
        from runtimes.engine_support.litert_profiler import profile

        check_options(self, options)
        return profile(artifact.model, self.version(), options.threads or THREADS, feeds, runs)

    def keeps_state(self, artifact: Artifact) -> bool:
        """See `TensorEngine.keeps_state`. A file shows it by its variables."""
        return artifact.keeps_state or has_variables(artifact.model)

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Load the model. Raises InputError if it was compiled for the Edge TPU."""
        check_options(self, options)
        module = interpreter_module(self)
        if is_compiled(artifact.model):
            message = f"{artifact.model} was compiled for the Edge TPU; a CPU cannot run it"
            raise InputError(message, "open it with --runtime edgetpu, or use the model before compilation")
        return open_model(self, module, artifact.model, options)
