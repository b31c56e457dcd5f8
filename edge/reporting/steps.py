"""The history of each model on each machine and engine: where its latency stepped, and what changed there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edge.benchmark.compare import FASTER, SLOWER, compare
from edge.benchmark.history import Entry
from edge.benchmark.rows import Row
from edge.reporting.results import machine_of
from runtimes.host.schema import Conditions

# A clock counts as changed if it differs by more than this share: it is read at one moment.
_CLOCK = 0.05
# With a single round there is no interval between rounds: then a step is a change that is rare without a cause.
_STEP = 0.10


@dataclass(frozen=True, kw_only=True)
class LatencyStep:
    """Where two successive measurements differ, in their latency or in what made them.

    place: The position of the later one in its series.
    verdict: "faster", "slower", or empty if the latency did not step.
    ratio: New time / old time.
    changes: What changed, as sentences; empty if nothing that edge records did.
    """

    place: int
    verdict: str
    ratio: float
    changes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Series:
    """The measurements of one model on one machine with one engine, oldest first."""

    setup: str
    machine: str
    runtime: str
    entries: Sequence[Entry]
    rows: Sequence[Row]
    steps: Sequence[LatencyStep]


def series_of(entries: Sequence[Entry], rows: Sequence[Row]) -> list[Series]:
    """Group the history by setup, machine and engine; the longest series first."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, row in enumerate(rows):
        where = f"{row.host}, {machine_of(row)}" if row.host else machine_of(row)
        groups.setdefault((row.setup, where, row.runtime or ""), []).append(place)
    found = []
    for (setup, where, runtime), places in groups.items():
        mine = [rows[place] for place in places]
        found.append(
            Series(
                setup=setup,
                machine=where,
                runtime=runtime,
                entries=[entries[place] for place in places],
                rows=mine,
                steps=list(_steps(mine)),
            )
        )
    return sorted(found, key=lambda one: (-len(one.rows), one.setup))


def _steps(rows: Sequence[Row]) -> Iterator[LatencyStep]:
    for place, (old, new) in enumerate(pairwise(rows), start=1):
        if not old.median_ms or not new.median_ms:
            continue
        changes, ratio = tuple(changes_between(old, new)), new.median_ms / old.median_ms
        verdict = _verdict(old, new, ratio)
        if verdict or changes:
            yield LatencyStep(place=place, verdict=verdict, ratio=ratio, changes=changes)


def _verdict(old: Row, new: Row, ratio: float) -> str:
    if len(old.rounds) > 1 and len(new.rounds) > 1:
        (found,) = compare([new], [old])
        return found.verdict if found.verdict in (FASTER, SLOWER) else ""
    return "" if abs(ratio - 1) <= _STEP else SLOWER if ratio > 1 else FASTER


def changes_between(old: Row, new: Row) -> Iterator[str]:
    """Yield what differs in what made two measurements, as far as it is recorded in both."""
    values = (
        ("the model's digest", _short(old.model_sha256), _short(new.model_sha256)),
        ("the engine's version", old.runtime_version, new.runtime_version),
        ("edge's version", old.edge_version, new.edge_version),
        ("the number of threads", old.threads, new.threads),
        ("the device", old.device, new.device),
        ("the precision", old.precision, new.precision),
        ("the settings", _pairs(old.settings), _pairs(new.settings)),
        ("the protocol", _pairs(old.protocol), _pairs(new.protocol)),
        ("the input", _short(old.input and old.input["sha256"]), _short(new.input and new.input["sha256"])),
        ("the system", (old.machine or {}).get("os"), (new.machine or {}).get("os")),
        ("Python", (old.machine or {}).get("python"), (new.machine or {}).get("python")),
        ("the browser", (old.browser or {}).get("name"), (new.browser or {}).get("name")),
    )
    for name, before, after in values:
        if before is not None and after is not None and before != after:
            yield f"{name}: {before or 'none'} → {after or 'none'}"
    was, now = _conditions(old), _conditions(new)
    if was is not None and now is not None:
        yield from _changed_conditions(was, now)


def _changed_conditions(old: Conditions, new: Conditions) -> Iterator[str]:
    if old.get("governor") != new.get("governor"):
        yield f"the governor: {old.get('governor')} → {new.get('governor')}"
    before, after = old.get("mhz"), new.get("mhz")
    if before and after and abs(after / before - 1) > _CLOCK:
        yield f"the clock: {before:.0f} → {after:.0f} MHz"
    mode, other = old.get("power_mode"), new.get("power_mode")
    if mode and other and mode != other:
        yield f"the power mode: {mode['name'] or mode['id']} → {other['name'] or other['id']}"
    clock, now = old.get("gpu_clock"), new.get("gpu_clock")
    if clock and now and (clock["max_mhz"], clock["fixed"]) != (now["max_mhz"], now["fixed"]):
        yield f"the GPU's clock: at most {clock['max_mhz']:.0f} → {now['max_mhz']:.0f} MHz"
    if _is_throttled(old) != _is_throttled(new):
        yield "throttling: " + ("it began" if _is_throttled(new) else "it ended")


def _is_throttled(conditions: Conditions) -> bool:
    found = conditions.get("throttling")
    return bool(found and found["now"])


def _conditions(row: Row) -> Conditions | None:
    around = row.rounds[0].conditions if row.rounds else None
    return around["before"] if around else None


def _pairs(values: object) -> str | None:
    return ", ".join(f"{key} {value}" for key, value in values.items()) if isinstance(values, dict) else None


def _short(digest: str | None) -> str | None:
    return digest[:8] if digest else None


def format_time(moment: float) -> str:
    """Return a moment of Unix time as a date and a time."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))
