"""Pass the states of a model on from one inference to the next.

A source may keep its state in variables. Formats without variables hold it in the open: the model takes a state as an
input and answers the next one as an output. A session that passes them on answers like the source.
"""

from __future__ import annotations

from typing import Mapping

from runtimes.arrays import Array, Arrays
from runtimes.artifact import TensorSpec
from runtimes.errors import InputError
from runtimes.session import Closeable, Session
from runtimes.tensors import dequantize, quantize, zeros


class StatefulSession(Closeable):
    """A session whose states are neither inputs nor outputs; they are zero when it is opened.

    held: The states that the next inference takes, by the names of their inputs.
    """

    def __init__(self, session: Session, states: Mapping[str, str]) -> None:
        """Wrap `session`, and close it with this one. Raises InputError for states that the model does not have."""
        self._session, self._states = session, dict(states)
        self._takes = {spec.name: spec for spec in session.inputs}
        self._gives = {spec.name: spec for spec in session.outputs}
        unknown = [*sorted(set(states) - set(self._takes)), *sorted(set(states.values()) - set(self._gives))]
        if unknown:
            session.close()
            raise InputError(f"the model has no state '{unknown[0]}'", "convert it again with `edge convert`")
        self.inputs = tuple(spec for spec in session.inputs if spec.name not in states)
        self.outputs = tuple(spec for spec in session.outputs if spec.name not in self._states.values())
        self.threads = session.threads
        self.held: Arrays = {name: zeros(self._takes[name]) for name in states}

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """See `Session`."""
        answer = self._session.run({**feeds, **self.held})
        self.held = {
            name: _as_input(answer[output], self._gives[output], self._takes[name])
            for name, output in self._states.items()
        }
        return {spec.name: answer[spec.name] for spec in self.outputs}

    def close(self) -> None:
        """See `Session`."""
        self._session.close()


def _as_input(state: Array, source: TensorSpec, spec: TensorSpec) -> Array:
    """Return an output as the input `spec` takes it: as a real number if its type or quantization differs."""
    if (source.dtype, source.quantization) == (spec.dtype, spec.quantization):
        return state
    return quantize(dequantize(state, source.quantization), spec)
