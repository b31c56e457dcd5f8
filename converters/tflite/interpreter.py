"""The LiteRT interpreter that shows the tensors inside a model, and computes with LiteRT's own kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtimes.engine_support.tflite import TfliteSession
from runtimes.session import RunOptions


def inspection_interpreter(model: Path | bytes) -> Any:
    """Return an interpreter, not allocated yet, whose inner tensors can be read after `invoke`.

    The operators run in LiteRT's own kernels: XNNPACK, the default delegate, joins operators, and what is between them
    is then not computed.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    source = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
    return Interpreter(
        **source,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )


def other_kernels(model: Path) -> TfliteSession:
    """Open a model in the kernels that LiteRT has besides XNNPACK's, which round differently in 8 bits."""
    interpreter = inspection_interpreter(model)
    interpreter.allocate_tensors()
    return TfliteSession("litert", interpreter, RunOptions())
