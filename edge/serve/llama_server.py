"""Run llama-server as a child process: start it, restart it when it dies, end it.

It listens on a Unix socket in a folder that only this user can access, with a secret key, so that other programs on
this machine cannot bypass the proxy. Needs POSIX: Unix sockets and process groups.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from edge.serve.upstream import Upstream, UpstreamError
from edge.workers.failures import error_from_exit
from runtimes.errors import EdgeError, InputError, UsageError, WorkerError
from runtimes.llm.llama_cpp.server_program import Program, die_with_parent, last_error

_LOG = logging.getLogger(__name__)
_POLL_S = 0.05
_WATCH_S = 1.0  # running streams notice the end immediately, and each request checks the process first
_TERM_S, _KILL_S = 1.0, 2.0  # after the first SIGTERM, and after the second
_ENDING_S = 5.0  # from the end of a killed process's connections to its own, on a busy machine
_KEPT_LINES = 40
_QUIET = ("--log-verbosity", "1")  # errors
# Options that edge serve sets itself; after -- they would bypass the proxy. Each with what to use instead.
_RESERVED = {
    "--host": "--host", "--port": "--port", "--api-key": "--api-key-file", "--api-key-file": "--api-key-file",
    "-m": "MODEL", "--model": "MODEL", "-mu": "MODEL", "--model-url": "MODEL", "-hf": "MODEL", "--hf-repo": "MODEL",
    "-c": "--context", "--ctx-size": "--context", "-np": "--slots", "--parallel": "--slots", "-a": "--name",
    "--alias": "--name", "--chat-template-file": "--template", "--ssl-key-file": "a proxy",
    "--ssl-cert-file": "a proxy", "--api-prefix": "a proxy", "--threads": "--threads", "-t": "--threads",
    "--lora": "--lora", "--lora-scaled": "--lora", "--rpc": "--workers",
}  # fmt: skip


def check_extra_arguments(words: Sequence[str]) -> None:
    """Raise UsageError for options after -- that edge serve sets itself."""
    for word in words:
        name = word.partition("=")[0]
        if name in _RESERVED:
            raise UsageError(
                f"{name} cannot be passed to llama-server, because edge serve sets it",
                f"use {_RESERVED[name]} of edge serve",
            )


def check_prebuilt(program: Program, words: Sequence[str]) -> None:
    """Raise UsageError for an option that the server in the wheel does not support."""
    if program.is_prebuilt:
        from runtimes.llm.xllamacpp_server import unknown_words

        unknown = unknown_words(words)
        if unknown:
            raise UsageError(
                f"the server in xllamacpp's wheel does not support {unknown[0]}", "make llama compiles one that does"
            )


class LlamaServer:
    """A llama-server that is restarted when it dies; `words` are its options without address and key."""

    def __init__(self, program: Program, words: Sequence[str], name: str) -> None:
        self._program = program
        self._words = list(words)
        self._name = name
        self._folder = tempfile.TemporaryDirectory(prefix="edge-serve-")  # mode 700
        self._socket = Path(self._folder.name) / "llama.sock"
        self._key = secrets.token_hex(24)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: deque[str] = deque(maxlen=_KEPT_LINES)
        self._starting = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.upstream = Upstream(f"unix:{self._socket}", self._key)
        self.restarts = 0
        self.is_ready = False

    @property
    def pid(self) -> int | None:
        """The id of the process; None if it is not running."""
        return None if self._process is None else self._process.pid

    async def ready(self) -> None:
        """Wait until it answers, and start it if it is not running. Raises an EdgeError if that fails."""
        async with self._starting:
            if self._is_stopping:
                raise WorkerError("the server is stopping", "start it again")
            if self.is_ready and self._process is not None and self._process.poll() is None:
                return
            self.is_ready = False
            self._start()
            await self._answers()
            self.is_ready = True
            self._watching = asyncio.ensure_future(self._watch(self._process))

    async def wait_until_ended(self) -> None:
        """Wait a few seconds for the process to end, because it refuses connections: a killed one closes them first."""
        end = time.monotonic() + _ENDING_S
        while self._process is not None and self._process.poll() is None and time.monotonic() < end:
            await asyncio.sleep(_POLL_S)

    def stop(self) -> None:
        """Reject new requests and end the running ones."""
        self._is_stopping = True
        self.upstream.hang_up()

    def close(self) -> None:
        """End the process; blocks for a few seconds at most."""
        self.stop()
        process, self._process = self._process, None
        if process is not None:
            _end(process)
        self._folder.cleanup()

    def _start(self) -> None:
        if self._process is not None:
            self.restarts += 1
        self._socket.unlink(missing_ok=True)  # a killed process leaves its socket, which prevents the next start
        self._log.clear()
        quiet = () if "-v" in self._words or "--verbose" in self._words else _QUIET
        self._process = subprocess.Popen(
            [*self._program.command, *quiet, *self._words, "--host", str(self._socket)],
            stdin=subprocess.PIPE,  # the server in the wheel exits when its stdin is closed
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self._program.environment(self._key),
            # Ctrl+C is for this process alone. No session of its own: Linux compares nice values only within a session
            # (autogroup), and this process would wait for a core while the model computes.
            process_group=0,
            preexec_fn=die_with_parent(),
        )
        _run_after_this_process(self._process.pid)
        assert self._process.stderr is not None
        threading.Thread(target=self._keep_log, args=(self._process.stderr, not quiet), daemon=True).start()

    async def _answers(self) -> None:
        assert self._process is not None
        while True:
            status = self._process.poll()
            if status is not None:
                await asyncio.sleep(_POLL_S)  # lets the thread read the rest of stderr
                raise self._reason(status)
            if self._is_stopping:
                raise WorkerError("the server is stopping", "start it again")
            with suppress(UpstreamError):
                async with self.upstream.ask("GET", "/health") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(_POLL_S)

    async def _watch(self, process: subprocess.Popen[bytes] | None) -> None:
        """Restart the process when it dies; if that fails, the next request tries again and gets the error."""
        assert process is not None
        while process.poll() is None:
            await asyncio.sleep(_WATCH_S)
        if self._is_stopping or process is not self._process:
            return
        self.is_ready = False
        _LOG.warning("%s; restarting it ...", self._reason(process.returncode).message)
        with suppress(EdgeError):
            await self.ready()

    def _reason(self, status: int) -> EdgeError:
        if status < 0:
            return error_from_exit(status, f"'serving' of {self._name}", "\n".join(self._log))
        line = last_error(list(self._log)) or "it printed nothing"
        if "argument" in line:
            return UsageError(f"llama-server rejects its options: {line}", "llama-server --help lists them")
        hint = "a newer llama.cpp may support this model; edge inspect shows whether the file itself can be read"
        return InputError(f"llama-server cannot load {self._name}: {line}", hint)

    def _keep_log(self, stream: IO[bytes], is_shown: bool) -> None:
        for line in stream:
            text = line.decode("utf-8", "replace").rstrip()
            self._log.append(text)
            if is_shown:
                _LOG.info("%s", text)


def _run_after_this_process(pid: int) -> None:
    """Lower the priority of `pid` a little: forwarding a token takes a moment, and computing the next one long."""
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0) + 1)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, again after a second because it waits for streams, then SIGKILL."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    for seconds in (_TERM_S, _KILL_S):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
    if process.poll() is None:
        process.kill()
        process.wait()
