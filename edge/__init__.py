"""edge: take a model trained on a server and make it run, provably right and measured, on a small machine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.api import bench as bench
    from edge.api import check as check
    from edge.api import convert as convert
    from edge.api import deploy as deploy
    from edge.api import devices as devices
    from edge.api import estimate as estimate
    from edge.api import evaluate as evaluate
    from edge.api import inspect as inspect
    from edge.api import open as open
    from edge.api import open_llm as open_llm
    from edge.api import report as report
    from edge.api import run as run
    from edge.api import tune as tune
    from edge.api import verify as verify

__version__ = "0.1.0"

# Public name → the module that holds it. Imported on first use, so that `import edge` stays free of numpy.
# No module of `edge/` may bear one of these names: importing the module would overwrite the function.
_FUNCTIONS = (
    "bench",
    "check",
    "convert",
    "deploy",
    "devices",
    "estimate",
    "evaluate",
    "inspect",
    "open",
    "open_llm",
    "report",
    "run",
    "tune",
    "verify",
)
_ERRORS = (
    "EdgeError",
    "EngineError",
    "EngineMissingError",
    "HostError",
    "InputError",
    "ProofError",
    "RefusedError",
    "UsageError",
    "WorkerCrashedError",
    "WorkerError",
    "WorkerOutOfMemoryError",
    "WorkerTimeoutError",
)
_PUBLIC = {
    **dict.fromkeys(_FUNCTIONS, "edge.api"),
    **dict.fromkeys(_ERRORS, "runtimes.errors"),
    "Artifact": "runtimes.artifact",
    "BenchOptions": "edge.benchmark.runner",
    "ConversionInputs": "edge.conversion.datasets",
    "ConvertOptions": "converters.options",
    "DecodeOptions": "runtimes.task",
    "EvaluateOptions": "edge.evaluation.runner",
    "LlmBenchOptions": "edge.benchmark.language_model",
    "LoadOptions": "runtimes.llm.session",
    "Manifest": "runtimes.artifact",
    "Model": "edge.inference.model",
    "ModelHints": "edge.inference.preprocessing",
    "PreprocessOptions": "edge.inference.preprocessing",
    "ProgressEvent": "edge.console.progress",
    "Quantization": "runtimes.artifact",
    "RunOptions": "runtimes.session",
    "TensorSpec": "runtimes.artifact",
    "TextOptions": "runtimes.llm.session",
    "TuneOptions": "edge.tuning.runner",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edge' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
