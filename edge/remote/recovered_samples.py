"""Save the samples that an earlier, broken connection left on a board, as rows on this machine."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from edge.benchmark.harness import Measurement, Setup
from edge.benchmark.rows import rows_of
from runtimes.board.agent import RecoveredSamples
from runtimes.errors import HostError
from runtimes.host.files import cache_folder
from runtimes.measurement.answer import MeasureAnswer

_log = logging.getLogger(__name__)
_CUT: MeasureAnswer = {
    "status": "host failed",
    "error": "host",
    "message": "the connection was lost during the measurement",
    "hint": "",
}


def save(host: str, leftovers: Sequence[RecoveredSamples]) -> None:
    """Write the samples in the format of `edge bench --json`, which `--compare` reads, and log the file's name.

    Raises HostError if they cannot be written; the caller must then keep them on the board.
    """
    rows = rows_of(_measurement(host, place, found) for place, found in enumerate(leftovers))
    folder = cache_folder() / "fetched"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _free(folder, re.sub(r"[^\w.-]+", "_", host))
        path.write_text(json.dumps([row.to_json() for row in rows]), encoding="utf-8")
    except OSError as error:
        what = f"the samples that {host} kept cannot be written to {folder}: {error.strerror}"
        raise HostError(what, "free some space there, or set EDGE_CACHE to another folder") from None
    samples = sum(len(row.samples_ms) for row in rows)
    _log.warning("%s kept %d samples of an interrupted run; they are now in %s", host, samples, path)


def _measurement(host: str, place: int, found: RecoveredSamples) -> Measurement:
    values = found["values"]
    path = Path(str(values.get("artifact") or "unknown"))
    threads = values.get("threads")
    title = f"{host}, {path.name}" + (f", {threads} threads" if threads else "")
    setup = Setup(id=f"{title}, {values.get('runtime')}, {place + 1}", title=title, artifact=path, host=host)
    return Measurement(setup=setup, round=0, values=values if values.get("status") == "ok" else {**_CUT, **values})


def _free(folder: Path, name: str) -> Path:
    """Return the first unused file name: earlier samples are never overwritten."""
    number = 1
    while (folder / f"{name}-{number}.json").exists():
        number += 1
    return folder / f"{name}-{number}.json"
