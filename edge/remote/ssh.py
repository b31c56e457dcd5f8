"""The line to a board: one ssh connection, over which every command is a channel of its own.

It is the user's own OpenSSH, not a library. Measured on loopback: OpenSSH needs 0.28 s to connect, 0.07 s for each
command afterwards and 0.7 s to push 20 MB; asyncssh 2.24 0.08 s and 0.54 s, paramiko 5.1 0.11 s and 0.91 s. A few
tenths of a second are all that a library would gain. OpenSSH reads `~/.ssh/config` to the letter (jump hosts, Match,
agents, hardware keys, host-key policy), asks for passphrases as people know it, and is no dependency; of the two
libraries, one knows no jump hosts and the other no `StrictHostKeyChecking`.

    master    ssh -M: authenticates, and runs `cat` there. It ends when we do, as its stdin then ends.
    channels  ssh -S: each runs one command. Where the master is gone they fail at once instead of connecting anew.

`EDGE_SSH` replaces the word `ssh`: EDGE_SSH='ssh -F other_config'.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, AnyStr

from edge.deadline import deadline
from runtimes.errors import HostError, UsageError

Feed = Callable[[IO[bytes]], None]

# A line that is silent for so long is taken for cut: a Wi-Fi that roams needs some seconds.
ALIVE_EVERY_S, ALIVE_MISSED = 5, 4
_CONNECT_S = 10
_ANSWER_S = 180.0  # a small board that is busy takes its time to start Python
_READY = b"edge-ready\n"
_SAY_READY = r"printf '\nedge-ready\n'"  # on a line of its own, whatever was printed before it
_GONE = 255  # ssh's own failures; a command that a signal ended there looks the same
_TAIL = 4096

# What ssh says → what happened, and what to do; the first that fits. {name} is {host} without the user.
_SAID: tuple[tuple[str, str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "{host} shows another host key than before: it was reinstalled, or this is another machine",
        "if you know why, forget the old one with `ssh-keygen -R {name}`, then compare the new one: ssh {host}",
    ),
    (
        r"Host key verification failed|host key is known for",
        "the host key of {host} is not known here",
        "connect once by hand, compare the fingerprint and accept it: ssh {host}",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "{host} does not let this user in",
        "check that `ssh {host}` works; a key is installed there by `ssh-copy-id {host}`",
    ),
    (r"Could not resolve hostname", "there is no host {name}", "check its name, or give its address"),
    (
        r"Connection refused",
        "{host} is there, but no ssh server answers",
        "on the board: sudo systemctl enable --now ssh",
    ),
    (
        r"timed out|No route to host|Network is unreachable|not responding|Broken pipe|Connection reset|"
        r"closed by|unexpectedly",
        "the connection to {host} was lost",
        "check its power and its network, then run the command again",
    ),
)


class LineLost(HostError):  # noqa: N818 - what happened, as the rows of a benchmark say it
    """The connection to a board could not be made, or broke."""


class NoAnswer(HostError):  # noqa: N818 - what happened
    """What was asked of a board took longer than it was given."""


class Line:
    """One connection to `host`, which is whatever the user's ssh knows it by. A context manager."""

    def __init__(self, host: str) -> None:
        if not host or host.startswith("-") or any(character.isspace() for character in host):
            raise UsageError(f"'{host}' is no host", "give it as ssh takes it: pi@raspberrypi.local")
        self.host = host
        self._ssh = shlex.split(os.environ.get("EDGE_SSH", "ssh"))
        if not self._ssh or shutil.which(self._ssh[0]) is None:
            raise HostError("there is no ssh on this machine", "sudo apt-get install openssh-client")
        self._folder: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Line:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether the connection still stands, as far as ssh has noticed."""
        return self._master is not None and self._master.poll() is None

    def connect(self) -> None:
        """Connect, or connect again after the line was lost; LineLost says why it cannot be."""
        self.close()
        # Short, and ours alone: the path of a socket has 104 bytes, and who may open it may use the connection.
        self._folder = Path(tempfile.mkdtemp(prefix="edge-ssh-"))
        with (self._folder / "log").open("wb") as log:
            self._master = subprocess.Popen(
                [
                    *self._ssh,
                    *self._options(),
                    "-M",
                    "-T",
                    "--",
                    self.host,
                    f"echo {_READY.decode().strip()}; exec cat",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=False,  # passphrases are asked for on this terminal
            )
        assert self._master.stdout is not None
        # A shell's start files may print before it.
        if not any(line.endswith(_READY) for line in self._master.stdout):
            self._master.wait()
            error = self.failure(self._said())
            self.close()
            raise error

    def _options(self) -> list[str]:
        assert self._folder is not None
        timing = {
            "ConnectTimeout": _CONNECT_S,
            "ServerAliveInterval": ALIVE_EVERY_S,
            "ServerAliveCountMax": ALIVE_MISSED,
            "ControlPersist": "no",
            "ControlPath": self._folder / "line",
            "RemoteCommand": "none",
            "RequestTTY": "no",
        }
        return [word for name, value in timing.items() for word in ("-o", f"{name}={value}")]

    def command(self, script: str) -> list[str]:
        """The program that runs a script of `/bin/sh` on the board, as a channel of this connection.

        Its stdout is to be read through `after_start_files`.
        """
        if not self.is_open:
            raise self.failure(self._said())
        # The proxy that fails: without a master, ssh would connect by itself, and ask for passwords in the middle.
        lonely = ["-o", "ControlMaster=no", "-o", "BatchMode=yes", "-o", "ProxyCommand=exit 1"]
        return [
            *self._ssh,
            *self._options(),
            *lonely,
            "-T",
            "--",
            self.host,
            shlex.join(["exec", "/bin/sh", "-c", f"{_SAY_READY}; {script}"]),
        ]

    def run(
        self,
        script: str,
        feed: Feed | None = None,
        *,
        hear: Callable[[str], None] | None = None,
        timeout_s: float = _ANSWER_S,
    ) -> tuple[int, str]:
        """The exit status and stdout, as text, of a script there; see `read`."""
        status, out = self.read(script, feed, hear=hear, timeout_s=timeout_s)
        return status, out.decode("utf-8", "replace")

    def read(
        self,
        script: str,
        feed: Feed | None = None,
        *,
        hear: Callable[[str], None] | None = None,
        timeout_s: float = _ANSWER_S,
    ) -> tuple[int, bytes]:
        """The exit status and stdout of a script there; `feed` writes its stdin, `hear` gets each line as it comes.

        Without `feed`, stdin stays open until the script ends: its end tells the other side that we have left.

        LineLost when the connection breaks, NoAnswer when `timeout_s` runs out. What it wrote on stderr is the
        error's note, for --debug.
        """
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                self.command(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
            try:
                with deadline(timeout_s, process.kill) as expired:
                    out = _exchange(process, feed, hear)
            finally:
                process.kill()  # after an exception from here, such as Ctrl+C; else it has ended
                process.wait()
            words = _tail(log)
        if expired.is_set():
            raise NoAnswer(f"{self.host} did not answer within {timeout_s:g} s", "it may be busy; try again")
        if process.returncode == _GONE:
            raise self.failure(words)
        return process.returncode, out

    def failure(self, said: str) -> LineLost:
        """Why the line is not there, from what ssh has said."""
        name = self.host.rpartition("@")[2]
        for pattern, what, hint in _SAID:
            if re.search(pattern, said):
                error = LineLost(what.format(host=self.host, name=name), hint.format(host=self.host, name=name))
                break
        else:
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
            told = f": {last.strip()[:200]}" if last else ""
            error = LineLost(f"the connection to {self.host} was lost{told}", f"check that `ssh {self.host}` works")
        if said.strip():
            error.add_note(f"ssh said:\n{said.strip()}")
        return error

    def cut(self) -> None:
        """From another thread: end the connection at once; what waits for it gets LineLost."""
        if self._master is not None:
            self._master.kill()

    def close(self) -> None:
        """End the connection and every command that still runs over it."""
        master, self._master = self._master, None
        if master is not None:
            assert master.stdin is not None
            assert master.stdout is not None
            _close(master.stdin)
            try:
                master.wait(2.0)  # `cat` has seen its end by then, and ssh says goodbye
            except subprocess.TimeoutExpired:  # a line that stalls
                master.kill()
                master.wait()
            master.stdout.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _said(self) -> str:
        if self._folder is None:
            return ""
        with suppress(OSError):
            return (self._folder / "log").read_bytes()[-_TAIL:].decode("utf-8", "replace")
        return ""


def after_start_files(lines: Iterable[AnyStr]) -> Iterator[AnyStr]:
    """What a channel's script says, of all that comes: the user's shell may print from its start files before it.

    bash reads ~/.bashrc for every command that sshd runs, zsh ~/.zshenv: an `echo` there is no answer.
    """
    said = iter(lines)
    for line in said:
        if (line.encode() if isinstance(line, str) else line) == _READY:
            break
    yield from said


def quoted(words: Sequence[str]) -> str:
    """A command line for `/bin/sh` there, in which a leading `~/` is the home folder."""
    return " ".join(
        f'"$HOME"/{shlex.quote(word[2:])}' if word.startswith("~/") else shlex.quote(word) for word in words
    )


def _exchange(process: subprocess.Popen[bytes], feed: Feed | None, hear: Callable[[str], None] | None) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    if feed is not None:
        with suppress(BrokenPipeError):  # it has ended already; its status and last words say why
            feed(process.stdin)
        _close(process.stdin)
    lines = []
    for line in after_start_files(process.stdout):
        lines.append(line)
        if hear is not None:
            hear(line.decode("utf-8", "replace").rstrip())
    process.stdout.close()
    _close(process.stdin)
    process.wait()
    return b"".join(lines)


def _close(pipe: IO[bytes]) -> None:
    with suppress(BrokenPipeError):
        pipe.close()


def _tail(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _TAIL))
    return log.read().decode("utf-8", "replace")
