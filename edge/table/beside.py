"""The answers that a board gives, beside those of the same artifact and engine on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.bench.harness import Setup
from edge.workers import run_job
from runtimes import host
from runtimes.arrays import load_arrays
from runtimes.artifact import Artifact
from runtimes.errors import EdgeError

# One run is enough: what counts are the answers, which are written after it.
_ONCE = {"name": "published", "runs": 1, "pause_s": 0}


@dataclass(frozen=True)
class Likeness:
    """A board's outputs against this machine's, for the same inputs, artifact, engine and settings.

    `differing` of `values` are not equal to the bit; `max_difference` is the largest difference of real numbers, and
    `max_steps` the same in steps of the output's own quantisation, None where that is float. `runtime_version` is the
    engine's here; the board's may be another.
    """

    architecture: str
    runtime_version: str
    pictures: int
    same_top1: int
    values: int
    differing: int
    max_difference: float | None
    max_steps: int | None

    @property
    def is_equal(self) -> bool:
        """Whether all outputs are equal to the bit."""
        return self.differing == 0

    def as_dict(self) -> dict[str, Any]:
        """As machines read it."""
        return asdict(self)


def beside_this_machine(measured: Mapping[str, Setup], timeout_s: float, scratch: Path) -> dict[str, Likeness]:
    """Setup id → likeness, for setups of boards which have written outputs and whose engine runs here too."""
    found: dict[str, Likeness] = {}
    known: dict[str, tuple[Path, str] | None] = {}
    for name, setup in measured.items():
        if setup.host is None or setup.outputs is None or not setup.outputs.is_file():
            continue
        key = repr((setup.artifact, setup.runtime, dict(setup.options), setup.evaluate))
        if key not in known:
            known[key] = _run_here(setup, scratch / f"here-{len(known)}.npz", timeout_s)
        here = known[key]
        if here is not None:
            found[name] = likeness(setup.outputs, *here, setup.artifact)
    return found


def _run_here(setup: Setup, outputs: Path, timeout_s: float) -> tuple[Path, str] | None:
    """Where the outputs are, and the engine's version; None where it cannot run here."""
    job = {**setup.job(0), "protocol": _ONCE, "outputs": str(outputs)}
    try:
        answer = run_job(job, timeout_s=timeout_s)
    except EdgeError:  # an engine or an accelerator that this machine has not got: then there is nothing beside it
        return None
    return outputs, str(answer["runtime_version"])


def likeness(there: Path, here: Path, runtime_version: str, artifact: Path) -> Likeness:
    """Compare two files of outputs; each holds the same arrays of real numbers, one row for each picture."""
    left, right = load_arrays(there), load_arrays(here)
    pairs = list(zip(left.values(), right.values(), strict=True))
    first = pairs[0]
    rows = [array.reshape(len(array), -1).argmax(axis=1) for array in first]
    largest = max(float(np.abs(one - other).max()) for one, other in pairs)
    step = _step(artifact)
    return Likeness(
        architecture=str(host.facts()["cpu"]["architecture"]),
        runtime_version=runtime_version,
        pictures=len(first[0]),
        same_top1=int((rows[0] == rows[1]).sum()),
        values=sum(one.size for one, _ in pairs),
        differing=sum(int((one != other).sum()) for one, other in pairs),
        max_difference=largest if np.isfinite(largest) else None,
        max_steps=None if step is None or not np.isfinite(largest) else round(largest / step),
    )


def _step(artifact: Path) -> float | None:
    """What one step of the first output is worth, where it is quantised with a single scale."""
    outputs = Artifact.open(artifact).manifest.outputs
    quantization = outputs[0].quantization if outputs else None
    if quantization is None or len(quantization.scales) != 1:
        return None
    return float(quantization.scales[0])
