"""Calibration samples that the user's own Python code yields: run in processes of their own, twice.

The same input gives the same bytes only if the same samples come each time, so a second run, in a fresh process, has
to yield what the first did. Code that crashes ends its process, not the command, and cannot disturb a converter.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.workers import Crashed, run_job
from runtimes.errors import InputError

_TIMEOUT_S = 3600.0
_SEED = "it has to be the same each time: seed its random numbers, and sort what comes from folders and sets"


def described(where: str) -> str:
    """What the user should know before it runs."""
    return f"calibration samples come from {where}, whose Python code runs twice to see that it yields the same"


def write_samples(where: str, place: Path, on_progress: Callable[[dict[str, Any]], None] | None) -> list[str]:
    """Write what the code yields to the .npz `place`; lines that the user should read.

    InputError for code that fails, yields what is no sample, or something else in its second run.
    """
    first = _run(where, place, "collecting calibration samples", on_progress)
    second = _run(where, None, "collecting them again", on_progress)
    if first["digest"] != second["digest"]:
        raise InputError(f"{where} yielded other samples when it was run again", _SEED)
    if not first["stopped"]:
        return []
    return [f"the first {first['count']} samples of {where} are used: {first['stopped']}"]


def _run(
    where: str, place: Path | None, doing: str, on_progress: Callable[[dict[str, Any]], None] | None
) -> dict[str, Any]:
    job = {"job": "samples", "artifact": where, "out": str(place) if place else None, "doing": doing}
    try:
        return run_job(job, module="converters.worker", timeout_s=_TIMEOUT_S, on_progress=on_progress)
    except Crashed as error:
        raise Crashed(f"the code of {where} ended its process: {error.message}", "run it by itself first") from None
