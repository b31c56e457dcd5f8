"""Run the checks of one kind of hardware, and write a report that can be sent in."""

from __future__ import annotations

import getpass
import json
import platform
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.hardware.checks import Check, Kind

ROOT = Path(__file__).parents[2]
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_TIMEOUT_S = 3600.0  # a Jetson Nano builds an engine for many minutes
_LAST_CHARACTERS = 4000


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command of edge did."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a check: `reason` says what is wrong, `answer` is the JSON that the command printed."""

    name: str
    simulated: str
    command: str
    outcome: str
    reason: str
    seconds: float
    answer: Any = None
    stderr: str = ""


Run = Callable[[Sequence[str]], Done]


def edge(words: Sequence[str]) -> Done:
    """Run a command of edge."""
    done = subprocess.run(
        [sys.executable, "-m", "edge", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
        cwd=ROOT,
    )
    return Done(status=done.returncode, out=done.stdout, err=done.stderr)


def outcomes(kind: Kind, places: Mapping[str, str], run: Run = edge) -> Iterator[Outcome]:
    """Run the checks in order and yield each outcome.

    places: Replaces the words in braces: host, device, out, artifacts. An empty host is this machine.
    """
    failed: set[str] = set()
    for check in kind.checks:
        if check.where == ("here" if places["host"] else "board"):
            continue
        words = [*_words(check.words, places), "--json"]
        command = shlex.join(["edge", *words])
        if check.needs in failed:
            failed.add(check.name)
            yield _outcome(check, command, SKIPPED, f"needs: {check.needs}", 0.0)
            continue
        start = time.monotonic()
        try:
            done = run(words)
        except subprocess.TimeoutExpired:
            done = Done(status=124, out="", err=f"it did not end within {_TIMEOUT_S:g} s")
        reason, answer = _judged(check, done)
        if reason:
            failed.add(check.name)
        seconds, stderr = time.monotonic() - start, done.err[-_LAST_CHARACTERS:]
        yield _outcome(check, command, FAILED if reason else PASSED, reason, seconds, answer, stderr)


def report(name: str, kind: Kind, found: Sequence[Outcome], private: Sequence[str] = ()) -> tuple[str, str]:
    """Return the report as Markdown for people and as JSON with every answer.

    private: Words that are replaced, such as the host's name; this machine's and the user's are as well.
    """
    from edge import __version__

    about = f"edge {__version__}, Python {platform.python_version()}, {platform.platform()}"
    counts = ", ".join(f"{sum(one.outcome == word for one in found)} {word}" for word in (PASSED, FAILED, SKIPPED))
    lines = [
        f"# {kind.title}",
        "",
        f"{about}; {counts}",
        "",
        "| check | until now | outcome | seconds |",
        "|---|---|---|---:|",
    ]
    lines += [
        f"| {one.name} | {one.simulated} | {one.outcome}{f': {one.reason}' if one.reason else ''} | {one.seconds:.1f} |"
        for one in found
    ]
    lines += ["", *(f"    {one.command}" for one in found)]
    document = {"kind": name, "about": about, "outcomes": [asdict(one) for one in found]}
    texts = "\n".join(lines) + "\n", json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    return _anonymous(texts[0], private), _anonymous(texts[1], private)


def _words(words: Sequence[str], places: Mapping[str, str]) -> Iterator[str]:
    for word in words:
        if word == "{on}":
            yield from (["--on", places["host"]] if places["host"] else [])
        else:
            yield word.format_map(places)


def _judged(check: Check, done: Done) -> tuple[str, Any]:
    """Return what is wrong with the answer, and the answer."""
    try:
        answer = json.loads(done.out) if done.out.strip() else None
    except ValueError:
        return f"it did not print JSON: {done.out[:200]}", None
    is_finding = check.words[0] == "doctor" and done.status == 7 and answer is not None
    if done.status != 0 and not is_finding:
        return f"status {done.status}: {_why(done, answer)[:500]}", answer
    if check.expect and answer is None:
        return "it printed nothing", None
    try:
        return next(filter(None, (expect(answer) for expect in check.expect)), ""), answer
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        return f"its answer lacks something: {type(error).__name__}: {error}", answer


def _why(done: Done, answer: Any) -> str:
    """Return the error that a command printed with its remedy, else that of a row that was not measured."""
    last = (done.err.strip().splitlines() or [""])[-1]
    try:
        error = json.loads(last)
    except ValueError:
        error = {"message": last}
    if not last and isinstance(answer, list):
        error = next((row for row in answer if row.get("message")), {})
    found = [error.get("message"), error.get("hint")] if isinstance(error, dict) else [last]
    return " → ".join(filter(None, found)) or "nothing on stderr"


def _outcome(
    check: Check, command: str, outcome: str, reason: str, seconds: float, answer: Any = None, stderr: str = ""
) -> Outcome:
    return Outcome(
        name=check.name,
        simulated=check.simulated,
        command=command,
        outcome=outcome,
        reason=reason,
        seconds=seconds,
        answer=answer,
        stderr=stderr,
    )


def _anonymous(text: str, private: Sequence[str]) -> str:
    """Replace names of machines, users and folders."""
    hidden = {
        **dict.fromkeys(private, "HOST"),
        str(Path.home()): "~",
        socket.gethostname(): "HOST",
        getpass.getuser(): "USER",
    }
    for word, name in sorted(hidden.items(), key=lambda pair: -len(pair[0])):
        if len(word) > 1 and word != "root":
            text = text.replace(word, name)
    return text
