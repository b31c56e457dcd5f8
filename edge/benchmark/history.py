"""The history of measurements: every row that was measured, in SQLite in the user's data folder.

The environment variable EDGE_HISTORY names another file; `off` keeps nothing. A row is stored as `edge bench --json`
writes it, with every sample, next to the columns that lists are made of.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.benchmark.rows import Row
from runtimes.artifact.json_fields import JsonObject, to_json
from runtimes.errors import HostError, InputError

_log = logging.getLogger(__name__)
SCHEMA = 1
_HINT = "move the file away, or name another one: EDGE_HISTORY=FILE"
_NAME = "measurements"
_TABLE = """
CREATE TABLE measurements (
  id INTEGER PRIMARY KEY, at REAL NOT NULL, setup TEXT NOT NULL, host TEXT, machine TEXT, runtime TEXT,
  runtime_version TEXT, precision TEXT, threads INTEGER, model_sha256 TEXT, edge_version TEXT, median_ms REAL,
  row BLOB NOT NULL
)
"""
_COLUMNS = (
    *("id", "at", "setup", "host", "machine", "runtime", "runtime_version", "precision", "threads"),
    *("model_sha256", "edge_version", "median_ms"),
)
_INSERT = """
INSERT INTO measurements
  (at, setup, host, machine, runtime, runtime_version, precision, threads, model_sha256, edge_version, median_ms, row)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SELECT = """
SELECT id, at, setup, host, machine, runtime, runtime_version, precision, threads, model_sha256, edge_version, median_ms
  FROM measurements WHERE instr(setup, ?) > 0 ORDER BY id DESC LIMIT ?
"""
_KEEP = "DELETE FROM measurements WHERE id NOT IN (SELECT id FROM measurements ORDER BY id DESC LIMIT ?)"
_BUSY_S = 10.0  # another process may be writing
_READ, _CHANGE, _CREATE = "ro", "rw", "rwc"  # SQLite's modes


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A measurement of the history.

    id: Its number, which `show` takes.
    at: When it was recorded, in seconds of Unix time.
    setup: The setup's id; host, machine: where it was measured.
    runtime, runtime_version, precision, threads, model_sha256, edge_version, median_ms: As in a row of `edge bench`.
    """

    id: int
    at: float
    setup: str
    host: str | None
    machine: str | None
    runtime: str | None
    runtime_version: str | None
    precision: str | None
    threads: int | None
    model_sha256: str | None
    edge_version: str | None
    median_ms: float | None

    def to_json(self) -> JsonObject:
        """Return the object that `edge history list --json` prints."""
        return to_json(self)


def history_file() -> Path | None:
    """Return the file of the history, which may not exist yet; None if nothing is kept."""
    named = os.environ.get("EDGE_HISTORY")
    if named:
        return None if named == "off" else Path(named)
    if sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        folder = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return folder / "edge" / "history.sqlite"


def record(rows: Sequence[Row]) -> None:
    """Keep the measured rows. A history that cannot be written is a warning: the measurement counts all the same."""
    path, measured = history_file(), [row for row in rows if row.samples_ms]
    if path is None or not measured:
        return
    try:
        with _database(path, _CREATE) as database:
            database.executemany(_INSERT, [_values(row) for row in measured])
    except HostError as error:
        _log.warning("the history was not written: %s", error.message)


def entries(setup: str | None = None, last: int | None = None) -> list[Entry]:
    """Return the measurements, oldest first: all, those whose setup contains a text, or only the last ones."""
    with _existing(_READ) as database:
        found = database.execute(_SELECT, [setup or "", last or -1]).fetchall() if database else []
    return [Entry(**dict(zip(_COLUMNS, values, strict=True))) for values in reversed(found)]


def rows(ids: Sequence[int]) -> list[JsonObject]:
    """Return the rows with these ids, as `edge bench --json` writes them.

    Raises InputError for an unknown id, and for a row that is damaged.
    """
    found = []
    with _existing(_READ) as database:
        for number in ids:
            one = database and database.execute("SELECT row FROM measurements WHERE id = ?", [number]).fetchone()
            if not one:
                raise InputError(f"the history has no measurement {number}", "`edge history list` shows them")
            found.append(_unpack(number, one[0]))
    return found


def _unpack(number: int, content: bytes) -> JsonObject:
    try:
        values = json.loads(zlib.decompress(content))
    except (zlib.error, ValueError, TypeError) as error:
        values = error
    if not isinstance(values, dict):
        raise InputError(f"measurement {number} of the history is damaged", "choose others by their IDs")
    return values


def prune(before: float | None = None, keep: int | None = None) -> int:
    """Remove what was recorded before a time, or all but the last `keep`. Returns how many were removed."""
    with _existing(_CHANGE) as database:
        if database is None:
            return 0
        if before is not None:
            return database.execute("DELETE FROM measurements WHERE at < ?", [before]).rowcount
        return database.execute(_KEEP, [keep]).rowcount


def _values(row: Row) -> tuple[object, ...]:
    machine = row.machine or {}
    content = zlib.compress(json.dumps(row.to_json(), ensure_ascii=False).encode())
    return (
        *(time.time(), row.setup, row.host, machine.get("board") or machine.get("cpu"), row.runtime),
        *(row.runtime_version, row.precision, row.threads, row.model_sha256, row.edge_version, row.median_ms, content),
    )


@contextmanager
def _existing(mode: str) -> Iterator[sqlite3.Connection | None]:
    """Open the history to read it, without writing anything, or to change it; None if there is none."""
    path = history_file()
    if path is None or not path.is_file() or not path.stat().st_size:
        yield None
        return
    with _database(path, mode) as database:
        yield database


@contextmanager
def _database(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """Open the history; changes are committed at the end. Raises HostError if it cannot be read or written."""
    try:
        if mode == _CREATE:
            path.parent.mkdir(parents=True, exist_ok=True)
        address = f"{path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_S)) as database, database:
            _check_schema(database, path)
            yield database
    except (sqlite3.Error, OSError) as error:
        raise HostError(f"the history {path} cannot be used: {error}", _HINT) from error


def _check_schema(database: sqlite3.Connection, path: Path) -> None:
    """Create the table in an empty database. Raises HostError for one that is not ours, or of a newer edge."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and _NAME not in tables:
        raise HostError(f"{path} is a database of another program", _HINT)
    if version not in (0, SCHEMA):
        raise HostError(f"{path} was written by a newer edge (schema {version})", _HINT)
    if not tables:
        database.execute(_TABLE)
        database.execute(f"PRAGMA user_version = {SCHEMA}")
