"""The connection to a board: one ssh connection, with a separate channel for every command.

It uses the user's own OpenSSH, not a library. Measured on loopback: OpenSSH needs 0.28 s to connect, 0.07 s for each
command afterwards and 0.7 s to push 20 MB; asyncssh 2.24 0.08 s and 0.54 s, paramiko 5.1 0.11 s and 0.91 s. A library
would gain only a few tenths of a second. OpenSSH reads all of `~/.ssh/config` (jump hosts, Match, agents, hardware
keys, host-key policy), asks for passphrases as usual, and is not a dependency; of the two libraries, one does not
support jump hosts and the other does not support `StrictHostKeyChecking`.

    master    ssh -M: authenticates, and runs `cat` on the board. It ends with us, because its stdin then ends.
    channels  ssh -S: each runs one command. Without the master they fail at once instead of connecting again.

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

from runtimes.child_process import deadline, end, last_words, start
from runtimes.errors import HostError, UsageError

Feed = Callable[[IO[bytes]], None]

# A connection that is silent for 20 s counts as lost: roaming Wi-Fi needs a few seconds.
ALIVE_EVERY_S, ALIVE_MISSED = 5, 4
_CONNECT_S = 10
_ANSWER_S = 180.0  # a small, busy board is slow to start Python
_READY = b"edge-ready\n"
_SAY_READY = r"printf '\nedge-ready\n'"  # on a separate line, whatever was printed before it
_GONE = 255  # ssh's own failures; a command killed by a signal looks the same

# Pattern of ssh's message → what happened, and what to do; the first match counts. {name} is {host} without the user,
# {known} its name in the file of known keys: `[address]:port` if an alias or another port is configured.
_SSH_ERRORS: tuple[tuple[str, str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of {host} has changed: it was reinstalled, or this is another machine",
        "if you know why, remove the old one: `ssh-keygen{file} -R '{known}'`; then compare the new one: ssh {host}",
    ),
    (
        r"Host key verification failed|host key is known for",
        "the host key of {host} is not known here",
        "connect once manually, compare the fingerprint and accept it: ssh {host}",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "{host} refuses the login of this user",
        "check that `ssh {host}` works; `ssh-copy-id {host}` installs a key",
    ),
    (r"Could not resolve hostname", "the host {name} is not found", "check its name, or give its address"),
    (
        r"Connection refused",
        "{host} is reachable, but no ssh server answers",
        "on the board: sudo systemctl enable --now ssh",
    ),
    (
        r"timed out|No route to host|Network is unreachable|not responding|Broken pipe|Connection reset|"
        r"closed by|unexpectedly",
        "the connection to {host} was lost",
        "check its power and network, then run the command again",
    ),
)
# What ssh says of a key that has changed: its name there, and the file.
_KNOWN_AS = re.compile(r"Host key for (\S+) has changed")
_KNOWN_IN = re.compile(r"^Offending .*key in (.+):\d+\s*$", re.MULTILINE)
# Login shells read the command line first. tcsh takes neither a line break nor a `!` in quotes, and fish reads `\\` and
# `\'` there, so a script travels with control characters for them, which the board's `tr` turns back.
_UNSAFE, _SAFE = "\n!\\'", "\1\2\3\4"
_UNPACK = r'eval "$(printf %s "$1" | tr "\001\002\003\004" "\012\041\134\047")"'


class ConnectionLostError(HostError):
    """The connection to a board failed or was lost."""


class RemoteTimeoutError(HostError):
    """A command on a board exceeded its time limit."""


class SshConnection:
    """One connection to `host`, a name or alias known to the user's ssh. A context manager."""

    def __init__(self, host: str) -> None:
        if not host or host.startswith("-") or any(character.isspace() for character in host):
            raise UsageError(f"'{host}' is not the name of a host", "write it as for ssh: pi@raspberrypi.local")
        self.host = host
        self._ssh = shlex.split(os.environ.get("EDGE_SSH", "ssh"))
        if not self._ssh or shutil.which(self._ssh[0]) is None:
            raise HostError("ssh is not installed on this machine", "sudo apt-get install openssh-client")
        self._folder: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SshConnection:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether the connection is open, as far as ssh knows."""
        return self._master is not None and self._master.poll() is None

    def connect(self) -> None:
        """Connect, or reconnect after the connection was lost. Raises ConnectionLostError with the reason."""
        self.close()
        # Short and private: a socket's path is limited to 104 bytes, and whoever can open it can use the connection.
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
                # In our session, so that ssh asks for passphrases on this terminal.
            )
        assert self._master.stdout is not None
        # The shell's start files may print before it.
        if not any(line.endswith(_READY) for line in self._master.stdout):
            self._master.wait()
            error = self.failure(self._log_text())
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
        """Return the command that runs a `/bin/sh` script on the board, as a channel of this connection.

        Read its stdout through `skip_shell_banner`. Raises ConnectionLostError if the connection is closed.
        """
        if not self.is_open:
            raise self.failure(self._log_text())
        # A proxy that fails: without a master, ssh would open a connection of its own and ask for passwords.
        no_fallback = ["-o", "ControlMaster=no", "-o", "BatchMode=yes", "-o", "ProxyCommand=exit 1"]
        return [
            *self._ssh,
            *self._options(),
            *no_fallback,
            "-T",
            "--",
            self.host,
            _for_any_shell(f"{_SAY_READY}; {script}"),
        ]

    def run(
        self,
        script: str,
        feed: Feed | None = None,
        *,
        on_line: Callable[[str], None] | None = None,
        timeout_s: float = _ANSWER_S,
    ) -> tuple[int, str]:
        """Run a script on the board and return its exit status and stdout as text; see `read`."""
        status, out = self.read(script, feed, on_line=on_line, timeout_s=timeout_s)
        return status, out.decode("utf-8", "replace")

    def read(
        self,
        script: str,
        feed: Feed | None = None,
        *,
        on_line: Callable[[str], None] | None = None,
        timeout_s: float = _ANSWER_S,
    ) -> tuple[int, bytes]:
        """Run a script on the board and return its exit status and stdout.

        `feed` writes its stdin; `on_line` receives each line of stdout as it arrives. Without `feed`, stdin stays open
        until the script ends; if it closes earlier, the board knows that we have disconnected.

        Raises ConnectionLostError if the connection breaks, RemoteTimeoutError after `timeout_s`. The script's stderr
        is attached to the error as a note, for --debug.
        """
        with tempfile.TemporaryFile() as log:
            process = start(self.command(script), log)
            try:
                with deadline(timeout_s, lambda: end(process)) as expired:
                    out = _exchange(process, feed, on_line)
            finally:
                end(process)  # after an exception such as Ctrl+C; otherwise it has ended
                process.wait()
            words = last_words(log)
        if expired.is_set():
            raise RemoteTimeoutError(f"{self.host} did not answer within {timeout_s:g} s", "it may be busy; try again")
        if process.returncode == _GONE:
            raise self.failure(words)
        return process.returncode, out

    def failure(self, output: str) -> ConnectionLostError:
        """Return the error that explains why the connection failed, from the stderr of ssh."""
        name = self.host.rpartition("@")[2]
        known, file = _KNOWN_AS.search(output), _KNOWN_IN.search(output)
        words = {
            "host": self.host,
            "name": name,
            "known": known.group(1) if known else name,
            "file": f" -f {shlex.quote(file.group(1))}" if file else "",
        }
        for pattern, what, hint in _SSH_ERRORS:
            if re.search(pattern, output):
                error = ConnectionLostError(what.format(**words), hint.format(**words))
                break
        else:
            last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
            reason = f": {last.strip()[:200]}" if last else ""
            error = ConnectionLostError(
                f"the connection to {self.host} was lost{reason}", f"check that `ssh {self.host}` works"
            )
        if output.strip():
            error.add_note(f"output of ssh:\n{output.strip()}")
        return error

    def cut(self) -> None:
        """End the connection at once, from another thread. Pending calls raise ConnectionLostError."""
        if self._master is not None:
            self._master.kill()

    def close(self) -> None:
        """End the connection and every command that still runs on it."""
        master, self._master = self._master, None
        if master is not None:
            assert master.stdin is not None
            assert master.stdout is not None
            _close(master.stdin)
            try:
                master.wait(2.0)  # for `cat` to end, and ssh to disconnect
            except subprocess.TimeoutExpired:  # a stalled connection
                master.kill()
                master.wait()
            master.stdout.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _log_text(self) -> str:
        if self._folder is None:
            return ""
        with suppress(OSError), (self._folder / "log").open("rb") as log:
            return last_words(log)
        return ""


def _for_any_shell(script: str) -> str:
    """Return a command line that runs a `/bin/sh` script, whatever the user's login shell is."""
    return f"exec /bin/sh -c '{_UNPACK}' sh '{script.translate(str.maketrans(_UNSAFE, _SAFE))}'"


def skip_shell_banner(lines: Iterable[AnyStr]) -> Iterator[AnyStr]:
    """Yield the output of a channel's script, without what the user's shell printed before it.

    bash reads ~/.bashrc for every command that sshd runs, and zsh reads ~/.zshenv; both may contain an `echo`.
    """
    output = iter(lines)
    for line in output:
        if (line.encode() if isinstance(line, str) else line) == _READY:
            break
    yield from output


def quote(words: Sequence[str]) -> str:
    """Quote a command line for `/bin/sh` on the board; a leading `~/` of a word is the home folder."""
    return " ".join(
        f'"$HOME"/{shlex.quote(word[2:])}' if word.startswith("~/") else shlex.quote(word) for word in words
    )


def _exchange(process: subprocess.Popen[bytes], feed: Feed | None, on_line: Callable[[str], None] | None) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    if feed is not None:
        with suppress(BrokenPipeError):  # it has ended already; its status and stderr say why
            feed(process.stdin)
        _close(process.stdin)
    lines = []
    for line in skip_shell_banner(process.stdout):
        lines.append(line)
        if on_line is not None:
            on_line(line.decode("utf-8", "replace").rstrip())
    process.stdout.close()
    _close(process.stdin)
    process.wait()
    return b"".join(lines)


def _close(pipe: IO[bytes]) -> None:
    with suppress(BrokenPipeError):
        pipe.close()
