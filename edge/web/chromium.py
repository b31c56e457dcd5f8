"""Find a browser of the Chromium family on this machine, and run a job of a page in it, without a window.

On POSIX, root runs it without Chromium's own sandbox, which root may not use.
"""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO

from edge.web.jobs import PageJob
from edge.web.server import Server
from edge.workers.failures import last_line
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import JsonObject
from runtimes.child_process import last_words
from runtimes.errors import EngineError, EngineMissingError, from_dict

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
_ON_MACOS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
_FLAGS = (
    "--headless=new", "--no-first-run", "--no-default-browser-check", "--disable-sync", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--mute-audio",
    # A page without a window counts as hidden, and would be slowed down.
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
)  # fmt: skip
_OPENING_S = 120.0
_POLL_S = 0.2
_GRACE_S = 10.0


def find_browser(named: str | None = None) -> str:
    """Return the program `named`, or the first browser that is installed. Raises EngineMissingError for none."""
    if named is not None:
        found = shutil.which(named)
        if found is None:
            raise EngineMissingError(f"{named} is not a program", "pass the path of Chromium or Chrome with --browser")
        return found
    candidates = (*_NAMES, *(_ON_MACOS if sys.platform == "darwin" else ()))
    program = next(filter(None, map(shutil.which, candidates)), None)
    if program is None:
        hint = "install one (apt-get install chromium), or name it with --browser PATH"
        raise EngineMissingError("there is no Chromium or Chrome on this machine", hint)
    return program


def run_page(
    artifact: Artifact,
    job: PageJob,
    *,
    browser: str | None = None,
    isolated: bool = True,
    on_phase: Callable[[str], None] = lambda _: None,
) -> JsonObject:
    """Open the artifact's page in a browser, let it do the job, and return its answer.

    isolated: Whether the server sends the headers that threads need.

    Raises the error that the page reports, EngineMissingError if there is no browser, and EngineError if it ends, or
    does not open the page.
    """
    program = find_browser(browser)
    with Server(artifact, isolated=isolated, jobs=job) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with _running(program, f"http://127.0.0.1:{server.port}/?job={job.id}") as (process, log):
                answer = _answer_of(job, process, log, on_phase)
        finally:
            server.shutdown()
    if "error" in answer:
        raise from_dict({key: str(answer.get(key, "")) for key in ("error", "message", "hint")})
    return answer


def draw(page: str, width: int, height: int, target: Path, browser: str | None = None) -> None:
    """Draw a page as a PNG with two pixels for each of its own. Raises EngineError if the browser does not."""
    with tempfile.TemporaryDirectory(prefix="edge-page-") as folder:
        source = Path(folder) / "page.html"
        source.write_text(page, encoding="utf-8")
        options = (f"--screenshot={target.resolve()}", f"--window-size={width},{height}", "--hide-scrollbars")
        with _running(find_browser(browser), source.as_uri(), *options, "--force-device-scale-factor=2") as (
            process,
            log,
        ):
            try:
                process.wait(_OPENING_S)
            except subprocess.TimeoutExpired:
                raise EngineError("the browser did not draw the page", "name another one with --browser") from None
            if process.returncode or not target.is_file():
                what = f"the browser did not draw the page{last_line(last_words(log))}"
                raise EngineError(what, "name another one with --browser")


@contextmanager
def _running(program: str, address: str, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Run the browser with a profile of its own, which is removed afterwards."""
    # Root, as in most containers, may not use the sandbox; what runs here is the user's own artifact.
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with (
        tempfile.TemporaryDirectory(prefix="edge-browser-", ignore_cleanup_errors=True) as profile,
        tempfile.TemporaryFile() as log,
    ):
        command = [program, *_FLAGS, *sandbox, f"--user-data-dir={profile}", *options, address]
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        except OSError as error:
            raise EngineMissingError(
                f"{program} does not start: {error.strerror}", "name another one with --browser"
            ) from None
        try:
            yield process, log
        finally:
            process.terminate()
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answer_of(
    job: PageJob, process: subprocess.Popen[bytes], log: IO[bytes], on_phase: Callable[[str], None]
) -> JsonObject:
    deadline: float | None = monotonic() + _OPENING_S
    while True:
        try:
            kind, message = job.messages.get(timeout=_POLL_S)
        except queue.Empty:
            if process.poll() is not None:
                what = f"the browser ended with status {process.returncode}{last_line(last_words(log))}"
                raise EngineError(what, "name another one with --browser") from None
            if deadline is not None and monotonic() > deadline:
                what = f"the browser did not open the page within {_OPENING_S:g} s{last_line(last_words(log))}"
                raise EngineError(what, "name another one with --browser") from None
            continue
        deadline = None
        if kind == "answer":
            return message
        if kind == "progress":
            on_phase(str(message.get("phase", "")))
