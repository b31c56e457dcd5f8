"""One conversion as plain values: what `edge` asks of the pipeline, across a process boundary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from converters.steps import StepOptions
from runtimes.artifact import Preprocess


@dataclass(frozen=True)
class Request:
    """One conversion.

    `steps` are step ids in order (none: the source is packed as it is), `format` and `options.precision` what they
    lead to. `samples` is an .npz with `pixels` (uint8 [n, h, w, 3]) or arrays by input name. `preprocess`, `kind`
    (probability or logit) and `label_offset` override what the source's manifest says. The artifact is written into
    the existing folder `out`; `scratch` is a folder for what lies between. `kept` is what a failed proof names.
    `origin` ({"name", "format", "sha256"}) is what the manifest names as the source where `source` was made from that.
    `evaluation` is an .npz of labelled inputs (`converters.accuracy`) on which top-1 may fall by `max_drop`, 0 to 1.
    """

    source: Path
    steps: tuple[str, ...]
    format: str
    options: StepOptions
    out: Path
    scratch: Path
    samples: Path | None = None
    preprocess: Preprocess | None = None
    kind: str | None = None
    label_offset: int | None = None
    labels: Path | None = None
    kept: str = ""
    origin: Mapping[str, str] | None = None
    evaluation: Path | None = None
    max_drop: float = 0.01
