"""A board as a place for workers: what a job names is carried there, and what it writes is brought back.

A connection has a session there: a folder for the job's files and for the samples that are being taken, and a process
that holds the board's lock for as long as we are connected (`runtimes.agent`). When the line breaks, the worker ends,
the samples stay, and `kept` fetches them over the next connection.
"""

from __future__ import annotations

import json
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge.remote import engines
from edge.remote.install import Installer
from edge.remote.kept import save
from edge.remote.ssh import Line, LineLost, after_start_files, quoted
from edge.remote.survey import ROOT, Python, Survey, survey, usable_python
from edge.workers import death
from runtimes.artifact import Artifact
from runtimes.errors import EdgeError, HostError
from runtimes.registry import PREFERRED

Note = Callable[[str], None]
Leftovers = Callable[[str, Sequence[Mapping[str, Any]]], None]

_SIGN_OF_LIFE_S = 10.0
# How long after a line was lost it is tried again: a board that reboots needs half a minute.
RETRIES_S = (0.0, 2.0, 5.0, 10.0, 20.0, 30.0)
_FILES = ("inputs", "evaluate")


class Board:
    """One board, over one connection. A context manager, and a `Place`; not for several threads."""

    def __init__(self, host: str, *, offline: bool = False, note: Note = lambda _: None) -> None:
        self.host, self._offline, self._note = host, offline, note
        self.line = Line(host)
        self._session = ""
        self._hold: subprocess.Popen[bytes] | None = None
        self._rest = threading.Event()  # set when signs of life are to end
        self._given_up = threading.Event()
        self._dead: LineLost | None = None  # why it was not reached again; it is not tried for every job anew
        self._sent: dict[str, str] = {}  # a job, as text → its folder there, relative to ours

    def __enter__(self) -> Board:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self, on_leftovers: Leftovers = save) -> None:
        """Connect, look what is there, bring `runtimes/`, and take the board for ourselves.

        `on_leftovers` is given what earlier, broken connections had left, and only then is it removed there.
        """
        self._connect()
        try:
            if any(name.startswith("kept/") for name in self.survey.have):
                left = self.leftovers()
                if left:
                    on_leftovers(self.host, left)
                    self.forget(left)
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        if self._given_up.is_set():
            raise self.line.failure("")
        self._note("connecting")
        self.line.connect()
        try:
            self.survey: Survey = survey(self.line)
            self.python: Python = usable_python(self.survey, self.host)
            self.installer = Installer(self.line, self.survey, self.python, self._note)
            self._runtimes = self.installer.runtimes()
            self._take()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the board: what runs there for us ends, and what we have fetched is gone from there."""
        self._rest.set()
        hold, self._hold = self._hold, None
        if hold is not None:
            assert hold.stdin is not None
            assert hold.stdout is not None
            with suppress(BrokenPipeError):
                hold.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                hold.wait(3.0)  # it cleans up
            hold.kill()
            hold.wait()
            hold.stdout.close()
        self.line.close()

    def give_up(self) -> None:
        """From another thread: break the line, and do not connect again. Whoever waits for the board gets LineLost."""
        self._given_up.set()
        self.line.cut()

    # What a `Place` does.

    def command(self, module: str, job: Mapping[str, Any]) -> Sequence[str]:
        """A worker of its own, behind an agent that ends it when we leave."""
        folders, before = self._bring(job) if job.get("runtime") else ([], [])
        return self.line.command(self._python_there(["work", module, f"~/{ROOT}", self._session], folders, before))

    def heard(self, lines: Iterable[str]) -> Iterator[str]:
        """What the agent says; the user's shell may have printed before it."""
        return after_start_files(lines)

    def send(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Artifact, engine and inputs are carried there as far as they are not there yet."""
        if not self.line.is_open:
            self._reconnect()
        name = uuid.uuid4().hex[:12]
        self._sent[_key(job)] = f"kept/{self._session}/{name}"
        folder = self._there(f"{ROOT}/{self._sent[_key(job)]}")
        sent = dict(job)
        if job.get("artifact"):
            path = Path(job["artifact"])
            sent["runtime"] = job.get("runtime") or PREFERRED[Artifact.open(path).manifest.format]
            self._bring(sent)
            sent["artifact"] = self._there(self.installer.artifact(path))
        for key in _FILES:
            if job.get(key):
                sent[key] = self._carry(Path(job[key]))
        if job.get("outputs"):
            self.line.run(f"mkdir -p {quoted([folder])}")
            sent["outputs"] = f"{folder}/outputs.npz"
        if job.get("job") == "measure":
            sent["keep"] = folder
        return sent

    def fetch(self, job: Mapping[str, Any]) -> None:
        """Bring the outputs, then say that the job's folder is not needed any more."""
        folder = self._sent[_key(job)]
        if job.get("outputs"):
            status, content = self.line.read("exec cat " + quoted([f"~/{ROOT}/{folder}/outputs.npz"]), timeout_s=600.0)
            if status != 0:
                raise HostError(f"{self.host} has lost what the job wrote", "run the command again")
            Path(job["outputs"]).write_bytes(content)
        self._tell(folder.rpartition("/")[2])

    def ended(self, status: int, job: Mapping[str, Any], words: str) -> EdgeError:
        """The line was lost, or else the agent has failed: it would have told of a worker's death."""
        if status == 255 or not self.line.is_open:
            return self.line.failure(words)
        return death(status, job, words)

    def kept(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        """The samples that a failed job had taken, or its answer where only that was lost; empty if there are none."""
        folder = self._sent.get(_key(job))
        if folder is None:
            return {}
        try:
            if not self.line.is_open:
                self._reconnect()
            _, session, name = folder.split("/")
            for found in self._agent(["left", f"~/{ROOT}", session, name]):
                values: dict[str, Any] = {**found["values"], "artifact": str(job["artifact"])}
                self.fetch({**job, "outputs": None if values.get("status") != "ok" else job.get("outputs")})
                over = folder if session == self._session else f"kept/{session}"
                self.line.run(f"rm -rf {quoted([f'~/{ROOT}/{over}'])}")
                return values
        except EdgeError:  # what failed first is what is told; the samples wait there for the next connection
            return {}
        return {}

    def forget_inputs(self) -> None:
        """Remove the inputs that jobs have carried there: frames of a camera would fill the disk."""
        self.installer.forget_below(f"kept/{self._session}/files")

    # What lies there.

    def leftovers(self) -> list[dict[str, Any]]:
        """What earlier connections, which broke off, have left: [{"session", "name", "job", "values"}]."""
        return self._agent(["kept", f"~/{ROOT}", self._session])

    def forget(self, leftovers: Sequence[Mapping[str, Any]]) -> None:
        """Remove what `leftovers` has fetched."""
        folders = sorted({f"~/{ROOT}/kept/{found['session']}" for found in leftovers})
        if folders:
            self.line.run(f"rm -rf {quoted(folders)}")

    def ask(self, module: str) -> Any:
        """What `python -m module` prints there, which is JSON; it sees every engine that we have brought."""
        status, out = self.line.run(
            self._environment(self.installer.engines()) + quoted([self.python.path, "-m", module])
        )
        if status != 0:
            raise HostError(f"{self.host}: {module} ended with status {status}", "see it with --debug")
        return json.loads(out.splitlines()[-1])

    def _agent(self, words: list[str]) -> list[dict[str, Any]]:
        folders = self.installer.engines()[:1]  # for numpy, which reads the samples: any engine's will do
        status, out = self.line.run(self._python_there(words, folders))
        if status != 0 or not out.strip():
            return []
        kept: list[dict[str, Any]] = json.loads(out.splitlines()[-1])["kept"]
        return kept

    def _bring(self, job: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """See that the job's engine is there: its folders, and words that go before the command."""
        engine = str(job["runtime"])
        if engine == "openvino" and (job.get("options") or {}).get("device") == "myriad":
            before = engines.users_openvino(self.survey, self.host)
            return [self.installer.engine("null", self._offline)], before  # numpy alone
        return [self.installer.engine(engine, self._offline)], []

    def _carry(self, path: Path) -> str:
        """A file of inputs; the same one is carried once in a session."""
        folder = self.installer.file(f"kept/{self._session}/files", path)
        return self._there(f"{ROOT}/{folder}/{path.name}")

    def _there(self, place: str) -> str:
        return f"{self.survey.home}/{place}"

    def _python_there(self, words: Sequence[str], folders: Sequence[str], before: Sequence[str] = ()) -> str:
        return self._environment(folders) + quoted([*before, self.python.path, "-m", "runtimes.agent", *words])

    def _environment(self, folders: Sequence[str]) -> str:
        path = ":".join(f'"$HOME"/{folder}' for folder in (self._runtimes, *folders) if folder)
        # Engines may write caches, and Keras its settings; ours are removed with all else.
        caches = f'XDG_CACHE_HOME="$HOME"/{ROOT}/cache EDGE_CACHE="$HOME"/{ROOT}/cache KERAS_HOME="$HOME"/{ROOT}/cache'
        return f'cd "$HOME"/{ROOT} && exec env PYTHONPATH={path} {caches} PYTHONNOUSERSITE=1 '

    def _take(self) -> None:
        self._session = uuid.uuid4().hex[:12]
        self._rest = threading.Event()
        self._hold = subprocess.Popen(
            self.line.command(self._python_there(["hold", f"~/{ROOT}", self._session], [])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._hold.stdout is not None
        threading.Thread(target=self._stay_alive, args=(self._hold, self._rest), daemon=True).start()
        for line in after_start_files(self._hold.stdout):
            answer = json.loads(line)
            if "held" in answer:
                return
            if "error" in answer:
                raise HostError(f"{self.host} cannot be taken for measuring: {answer['message']}", answer["hint"])
            self._note("somebody else measures on this board; waiting")
        raise HostError(f"{self.host} cannot be taken for measuring", "see what ails it: edge doctor --on " + self.host)

    def _tell(self, word: str) -> None:
        hold = self._hold
        if hold is not None and hold.stdin is not None:
            with suppress(BrokenPipeError, ValueError):  # the next job will notice
                hold.stdin.write(f"{word}\n".encode())
                hold.stdin.flush()

    def _stay_alive(self, hold: subprocess.Popen[bytes], rest: threading.Event) -> None:
        while not rest.wait(_SIGN_OF_LIFE_S):
            if self._hold is not hold:
                return
            self._tell("")

    def _reconnect(self) -> None:
        if self._dead is not None:
            raise self._dead
        lost = self.line.failure("")
        for pause in RETRIES_S:
            if self._given_up.wait(pause):
                break
            try:
                self.close()
                self._connect()
                return
            except LineLost as error:
                lost = error
        self._dead = lost
        raise lost


def _key(job: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in job.items() if key != "outputs"}, sort_keys=True)
