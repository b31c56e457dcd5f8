"""Open an artifact so that its session answers like the source: split outputs are joined, and states passed on.

In int8 an output has one scale. If its parts have different ones, such as boxes in pixels and scores, the model ends
before the last Concat, each part is an output with its own scale, and the manifest describes how to join them.
"""

from __future__ import annotations

from typing import Mapping, Sequence

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact import Artifact, Join, TensorSpec
from runtimes.errors import InputError
from runtimes.session import Closeable, RunOptions, Session, TensorEngine
from runtimes.stateful_session import StatefulSession
from runtimes.tensors import dequantize


class JoinedSession(Closeable):
    """A session whose split outputs are joined: float32, with the names that they have in the source."""

    def __init__(self, session: Session, joins: Sequence[Join]) -> None:
        """Wrap `session`, and close it with this one. Raises InputError for parts that the model does not have."""
        self._session, self._joins = session, tuple(joins)
        self._parts = {spec.name: spec for spec in session.outputs}
        self.inputs = tuple(session.inputs)
        self.threads = session.threads
        try:
            self.outputs = self._join_specs()
        except InputError:
            session.close()
            raise

    def _join_specs(self) -> tuple[TensorSpec, ...]:
        belongs = {part: join for join in self._joins for part in join.parts}
        missing = sorted(set(belongs) - set(self._parts))
        if missing:
            what = f"the manifest joins '{missing[0]}', which is not an output of the model"
            raise InputError(what, "write the artifact again with `edge convert`")
        found: dict[str, TensorSpec] = {}
        for name, spec in self._parts.items():
            join = belongs.get(name)
            if join is None:
                found[name] = spec
            elif join.output not in found:
                found[join.output] = self._join_spec(join)
        return tuple(found.values())

    def _join_spec(self, join: Join) -> TensorSpec:
        shapes = [self._parts[part].shape for part in join.parts]
        if any(len(shape) <= join.axis for shape in shapes):
            raise InputError(f"the manifest joins '{join.output}' on axis {join.axis}, which its parts do not have", "")
        sizes = [shape[join.axis] for shape in shapes]
        total = sum(size for size in sizes if isinstance(size, int))
        whole: int | str = total if all(isinstance(size, int) for size in sizes) else str(sizes[0])
        shape = (*shapes[0][: join.axis], whole, *shapes[0][join.axis + 1 :])
        return TensorSpec(join.output, "float32", shape)

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """See `Session`."""
        answer = self._session.run(feeds)
        joined = {
            join.output: np.concatenate(
                [dequantize(answer[part], self._parts[part].quantization) for part in join.parts], axis=join.axis
            )
            for join in self._joins
        }
        return {spec.name: joined[spec.name] if spec.name in joined else answer[spec.name] for spec in self.outputs}

    def close(self) -> None:
        """See `Session`."""
        self._session.close()


def open_like_source(engine: TensorEngine, artifact: Artifact, options: RunOptions) -> Session:
    """Open an artifact as its manifest describes it (`join`, `states`). Raises what `TensorEngine.open` raises."""
    session, manifest = engine.open(artifact, options), artifact.manifest
    if manifest.states:
        session = StatefulSession(session, manifest.states)
    return JoinedSession(session, manifest.join) if manifest.join else session
