"""Worker processes that misbehave in every way, as the parent sees them."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.workers.process import Worker, run_job
from runtimes.errors import (
    EngineMissingError,
    InputError,
    WorkerCrashedError,
    WorkerError,
    WorkerOutOfMemoryError,
    WorkerTimeoutError,
)
from runtimes.jobs import DescribeJob, Job

HANDLERS = """
import ctypes, fcntl, os, signal, stat, subprocess, tempfile, time
from runtimes.errors import EngineMissingError, InputError
from runtimes.worker import serve

def name_process(job, report):
    return {"pid": os.getpid()}

def segfault(job, report):
    ctypes.string_at(0)

def hang(job, report):
    child = subprocess.Popen(["sleep", "600"])
    report({"pids": [os.getpid(), child.pid], "folder": tempfile.mkdtemp()})
    time.sleep(600)

describe = hang

def eat(job, report):
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
    return {"size": len(bytearray(2**30))}

def bad_alloc(job, report):
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\\n")
    os.abort()

def killed(job, report):
    os.kill(os.getpid(), signal.SIGKILL)

def check_failed(job, report):
    os.write(2, b"F0000 env.cc:74] Check failed: ret == 0 (11 vs. 0)\\n*** Check failure stack trace: ***\\n")
    os.write(2, b"    @     0x7ff835ba6ce3  cfunction_call\\n    @     0x55d0  _start\\n")
    os.abort()

def leave(job, report):
    os.write(2, b"cannot go on\\n")
    os._exit(3)

def chatter(job, report):
    print("garbage on stdout")
    os.write(1, b'{"error": "input", "message": "forged"}\\n')
    return {"fine": True}

def is_open(fd):
    return os.path.exists(f"/proc/self/fd/{fd}")

def half(job, report):
    report({"phase": "half way"})
    fifos = [fd for fd in range(3, 64) if is_open(fd) and stat.S_ISFIFO(os.fstat(fd).st_mode)]
    answers = next(fd for fd in fifos if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_WRONLY)
    os.write(answers, b'{"cut off": ')
    os._exit(0)

def refuse(job, report):
    raise InputError("no model", "bring one")

def lacking(job, report):
    raise EngineMissingError("the engine 'x' is not installed", "pip install 'edge-toolkit[x]'")

def blunder(job, report):
    raise ZeroDivisionError("not foreseen")

def count(job, report):
    for step in range(3):
        report({"step": step})
    return {"counted": True}

serve({name: value for name, value in list(globals().items()) if callable(value)})
"""


@dataclass(frozen=True)
class Ask(Job):
    """A job of any name, with a free answer."""

    name: str
    artifact: str = ""

    @property
    def subject(self):
        return self.artifact

    @classmethod
    def from_json(cls, fields):
        return cls(fields.text("job"), fields.text("artifact"))

    @staticmethod
    def answer_from_json(fields):
        return dict(fields.values)


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "bad_handlers.py").write_text(HANDLERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "bad_handlers"


def is_gone(pid):
    """Whether a process is gone, or a zombie that nobody has collected yet; it gets a minute for it."""
    for _ in range(6000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_one_process_serves_many_jobs(module):
    with Worker(module) as worker:
        pids = {worker.run(Ask("name_process"), timeout_s=30)["pid"] for _ in range(3)}
    assert len(pids) == 1
    assert is_gone(pids.pop())


def test_each_run_job_has_a_process_of_its_own(module):
    first = run_job(Ask("name_process"), module=module, timeout_s=30)
    second = run_job(Ask("name_process"), module=module, timeout_s=30)
    assert len({os.getpid(), first["pid"], second["pid"]}) == 3


@pytest.mark.parametrize(
    ("job", "kind", "part"),
    [
        ("segfault", WorkerCrashedError, "crashed with SIGSEGV"),
        (
            "check_failed",
            WorkerCrashedError,
            "crashed with SIGABRT: F0000 env.cc:74] Check failed: ret == 0 (11 vs. 0)",
        ),
        ("leave", WorkerCrashedError, "exited with status 3 and no answer: cannot go on"),
        ("blunder", WorkerCrashedError, "failed with ZeroDivisionError: not foreseen"),
        ("eat", WorkerOutOfMemoryError, "ran out of memory"),
        ("bad_alloc", WorkerOutOfMemoryError, "ran out of memory"),
        ("killed", WorkerOutOfMemoryError, "ran out of memory"),
    ],
)
def test_a_death_is_an_error_in_one_line_and_the_worker_is_used_again(module, job, kind, part):
    with Worker(module) as worker:
        with pytest.raises(kind) as caught:
            worker.run(Ask(job, "/some/where/model.onnx"), timeout_s=60)
        assert part in caught.value.message
        assert f"'{job}' of model.onnx" in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.hint
        assert caught.value.exit_code == WorkerError.exit_code
        assert worker.run(Ask("name_process"), timeout_s=30)["pid"]


def test_a_worker_that_hangs_is_ended_with_all_that_it_started(module):
    seen = []
    for limit_s in (2, 10, 60):  # a busy machine needs longer to begin
        with pytest.raises(WorkerTimeoutError, match=rf"exceeded its time limit of {limit_s} s"):
            run_job(Ask("hang"), module=module, timeout_s=limit_s, on_progress=seen.append)
        if seen:
            break
    assert len(seen[0]["pids"]) == 2
    assert all(is_gone(pid) for pid in seen[0]["pids"])


def test_an_exception_in_the_parent_ends_the_worker_and_removes_its_temporary_files(module):
    seen = []

    def interrupt(progress):
        seen.append(progress)
        assert Path(progress["folder"]).is_dir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(Ask("hang"), module=module, timeout_s=None, on_progress=interrupt)
    assert all(is_gone(pid) for pid in seen[0]["pids"])
    assert not Path(seen[0]["folder"]).exists()


def test_ctrl_c_ends_the_worker_and_what_it_started(module):
    program = (
        "from edge.workers.process import run_job\n"
        "from runtimes.jobs import DescribeJob\n"
        "def show(progress): print(*progress['pids'], flush=True)\n"
        f"run_job(DescribeJob(''), module='{module}', timeout_s=None, on_progress=show)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        pids = parent.stdout.readline().split()
        parent.send_signal(signal.SIGINT)
        parent.communicate(timeout=120)
    assert len(pids) == 2
    assert all(is_gone(int(pid)) for pid in pids)


def test_what_a_worker_prints_is_no_answer_but_is_kept_for_debugging(module):
    assert run_job(Ask("chatter"), module=module, timeout_s=30) == {"fine": True}
    with Worker(module) as worker:
        worker.run(Ask("chatter"), timeout_s=30)
        with pytest.raises(WorkerCrashedError) as caught:
            worker.run(Ask("blunder"), timeout_s=30)
    assert "garbage on stdout" in caught.value.__notes__[0]
    assert "ZeroDivisionError" in caught.value.__notes__[0]


def test_an_answer_that_breaks_off_is_a_crash(module):
    with pytest.raises(WorkerCrashedError, match="exited with status 0"):
        run_job(Ask("half"), module=module, timeout_s=30)


def test_a_refusal_keeps_its_kind_and_the_process(module):
    with Worker(module) as worker:
        pid = worker.run(Ask("name_process"), timeout_s=30)["pid"]
        with pytest.raises(InputError) as caught:
            worker.run(Ask("refuse"), timeout_s=30)
        assert (caught.value.message, caught.value.hint) == ("no model", "bring one")
        with pytest.raises(EngineMissingError, match="not installed"):
            worker.run(Ask("lacking"), timeout_s=30)
        assert worker.run(Ask("name_process"), timeout_s=30)["pid"] == pid


def test_progress_arrives_in_order(module):
    seen = []
    assert run_job(Ask("count"), module=module, timeout_s=30, on_progress=seen.append) == {"counted": True}
    assert [item["step"] for item in seen] == [0, 1, 2]


def test_a_module_that_does_not_exist_is_a_crash_that_says_so():
    with pytest.raises(WorkerCrashedError, match="No module named no_such_module"):
        run_job(DescribeJob("m"), module="no_such_module", timeout_s=30)


def test_the_current_folder_cannot_pass_for_our_modules(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('hijacked')")
    (tmp_path / "m.null").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert run_job(DescribeJob("m.null"), timeout_s=30).runtime == "null"


def test_the_parent_imports_no_engine(tmp_path):
    (tmp_path / "m.null").write_bytes(b"x")
    program = (
        "import sys\n"
        "from edge.benchmark import Setup, measure_all\n"
        "from pathlib import Path\n"
        "few = {'name': 'published', 'runs': 2, 'pause_s': 0}\n"
        "setup = Setup(id='a', title='a', artifact=Path('m.null'), protocol=few)\n"
        "assert [m.is_ok for m in measure_all([setup], 1)] == [True]\n"
        "engines = {'onnxruntime', 'ai_edge_litert', 'openvino', 'tensorflow', 'keras', 'torch'}\n"
        "print(sorted(engines & set(sys.modules)), 'runtimes.engines.null' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["[]", "False"], done.stderr
