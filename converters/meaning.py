"""What the source's output means: probability or logit, and which label each class has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtimes.arrays import Array
from runtimes.artifact import Artifact, OutputMeaning
from runtimes.errors import InputError, UsageError
from runtimes.metrics import sums_to_one

LABELS = "labels.txt"
_BACKGROUND = "background"


@dataclass(frozen=True)
class Said:
    """What the user said of the output: `kind` probability or logit, `label_offset` 0 or 1; None where nothing."""

    kind: str | None = None
    label_offset: int | None = None


def labels_of(file: Path | None, source: Artifact, classes: int | str) -> list[str] | None:
    """The labels in `file`, else the source's own; InputError when they are not one for each of its classes."""
    labels = read_labels(file) if file else source.labels()
    if labels is not None and len(labels) != classes:
        what = f"{file or LABELS} holds {len(labels)} labels, the output {classes} classes"
        raise InputError(what, "give one label a line, one line for each class, the background included")
    return labels


def meaning_of(said: Said, source: Artifact, answers: Array, labels: list[str] | None) -> OutputMeaning | None:
    """What was said, else what the source's manifest says, else what its answers [n, classes] show.

    Answers that are distributions are probabilities; any others may be anything, so that nothing is assumed: None, or
    with labels a UsageError.
    """
    known = source.manifest.output
    kind = said.kind or (known.kind if known else None)
    if kind is None and sums_to_one(answers):
        kind = "probability"
    if kind is None:
        if labels is not None:
            what = "labels were given, but what the output is cannot be told from its answers"
            raise UsageError(what, "say --output probability or --output logit")
        return None
    offset = said.label_offset
    if offset is None:
        offset = known.label_offset if known else int(labels is not None and labels[0].lower() == _BACKGROUND)
    return OutputMeaning(kind, offset, LABELS if labels is not None else None)


def read_labels(path: Path) -> list[str]:
    """The labels in a text file, one a line; InputError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as labels: {error}", "give a text file, one label a line") from None
