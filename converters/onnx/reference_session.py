"""Run an ONNX source that ONNX Runtime has no kernel for with ONNX's own reference implementation, which is slow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from converters.library_calls import suppress_output
from runtimes.arrays import Array
from runtimes.artifact import Artifact, TensorSpec
from runtimes.engine_support.adapter import running, tensor_spec
from runtimes.errors import EngineError, EngineMissingError
from runtimes.registry import new_session
from runtimes.session import CheckedSession, Session


@contextmanager
def open_source_session(artifact: Artifact) -> Iterator[Session]:
    """Open a source in the engine of its format, an ONNX model that this lacks a kernel for in the reference.

    Raises the engine's error if the reference does not take the model either.
    """
    session = _session(artifact)
    try:
        yield session
    finally:
        session.close()


def is_reference(session: Session) -> bool:
    """Return whether ONNX's reference implementation runs the source."""
    return isinstance(session, _ReferenceSession)


def _session(artifact: Artifact) -> Session:
    try:
        return new_session(artifact)
    except EngineMissingError:
        raise
    except EngineError as error:
        if artifact.manifest.format != "onnx":
            raise
        try:
            return _ReferenceSession(artifact.model)
        except Exception:  # whatever the reference says, it is not the engine of the format
            raise error from None


class _ReferenceSession(CheckedSession):
    def __init__(self, path: Path) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        model = onnx.load(path)
        with suppress_output():
            self._evaluator = ReferenceEvaluator(model)
        constants = {tensor.name for tensor in model.graph.initializer}
        super().__init__(
            _specs([port for port in model.graph.input if port.name not in constants]), _specs(model.graph.output)
        )

    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with running("onnx's reference implementation"), suppress_output():
            values = self._evaluator.run(None, dict(feeds))
            pairs = zip(self.outputs, values, strict=True)
            return {spec.name: np.asarray(value, dtype=spec.dtype) for spec, value in pairs}


def _specs(ports: Sequence[Any]) -> list[TensorSpec]:
    from onnx import helper

    return [
        tensor_spec(
            port.name,
            helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type),
            [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in port.type.tensor_type.shape.dim],
        )
        for port in ports
    ]
