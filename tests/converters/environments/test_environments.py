"""Isolated environments: the right Python, created once, complete or not at all, and errors that say what to do."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from converters.environments import Environment, environment
from converters.environments.definition import clean_variables, interpreter
from converters.environments.find_python import find_python
from converters.environments.process import kept_processes
from runtimes.errors import EngineError, HostError, InputError, UsageError, WorkerError

VERSION = "{}.{}".format(*sys.version_info[:2])
ENVIRONMENTS = sorted(path.parent.name for path in Path(interpreter.__code__.co_filename).parent.glob("*/job.py"))
JOB = """
import os, sys, tiny
IMPORTED_BY, RUNS = os.getpid(), []
def run(job):
    print("chatter")
    RUNS.append(job)
    if job["do"] == "raise":
        raise {"value": ValueError, "runtime": RuntimeError, "exit": SystemExit}[job["kind"]](job["text"])
    if job["do"] == "die":
        os.kill(os.getpid(), job["signal"])
    if job["do"] == "litter":
        import tempfile
        with tempfile.NamedTemporaryFile(delete=False) as file:
            return {"left": file.name}
    if job["do"] == "sleep":
        import time
        time.sleep(60)
    processes = {"process": os.getpid(), "imported_by": IMPORTED_BY, "runs": len(RUNS)}
    here = {"prefix": sys.prefix, "folder": os.getcwd(), "path": os.environ.get("PYTHONPATH")}
    return {"tiny": tiny.ANSWER, **here, **processes}
"""


def _wheel(folder: Path) -> Path:
    """The smallest wheel there is: one module."""
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny.py", "ANSWER = 42\n")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    return path


def _environment(folder: Path, digest: str, version: str = VERSION, machines: str = "") -> Environment:
    place = folder / "small"
    place.mkdir(exist_ok=True)
    (place / "job.py").write_text(JOB)
    here = f"{sys.platform} {os.uname().machine.lower()}"
    text = f"# Python: {version}\n# Machines: {machines or here}\ntiny==1.0 --hash=sha256:{digest}\n"
    (place / "requirements.txt").write_text(text)
    return Environment(place / "requirements.txt")


def _cached_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CACHE", str(folder / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Environment, Path, list[str]]:
    """An environment with the one module, its folder, and what was reported while it was made."""
    folder = tmp_path_factory.mktemp("environments")
    said: list[str] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        _cached_in(folder, monkeypatch)
        small = _environment(folder, hashlib.sha256(_wheel(folder).read_bytes()).hexdigest())
        small.create([Path(sys.executable)], said.append)
    return small, folder, said


@pytest.fixture
def small(made: tuple[Environment, Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> Environment:
    _cached_in(made[1], monkeypatch)
    return made[0]


def _run(small: Environment, timeout_s: float = 60.0, **job: object) -> dict[str, object]:
    return small.run({"do": "answer", **job}, timeout_s, "tiny on m.onnx", "try another")


def test_it_is_made_once_and_says_so(made, small):
    assert made[2] == [
        f"creating the environment 'small' (once): Python {VERSION}",
        "creating the environment 'small' (once): 1 of 1, tiny-1.0-py3-none-any.whl",
    ]
    again: list[str] = []
    small.create([Path("/no/such/python")], again.append)  # not even looked at
    assert again == []
    assert not list(small.folder.parent.glob("*.partial"))


def test_a_plan_says_whether_it_is_there(small, tmp_path):
    assert small.described == f"runs in the environment 'small' (Python {VERSION}), in {small.folder}"
    assert _environment(tmp_path, "0" * 64).described.endswith("created first, once, which needs the network")


def test_a_job_answers_from_inside_and_sees_nothing_of_ours(small, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    answer = _run(small)
    assert answer["tiny"] == 42
    assert Path(str(answer["prefix"])) == small.folder
    assert answer["path"] is None
    assert not Path(str(answer["folder"])).exists()  # a fresh folder, gone afterwards
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("kind", "error"), [("value", InputError), ("runtime", EngineError), ("exit", EngineError)])
def test_what_a_job_raises_is_one_line(small, kind, error):
    with pytest.raises(error, match=r"tiny on m\.onnx: it is broken") as caught:
        _run(small, do="raise", kind=kind, text="\nit is broken\nmore")
    assert "\n" not in caught.value.message
    assert caught.value.hint == "try another"


def test_an_exit_with_a_number_is_told_as_one(small):
    with pytest.raises(EngineError, match=r"tiny on m\.onnx: it exited with status 1$"):
        _run(small, do="raise", kind="exit", text=1)


def test_a_crash_is_an_error_and_not_ours(small):
    with pytest.raises(WorkerError, match=r"tiny on m\.onnx: it crashed with signal 11: chatter"):
        _run(small, do="die", signal=int(signal.SIGSEGV))
    with pytest.raises(WorkerError, match="ran out of memory"):
        _run(small, do="die", signal=int(signal.SIGKILL))


def test_a_job_that_does_not_end_is_ended(small):
    with pytest.raises(WorkerError, match=r"exceeded 0\.5 s"):
        _run(small, timeout_s=0.5, do="sleep")


def test_a_kept_process_imports_once_and_forgets_what_a_job_does(small):
    with kept_processes():
        first, second = _run(small), _run(small)
        assert first["imported_by"] == second["imported_by"] != first["process"] != second["process"]
        assert first["folder"] != second["folder"]
        assert (first["runs"], second["runs"]) == (1, 1)
    alone = _run(small)
    assert alone["imported_by"] == alone["process"]


def test_a_kept_process_leaves_no_temporary_files_of_its_jobs(small):
    with kept_processes():
        left = small.run({"do": "litter"}, 60, "m.onnx", "look")["left"]
    assert not Path(left).exists()


def test_a_kept_process_tells_failures_as_others_do_and_the_next_job_runs(small):
    with kept_processes():
        for status, words in (
            (signal.SIGSEGV, "it crashed with signal 11: chatter"),
            (signal.SIGKILL, "out of memory"),
        ):
            with pytest.raises(WorkerError, match=words):
                _run(small, do="die", signal=int(status))
            assert _run(small)["tiny"] == 42
        with pytest.raises(WorkerError, match=r"exceeded 0\.5 s"):
            _run(small, timeout_s=0.5, do="sleep")
        with pytest.raises(InputError, match=r"it is broken"):
            _run(small, do="raise", kind="value", text="it is broken")
        assert _run(small)["tiny"] == 42


def test_no_kept_process_is_left(small):
    with kept_processes():
        kept = int(str(_run(small)["imported_by"]))
        os.kill(kept, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(kept, 0)


def test_new_pins_make_a_new_one(small, tmp_path):
    assert _environment(tmp_path, "0" * 64).folder != _environment(tmp_path, "1" * 64).folder
    assert small.folder.name == f"small-{small.digest}"
    assert small.folder.parent == small.folder.parents[1] / "environments"


def test_a_wrong_digest_leaves_nothing(made, monkeypatch, tmp_path):
    _cached_in(made[1], monkeypatch)
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    wrong = _environment(tmp_path, "0" * 64)
    with pytest.raises(HostError, match="environment 'small' could not be created: ") as caught:
        wrong.create([Path(sys.executable)])
    assert "HASHES" in caught.value.message
    assert "network" in caught.value.hint
    assert [path.suffix for path in wrong.folder.parent.iterdir()] == [".lock"]


def test_one_whose_python_has_gone_is_made_again(made, monkeypatch, tmp_path):
    _cached_in(made[1], monkeypatch)
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    small = made[0]
    small.python.parent.mkdir(parents=True)
    small.python.symlink_to("/no/such/python")
    (small.folder.parent / f"{small.folder.name}.x.partial").mkdir()  # left by a process that was killed
    assert _run(small)["tiny"] == 42
    assert sorted(path.name for path in small.folder.parent.iterdir()) == [
        small.folder.name,
        f"{small.folder.name}.lock",
    ]


def test_a_second_process_waits_for_the_first(small, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path))
    lock = small.folder.with_name(f"{small.folder.name}.lock")
    lock.parent.mkdir(parents=True)
    waiting = threading.Event()
    with lock.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        thread = threading.Thread(target=small.create, args=([], lambda _text: waiting.set()))
        thread.start()
        assert waiting.wait(30)
        assert not small.folder.exists()
        small.python.parent.mkdir(parents=True)  # the first one is done
        small.python.touch()
    thread.join(30)
    assert not thread.is_alive()
    assert small.python.stat().st_size == 0  # it was taken as it is


def test_another_kind_of_machine_is_reported(tmp_path):
    elsewhere = _environment(tmp_path, "0" * 64, machines="plan9 mips")
    with pytest.raises(HostError, match="exists for plan9 mips only; this is ") as caught:
        elsewhere.create()
    assert "copy the artifact" in caught.value.hint


def _python(path: Path, answer: str) -> Path:
    """A program that answers as a Python would, whatever it is asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine without any Python: an empty PATH, no pyenv, no uv."""
    for name, folder in {"PATH": "bin", "PYENV_ROOT": "pyenv", "XDG_DATA_HOME": "share", "HOME": "home"}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    return tmp_path


def test_pythons_are_found_in_their_order(nowhere):
    uv = _python(nowhere / "share/uv/python/cpython-3.7.9-linux/bin/python", "echo 3.7 True")
    assert find_python("3.7") == uv
    older = _python(nowhere / "pyenv/versions/3.7.9/bin/python", "echo 3.7 True")
    assert find_python("3.7") == older
    newer = _python(nowhere / "pyenv/versions/3.7.16/bin/python", "echo 3.7 True")
    assert find_python("3.7") == newer
    shim = _python(nowhere / "bin/python3.7", "exit 127")  # as pyenv's, where the version is not chosen
    assert find_python("3.7") == newer
    _python(shim, "echo 3.7 True")
    assert find_python("3.7") == shim
    asked = _python(nowhere / "mine", "echo 3.7 True")
    assert find_python("3.7", [_python(nowhere / "other", "echo 3.6 True"), asked]) == asked


def test_no_python_names_the_ways_to_one(nowhere):
    with pytest.raises(HostError, match=r"this needs Python 3\.7") as caught:
        find_python("3.7", [_python(nowhere / "mine", "echo 3.6 True")])
    for way in ("uv python install 3.7", "pyenv install 3.7", "--python"):
        assert way in caught.value.hint


def test_a_python_without_venv_names_the_package(nowhere):
    _python(nowhere / "bin/python3.7", 'case "$*" in *ensurepip*) exit 1;; esac; echo 3.7')
    with pytest.raises(HostError, match="cannot create environments") as caught:
        find_python("3.7")
    assert "apt-get install python3.7-venv" in caught.value.hint


def test_a_named_python_that_does_not_exist_is_refused(tmp_path):
    for program in (tmp_path / "nothing", _python(tmp_path / "silent", "exit 0")):
        with pytest.raises(UsageError, match="is not a working Python"):
            find_python(VERSION, [program])


def test_variables_that_lead_elsewhere_are_left_out(monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_USER", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PIP_INDEX_URL", "kept")
    variables = clean_variables()
    assert not {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_USER", "VIRTUAL_ENV"} & set(variables)
    assert variables["PIP_INDEX_URL"] == "kept"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_is_pinned_and_hashed(name):
    text = environment(name).requirements.read_text().replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert pins
    for pin in pins:
        assert "==" in pin.split()[0]
        assert "--hash=sha256:" in pin
    assert environment(name).python_version in {"3.8", "3.9", "3.11"}


def test_what_runs_inside_is_old_python():
    """Their Pythons are older than ours: all that runs inside must parse there."""
    code = Path(interpreter.__code__.co_filename).parent
    for path in [code / "runner.py", *code.glob("*/job.py")]:
        compile(path.read_text(), path, "exec", dont_inherit=True, flags=0)
        subprocess.run(
            [sys.executable, "-c", "import ast,sys; ast.parse(open(sys.argv[1]).read(), feature_version=(3, 8))", path],
            check=True,
        )


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a gigabyte is fetched
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_it_can_be_made_here(name):
    environment(name).create()
    assert environment(name).python.exists()
