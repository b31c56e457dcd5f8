"""Deploy an artifact to a board with everything it needs, and verify it there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.remote.board import Board
from edge.remote.probe import ROOT, probe
from edge.remote.ssh import ConnectionLostError, SshConnection
from edge.workers.process import run_job
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import JsonObject, to_json
from runtimes.board.report import BoardReport
from runtimes.errors import HostError, InputError
from runtimes.host.schema import MachineFacts
from runtimes.jobs import Progress, VerifyAnswer, VerifyJob

_log = logging.getLogger(__name__)
_VERIFY_S = 1800.0  # includes the time a Jetson needs to build its engine
_GIB = 2**30
_NOTHING, _BUSY = 3, 4  # exit statuses of the scripts below


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A deployed artifact, and the result of its verification on the board.

    host: The board, as given to ssh.
    board: A description of the machine.
    artifact: The path of the artifact on the board.
    copied: What was newly copied.
    verdict: The result of the verification.
    """

    host: str
    board: str
    artifact: str
    copied: Sequence[str]
    verdict: VerifyAnswer

    def to_json(self) -> JsonObject:
        """Return the output of `edge deploy --json`, with the verdict's keys merged in."""
        return {
            "host": self.host,
            "board": self.board,
            "artifact": self.artifact,
            "copied": list(self.copied),
            **to_json(self.verdict),
        }


def deploy(
    artifact: Path, host: str, runtime: str | None, offline: bool, note: Callable[[str], None] = lambda _: None
) -> Deployment:
    """Copy an artifact to a board and verify it there: digests, then the self-check in a worker.

    An artifact that has changed on the board's disk is copied again. Raises InputError for a bare model file.
    """
    opened = Artifact.open(artifact)
    if opened.is_bare:
        raise InputError(f"{artifact} is a bare model file: there is nothing to verify it against", "convert it first")
    job = VerifyJob(str(opened.path), runtime)
    with Board(host, offline=offline, note=note) as board:
        try:
            verdict = _verify(board, job, note)
        except InputError:  # the copy was intact on arrival, so the board's disk has changed it
            board.installer.forget(board.installer.artifact(opened.path))
            verdict = _verify(board, job, note)
        path = board.installer.artifact(opened.path)
        report: BoardReport = board.ask("runtimes.board.report")
        copied = board.installer.copied
    return Deployment(
        host=host, board=describe_machine(report["machine"]), artifact=f"~/{path}", copied=copied, verdict=verdict
    )


def _verify(board: Board, job: VerifyJob, note: Callable[[str], None]) -> VerifyAnswer:
    def show(progress: Progress) -> None:
        note(str(progress.get("phase", "")))

    note("verifying")
    return run_job(job, timeout_s=_VERIFY_S, on_progress=show, place=board)


def uninstall(host: str) -> bool:
    """Remove everything edge installed on a board. Returns whether there was anything.

    Raises HostError while a measurement runs there. Samples that an earlier connection left are fetched first; a
    failure to do so is logged as a warning.
    """
    with SshConnection(host) as line:
        if _run_if_idle(line, "true") and _has_samples(line):
            _fetch(line)
        # If the folder was moved to another disk, both the link and its target are ours.
        return _run_if_idle(line, f'[ ! -L {ROOT} ] || rm -rf "$(readlink -f {ROOT})"; rm -rf {ROOT}')


def _run_if_idle(line: SshConnection, script: str) -> bool:
    """Run a script unless a measurement runs on the board. Returns False if edge has no files there."""
    held = f"[ -e {ROOT}/lock ] && command -v flock >/dev/null && {{ exec 9<{ROOT}/lock; ! flock -n 9; }}"
    status, _ = line.run(
        f'cd "$HOME" || exit 1; [ -e {ROOT} ] || [ -L {ROOT} ] || exit {_NOTHING}; '
        f"if {held}; then exit {_BUSY}; fi; {script}"
    )
    if status == _BUSY:
        raise HostError(f"a measurement is running on {line.host}", "run it again when that has ended")
    return status != _NOTHING


def _has_samples(line: SshConnection) -> bool:
    return any(name.startswith("kept/") for name in probe(line).have)


def _fetch(line: SshConnection) -> None:
    why = "they cannot be read"
    try:
        with Board(line.host):  # fetches them as it connects
            pass
    except ConnectionLostError:
        raise
    except HostError as error:  # uninstall also from a board that can no longer run anything
        why = error.message
    if _has_samples(line):
        _log.warning("the samples that %s kept of an interrupted run are lost: %s", line.host, why)


def describe_machine(machine: MachineFacts) -> str:
    """Describe a machine in one line.

    Example: Raspberry Pi 4 Model B Rev 1.4 (aarch64, 4 cores, 3.7 GiB, Debian …, Python 3.11.2)
    """
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
