"""Compare the outputs of a board with those of the same artifact and engine on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge.benchmark.harness import Setup
from edge.workers.process import run_job
from runtimes import host
from runtimes.arrays import load_arrays
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import JsonValue
from runtimes.errors import EdgeError

# One run is enough, because only the outputs matter, which are written after it.
_ONCE: Mapping[str, JsonValue] = {"name": "published", "runs": 1, "pause_s": 0}


@dataclass(frozen=True, kw_only=True)
class OutputDiff:
    """A board's outputs against this machine's, for the same inputs, artifact, engine and settings.

    architecture: This machine's processor architecture.
    runtime_version: The version of the engine on this machine; the board may have another.
    pictures: The number of pictures compared.
    same_top1: The number of pictures with the same top class.
    values: The number of values compared.
    differing: How many of them are not bit-identical.
    max_difference: The largest difference of two values; None if it is not finite.
    max_steps: The same in quantization steps of the output; None for a float output.
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
        """Whether all outputs are bit-identical."""
        return self.differing == 0


def compare_with_local(measured: Mapping[str, Setup], timeout_s: float, scratch: Path) -> dict[str, OutputDiff]:
    """Compare the outputs by setup id, for setups on boards that wrote outputs and whose engine also runs here."""
    by_setup: dict[str, OutputDiff] = {}
    local: dict[str, tuple[Path, str] | None] = {}
    for name, setup in measured.items():
        if setup.host is None or setup.outputs is None or not setup.outputs.is_file():
            continue
        key = repr((setup.artifact, setup.runtime, setup.options, setup.evaluate))
        if key not in local:
            local[key] = _run_here(setup, scratch / f"here-{len(local)}.npz", timeout_s)
        here = local[key]
        if here is not None:
            by_setup[name] = compare_files(setup.outputs, *here, setup.artifact)
    return by_setup


def _run_here(setup: Setup, outputs: Path, timeout_s: float) -> tuple[Path, str] | None:
    """Run a setup here and return its outputs and the engine's version; None if it cannot run here."""
    try:
        answer = run_job(replace(setup, protocol=_ONCE, outputs=outputs).job(0), timeout_s=timeout_s)
    except EdgeError:  # this machine lacks the engine or the accelerator, so there is nothing to compare with
        return None
    return outputs, str(answer["runtime_version"])


def compare_files(there: Path, here: Path, runtime_version: str, artifact: Path) -> OutputDiff:
    """Compare two files of outputs, which contain the same arrays, one row per picture."""
    left, right = load_arrays(there), load_arrays(here)
    pairs = list(zip(left.values(), right.values(), strict=True))
    first = pairs[0]
    rows = [array.reshape(len(array), -1).argmax(axis=1) for array in first]
    largest = max(float(np.abs(one - other).max()) for one, other in pairs)
    step = _step(artifact)
    return OutputDiff(
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
    """Return the quantization step of the first output, if it is quantized with a single scale."""
    outputs = Artifact.open(artifact).manifest.outputs
    quantization = outputs[0].quantization if outputs else None
    if quantization is None or len(quantization.scales) != 1:
        return None
    return float(quantization.scales[0])
