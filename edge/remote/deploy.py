"""An artifact on a board, with all that it needs, and the board's own verdict on it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge.remote.board import Board
from edge.remote.ssh import Line, LineLost
from edge.remote.survey import ROOT, survey
from edge.workers import run_job
from runtimes.artifact import Artifact
from runtimes.errors import HostError, InputError

_VERIFY_S = 1800.0  # a Jetson builds its engine in it
_GIB = 2**30
_NOTHING, _BUSY = 3, 4  # exit statuses of the scripts below


def deploy(
    artifact: Path, host: str, runtime: str | None, offline: bool, note: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Bring it there and verify it there: digests, then the self-check in a worker.

    {"host", "board", "artifact", "copied", "runtime", "runtime_version", "passed", "metrics", "message"}. An artifact
    that has changed on the board's disk is sent once more.
    """
    opened = Artifact.open(artifact)
    if opened.is_bare:
        raise InputError(f"{artifact} is a bare model file: there is nothing to verify it by", "convert it first")
    opened.verify_digests()
    job = {"job": "verify", "artifact": str(opened.path), "runtime": runtime}
    with Board(host, offline=offline, note=note) as board:
        try:
            verdict = _verify(board, job, note)
        except InputError:  # what was whole here and when it arrived is not any more
            board.installer.forget(board.installer.artifact(opened.path))
            verdict = _verify(board, job, note)
        place = board.installer.artifact(opened.path)
        told = board.ask("runtimes.tell")
        copied = board.installer.copied
    return {"host": host, "board": in_words(told["machine"]), "artifact": f"~/{place}", "copied": copied, **verdict}


def _verify(board: Board, job: Mapping[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
    def hear(progress: Mapping[str, Any]) -> None:
        note(str(progress.get("phase", "")))

    note("verifying")
    return run_job(job, timeout_s=_VERIFY_S, on_progress=hear, place=board)


def uninstall(host: str) -> bool:
    """Remove all that is ours from a board; whether there was anything. HostError where somebody measures there.

    Samples that an earlier connection has left are fetched first; that they cannot be is told on stderr.
    """
    with Line(host) as line:
        if _alone(line, "true") and _keeps_samples(line):
            _fetch(line)
        # Where the folder was moved to another disk, both the link and what it leads to are ours.
        return _alone(line, f'[ ! -L {ROOT} ] || rm -rf "$(readlink -f {ROOT})"; rm -rf {ROOT}')


def _alone(line: Line, script: str) -> bool:
    """Run it while nobody measures on the board; False where nothing of ours is there."""
    held = f"[ -e {ROOT}/lock ] && command -v flock >/dev/null && {{ exec 9<{ROOT}/lock; ! flock -n 9; }}"
    status, _ = line.run(
        f'cd "$HOME" || exit 1; [ -e {ROOT} ] || [ -L {ROOT} ] || exit {_NOTHING}; '
        f"if {held}; then exit {_BUSY}; fi; {script}"
    )
    if status == _BUSY:
        raise HostError(f"somebody measures on {line.host} at this moment", "run it again when that has ended")
    return status != _NOTHING


def _keeps_samples(line: Line) -> bool:
    return any(name.startswith("kept/") for name in survey(line).have)


def _fetch(line: Line) -> None:
    why = "they cannot be read"
    try:
        with Board(line.host):  # which fetches them as it connects
            pass
    except LineLost:
        raise
    except HostError as error:  # a board that cannot run anything any more is given back all the same
        why = error.message
    if _keeps_samples(line):
        print(
            f"edge: what {line.host} had kept of a run that was cut off is lost with the rest: {why}", file=sys.stderr
        )


def in_words(machine: Mapping[str, Any]) -> str:
    """A machine in one line: Raspberry Pi 4 Model B Rev 1.4 (aarch64, 4 cores, 3.7 GiB, Debian …, Python 3.11.2)."""
    cpu, system, memory = machine["cpu"], machine["os"], machine["memory"]["total_bytes"]
    parts = [
        cpu["architecture"],
        f"{cpu['logical_cores']} cores",
        f"{memory / _GIB:.1f} GiB" if memory else None,
        system["name"],
        f"Python {system['python']}",
        "emulated" if system["emulated"] else None,
    ]
    return f"{machine['board']['model'] or cpu['model'] or 'board'} ({', '.join(filter(None, parts))})"
