"""TensorFlow code shared by the engines `keras` and `tensorflow`: import, process-wide threads, tensors."""

from __future__ import annotations

import os
from typing import Any

from runtimes.engine_support.adapter import import_engine
from runtimes.errors import EngineError
from runtimes.session import TensorEngine


def import_tensorflow(adapter: TensorEngine, threads: int | None) -> Any:
    """Import TensorFlow with its startup logs off and `threads` threads per operation.

    TensorFlow sizes its thread pools once per process, on first use. Raises EngineError if that has happened with
    another number. None keeps the default: one thread per core.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tensorflow = import_engine(adapter, "tensorflow")
    if threads is not None:
        _set_threads(tensorflow, threads)
    return tensorflow


def effective_threads(tensorflow: Any) -> int | None:
    """Return the number of threads per operation, if it was set."""
    return int(tensorflow.config.threading.get_intra_op_parallelism_threads()) or None


def _set_threads(tensorflow: Any, threads: int) -> None:
    threading = tensorflow.config.threading
    if threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        threading.set_intra_op_parallelism_threads(threads)
        threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        current = threading.get_intra_op_parallelism_threads() or "one per core"
        message = f"TensorFlow already runs in this process with its threads at {current}, not {threads}"
        raise EngineError(message, "use one process for each number of threads") from error
