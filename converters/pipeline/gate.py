"""The interface of an acceptance condition beyond verification, such as an accuracy.

The pipeline produces candidates with more and more layers in higher precision until one passes. The caller decides what
passes: `edge.evaluation` has the labels and scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from converters.pipeline.reference import Reference, reopen_source
from converters.pipeline.request import ConvertRequest
from converters.sources.source import OpenedSource
from runtimes.errors import ProofError, UsageError
from runtimes.session import Session

if TYPE_CHECKING:
    from runtimes.artifact.json_fields import JsonObject


class Score(Protocol):
    """The score of one candidate."""

    @property
    def passed(self) -> bool:
        """Whether the candidate passes."""

    def as_dict(self) -> JsonObject:
        """Return the manifest entry; contains "artifact", the candidate's score, and "bytes", its size."""

    def error(self, worst_layers: str, hint: str) -> ProofError:
        """Say why it does not pass; `worst_layers` describes the layers that lose most, empty if unknown."""


class Gate(Protocol):
    """Scores candidates of one conversion."""

    def accuracy(self, session: Session, size: int) -> Score:
        """Score the candidate in `session`, whose files have `size` bytes."""

    def notes(self) -> Sequence[str]:
        """Return notes about the inputs."""


# Builds the gate of a request with labeled inputs from the source, its facts, and a session of it.
MakeGate = Callable[[ConvertRequest, OpenedSource, Reference, Session], Gate]


def choose_gate(
    request: ConvertRequest, source: OpenedSource, reference: Reference, make_gate: MakeGate | None
) -> Gate | None:
    """Return the gate of a request with labeled inputs; None for one without. Raises UsageError if none is made."""
    if request.evaluation is None:
        return None
    if make_gate is None:
        raise UsageError("this process does not score conversions", "run the job in edge.evaluation.worker")
    with reopen_source(source, reference, request) as session:
        return make_gate(request, source, reference, session)
