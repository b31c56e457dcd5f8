"""A board as a place for workers: copies a job's files to the board, and the files it writes back.

Each connection has a session on the board: a folder for the job's files and for the samples being taken, and a process
that holds the board's lock as long as we are connected (`runtimes.board.agent`). When the connection breaks, the
worker ends, the samples are kept, and `recovered` fetches them over the next connection.
"""

from __future__ import annotations

import json
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge.remote import packages
from edge.remote.install import Installer
from edge.remote.probe import ROOT, Probe, Python, probe, usable_python
from edge.remote.recovered_samples import save
from edge.remote.ssh import ConnectionLostError, SshConnection, quote, skip_shell_banner
from edge.workers.failures import describe_job, error_from_exit
from runtimes.artifact import Artifact
from runtimes.board.agent import RecoveredSamples
from runtimes.child_process import end, start
from runtimes.errors import EdgeError, HostError
from runtimes.jobs import J, Job, MeasureJob, ModelJob, RunJob
from runtimes.measurement.answer import MeasureAnswer
from runtimes.registry import PREFERRED

Note = Callable[[str], None]
Leftovers = Callable[[str, Sequence[RecoveredSamples]], None]

_SIGN_OF_LIFE_S = 10.0
# Seconds to wait before each attempt to reconnect: a board needs half a minute to reboot.
RETRIES_S = (0.0, 2.0, 5.0, 10.0, 20.0, 30.0)


class Board:
    """One board, over one connection. A context manager and a `Transport`; not thread-safe."""

    def __init__(self, host: str, *, offline: bool = False, note: Note = lambda _: None) -> None:
        self.host, self._offline, self._note = host, offline, note
        self.line = SshConnection(host)
        self._session = ""
        self._hold: subprocess.Popen[bytes] | None = None
        self._rest = threading.Event()  # set to end the signs of life
        self._given_up = threading.Event()
        self._dead: ConnectionLostError | None = None  # why reconnecting failed; it is not tried again for every job
        self._sent: dict[str, str] = {}  # a job as text → its folder on the board, relative to ROOT

    def __enter__(self) -> Board:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self, on_leftovers: Leftovers = save) -> None:
        """Connect, probe the board, install `runtimes/`, and acquire the board's lock.

        `on_leftovers` receives the samples that earlier, broken connections left; then they are removed from the board.
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
            self.survey: Probe = probe(self.line)
            self.python: Python = usable_python(self.survey, self.host)
            self.installer = Installer(self.line, self.survey, self.python, self._note)
            self._runtimes = self.installer.runtimes()
            self._acquire_lock()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End our processes on the board, remove what was fetched from it, and disconnect."""
        self._rest.set()
        hold, self._hold = self._hold, None
        if hold is not None:
            assert hold.stdin is not None
            assert hold.stdout is not None
            with suppress(BrokenPipeError):
                hold.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                hold.wait(3.0)  # it cleans up
            end(hold)
            hold.wait()
            hold.stdout.close()
        self.line.close()

    def give_up(self) -> None:
        """Break the connection from another thread, for good. Pending calls raise ConnectionLostError."""
        self._given_up.set()
        self.line.cut()

    # The interface of `Transport`.

    def command(self, module: str, job: Job[Any]) -> Sequence[str]:
        """Return the command of a worker on the board, started by an agent that ends it when we disconnect."""
        folders, before = self._install_engine(job) if isinstance(job, ModelJob) and job.runtime else ([], [])
        return self.line.command(self._agent_command(["work", module, f"~/{ROOT}", self._session], folders, before))

    def filter_output(self, lines: Iterable[str]) -> Iterator[str]:
        """Drop what the user's shell printed before the agent's output."""
        return skip_shell_banner(lines)

    def upload(self, job: J) -> J:
        """Copy artifact, engine and inputs to the board as far as it lacks them, and return the job with its paths."""
        if not self.line.is_open:
            self._reconnect()
        name = uuid.uuid4().hex[:12]
        self._sent[_key(job)] = f"kept/{self._session}/{name}"
        folder = self._remote_path(f"{ROOT}/{self._sent[_key(job)]}")
        if not isinstance(job, ModelJob):
            return job
        path = Path(job.artifact)
        job = job.with_files(runtime=job.runtime or PREFERRED[Artifact.open(path).manifest.format])
        self._install_engine(job)
        remote_files: dict[str, str | None] = {"artifact": self._remote_path(self.installer.artifact(path))}
        if isinstance(job, (RunJob, MeasureJob)):
            if job.outputs:
                self.line.run(f"mkdir -p {quote([folder])}")
                remote_files["outputs"] = f"{folder}/outputs.npz"
            if job.inputs:
                remote_files["inputs"] = self._upload_file(Path(job.inputs))
        if isinstance(job, MeasureJob):
            remote_files["keep"] = folder
            remote_files["evaluate"] = self._upload_file(Path(job.evaluate)) if job.evaluate else None
        return job.with_files(**remote_files)

    def download(self, job: Job[Any]) -> None:
        """Fetch the outputs, then let the board remove the job's folder."""
        folder = self._sent[_key(job)]
        outputs = job.outputs if isinstance(job, (RunJob, MeasureJob)) else None
        if outputs:
            status, content = self.line.read("exec cat " + quote([f"~/{ROOT}/{folder}/outputs.npz"]), timeout_s=600.0)
            if status != 0:
                raise HostError(f"{self.host} no longer has the job's outputs", "run the command again")
            Path(outputs).write_bytes(content)
        self._send(folder.rpartition("/")[2])

    def exit_error(self, status: int, job: Job[Any], words: str) -> EdgeError:
        """Return the error of a failed command: the connection was lost, or the agent failed.

        A worker's death is not among them: the agent reports it in its answer.
        """
        if status == 255 or not self.line.is_open:
            return self.line.failure(words)
        return error_from_exit(status, describe_job(job.name, job.subject), words)

    def recovered(self, job: Job[Any]) -> MeasureAnswer:
        """Return the samples of a failed job, or its answer if only the answer was lost; empty if there are none."""
        folder = self._sent.get(_key(job))
        if folder is None:
            return {}
        try:
            if not self.line.is_open:
                self._reconnect()
            try:
                return self._recover(job, folder)
            except ConnectionLostError:  # ssh was still ending when it was asked whether it is open
                self._reconnect()
                return self._recover(job, folder)
        except EdgeError:  # the first error is the one to report; the samples stay for the next connection
            return {}

    def _recover(self, job: Job[Any], folder: str) -> MeasureAnswer:
        _, session, name = folder.split("/")
        for samples in self._agent(["left", f"~/{ROOT}", session, name]):
            values: MeasureAnswer = {**samples["values"], "artifact": job.subject}
            is_cut = values.get("status") != "ok"
            self.download(job.with_files(outputs=None) if is_cut and isinstance(job, MeasureJob) else job)
            obsolete = folder if session == self._session else f"kept/{session}"
            self.line.run(f"rm -rf {quote([f'~/{ROOT}/{obsolete}'])}")
            return values
        return {}

    def forget_inputs(self) -> None:
        """Remove the inputs of earlier jobs from the board: frames of a camera would fill its disk."""
        self.installer.forget_below(f"kept/{self._session}/files")

    # Files on the board.

    def leftovers(self) -> list[RecoveredSamples]:
        """Return the samples left by earlier, broken connections: [{"session", "name", "job", "values"}]."""
        return self._agent(["kept", f"~/{ROOT}", self._session])

    def forget(self, leftovers: Sequence[RecoveredSamples]) -> None:
        """Remove these leftovers from the board."""
        folders = sorted({f"~/{ROOT}/kept/{samples['session']}" for samples in leftovers})
        if folders:
            self.line.run(f"rm -rf {quote(folders)}")

    def ask(self, module: str) -> Any:
        """Run `python -m module` on the board, with every engine we installed, and return the JSON that it prints."""
        status, out = self.line.run(
            self._environment(self.installer.engines()) + quote([self.python.path, "-m", module])
        )
        if status != 0:
            raise HostError(
                f"{self.host}: {module} ended with status {status}", "run again with --debug for its output"
            )
        return json.loads(out.splitlines()[-1])

    def _agent(self, words: list[str]) -> list[RecoveredSamples]:
        folders = self.installer.engines()[:1]  # for numpy, which reads the samples; any engine has it
        status, out = self.line.run(self._agent_command(words, folders))
        if status != 0 or not out.strip():
            return []
        kept: list[RecoveredSamples] = json.loads(out.splitlines()[-1])["kept"]
        return kept

    def _install_engine(self, job: ModelJob[Any]) -> tuple[list[str], list[str]]:
        """Install the job's engine if needed. Returns its folders and a prefix of the command line."""
        engine = str(job.runtime)
        if engine == "openvino" and job.device == "myriad":
            before = packages.users_openvino(self.survey, self.host)
            return [self.installer.engine("null", self._offline)], before  # only for numpy
        return [self.installer.engine(engine, self._offline)], []

    def _upload_file(self, path: Path) -> str:
        """Copy a file of inputs to the board, once per session, and return its path there."""
        folder = self.installer.file(f"kept/{self._session}/files", path)
        return self._remote_path(f"{ROOT}/{folder}/{path.name}")

    def _remote_path(self, path: str) -> str:
        return f"{self.survey.home}/{path}"

    def _agent_command(self, words: Sequence[str], folders: Sequence[str], before: Sequence[str] = ()) -> str:
        return self._environment(folders) + quote([*before, self.python.path, "-m", "runtimes.board.agent", *words])

    def _environment(self, folders: Sequence[str]) -> str:
        path = ":".join(f'"$HOME"/{folder}' for folder in (self._runtimes, *folders) if folder)
        # Engines may write caches, and Keras its settings; inside ROOT they are removed with everything else.
        caches = f'XDG_CACHE_HOME="$HOME"/{ROOT}/cache EDGE_CACHE="$HOME"/{ROOT}/cache KERAS_HOME="$HOME"/{ROOT}/cache'
        return f'cd "$HOME"/{ROOT} && exec env PYTHONPATH={path} {caches} PYTHONNOUSERSITE=1 '

    def _acquire_lock(self) -> None:
        self._session = uuid.uuid4().hex[:12]
        self._rest = threading.Event()
        command = self.line.command(self._agent_command(["hold", f"~/{ROOT}", self._session], []))
        self._hold = start(command, subprocess.DEVNULL)
        assert self._hold.stdout is not None
        threading.Thread(target=self._stay_alive, args=(self._hold, self._rest), daemon=True).start()
        for line in skip_shell_banner(self._hold.stdout):
            answer = json.loads(line)
            if "held" in answer:
                return
            if "error" in answer:
                raise HostError(f"{self.host} cannot be locked for measuring: {answer['message']}", answer["hint"])
            self._note("another measurement runs on this board; waiting")
        raise HostError(f"{self.host} cannot be locked for measuring", "find the cause: edge doctor --on " + self.host)

    def _send(self, word: str) -> None:
        hold = self._hold
        if hold is not None and hold.stdin is not None:
            with suppress(BrokenPipeError, ValueError):  # the next job reports it
                hold.stdin.write(f"{word}\n".encode())
                hold.stdin.flush()

    def _stay_alive(self, hold: subprocess.Popen[bytes], rest: threading.Event) -> None:
        while not rest.wait(_SIGN_OF_LIFE_S):
            if self._hold is not hold:
                return
            self._send("")

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
            except ConnectionLostError as error:
                lost = error
        self._dead = lost
        raise lost


def _key(job: Job[Any]) -> str:
    return json.dumps({key: value for key, value in job.to_json().items() if key != "outputs"}, sort_keys=True)
