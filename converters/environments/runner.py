"""Run jobs inside an environment: `python runner.py JOB.py` reads them as JSON on stdin and answers on stdout.

Each is a line, {"folder": the current folder of the job, "job": …}, and each answer is one. With `--keep`, each job
runs in a fork of this process (POSIX only), which has imported what JOB.py imports: that takes seconds, and nothing
that a job does is left for the next one.

It imports nothing from this project, and no library. Output of the job goes to stderr.
"""

import json
import os
import runpy
import signal
import sys
import tempfile
import traceback
from typing import Any, TextIO


def main() -> None:
    """Answer each job: {"answer": …}, or {"error": text, "kind": class name} if it raised an exception.

    A kept process prints {"status": …}, as in `subprocess`, for a job that ended without an answer.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = _Job(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        if "--keep" in sys.argv:
            _in_fork(job, request, answers)
        else:
            _answer(job, request, answers)


class _Job:
    """The function `run` of a file, or what importing it raised, which each job raises again."""

    def __init__(self, path: str) -> None:
        self._found: Any = {}
        self._error: Any = None
        try:
            self._found = runpy.run_path(path)
        except (Exception, SystemExit) as error:
            self._error = error

    def run(self, job: Any) -> Any:
        if self._error is not None:
            raise self._error
        return self._found["run"](job)


def _answer(job: _Job, request: Any, answers: TextIO) -> None:
    os.chdir(request["folder"])
    try:
        answer = {"answer": job.run(request["job"])}
    except (Exception, SystemExit) as error:  # onnx2tf calls sys.exit when it fails
        traceback.print_exc()
        text = str(error) or type(error).__name__
        if isinstance(error, SystemExit) and isinstance(error.code, int):
            text = f"it exited with status {error.code}"
        answer = {"error": text, "kind": type(error).__name__}
    _print(answer, answers)


def _in_fork(job: _Job, request: Any, answers: TextIO) -> None:
    child = os.fork()
    if child == 0:
        # The fork ends without its libraries' clean-up (TensorFlow writes modules to the temporary folder).
        tempfile.tempdir = os.environ["TMPDIR"] = request["folder"]
        _answer(job, request, answers)
        os._exit(0)

    def end(number: int, _frame: Any) -> None:
        os.kill(child, signal.SIGKILL)
        sys.exit(number)

    signal.signal(signal.SIGTERM, end)
    _, status = os.waitpid(child, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if status:
        _print({"status": -(status & 0x7F) or status >> 8}, answers)


def _print(answer: Any, answers: TextIO) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
