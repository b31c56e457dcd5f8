"""Samples that an earlier connection, which broke off, left on a board: fetched, and kept here as rows."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.bench.harness import Measurement, Setup
from edge.bench.rows import rows_of
from runtimes.cache import cache_folder
from runtimes.errors import HostError

_CUT = {"status": "host failed", "error": "host", "message": "the connection was cut while it was measured", "hint": ""}


def save(host: str, leftovers: Sequence[Mapping[str, Any]]) -> None:
    """Write them as the rows of `edge bench --json`, which `--compare` reads, and say where.

    HostError where that cannot be: whoever has fetched them then leaves them where they are.
    """
    rows = rows_of(_measurement(host, place, found) for place, found in enumerate(leftovers))
    folder = cache_folder() / "fetched"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _free(folder, re.sub(r"[^\w.-]+", "_", host))
        path.write_text(json.dumps(rows), encoding="utf-8")
    except OSError as error:
        what = f"the samples that {host} has kept cannot be written to {folder}: {error.strerror}"
        raise HostError(what, "make room there, or set EDGE_CACHE to another folder") from None
    samples = sum(len(row["samples_ms"]) for row in rows)
    print(f"edge: {host} had kept {samples} samples of a run that was cut off; they are in {path}", file=sys.stderr)


def _measurement(host: str, place: int, found: Mapping[str, Any]) -> Measurement:
    values = found["values"]
    path = Path(str(values.get("artifact") or "unknown"))
    threads = values.get("threads")
    title = f"{host}, {path.name}" + (f", {threads} threads" if threads else "")
    setup = Setup(f"{title}, {values.get('runtime')}, {place + 1}", title, path, host=host)
    return Measurement(setup, 0, values if values.get("status") == "ok" else {**_CUT, **values})


def _free(folder: Path, name: str) -> Path:
    """The first name of its kind that is free: nothing that was fetched is overwritten."""
    number = 1
    while (folder / f"{name}-{number}.json").exists():
        number += 1
    return folder / f"{name}-{number}.json"
