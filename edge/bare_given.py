"""What a person says of a model beside the model itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge.preprocessing import Said


@dataclass(frozen=True)
class Given:
    """How pictures go in, what the output is, and its classes' names; None is left to the manifest or the file."""

    said: Said = field(default_factory=Said)
    output: str | None = None
    label_offset: int | None = None
    labels: Path | None = None
