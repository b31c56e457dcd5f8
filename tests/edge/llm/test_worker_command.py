"""`edge worker`: another process computes some of a model's layers; if it disappears, one line says so."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.cli import main
from edge.llm.session import open_session
from runtimes.errors import EdgeError, HostError
from runtimes.llm.llama_cpp import rpc
from runtimes.llm.session import LoadOptions, TextOptions

pytest.importorskip("llama_cpp")

MODEL = Path(__file__).parents[2] / "runtimes" / "models" / "llama_cpp.gguf"
PROMPT = list(range(3, 20))
GREEDY = TextOptions(temperature=0, max_tokens=40, ignore_end=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def worker():
    """A running `edge worker`: its process and its address."""
    words = [sys.executable, "-m", "edge", "worker", "--port", str(free_port()), "--threads", "1", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process, json.loads(process.stdout.readline())["address"]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)


def answer(workers=()):
    with open_session(MODEL, LoadOptions(context=128, threads=1, workers=workers)) as session:
        return [token.id for token in session.generate(PROMPT, GREEDY)]


def wait_for(address):
    """Until the worker answers again, two minutes at most."""
    for _ in range(120):
        try:
            rpc.check_worker(address)
        except HostError:
            time.sleep(1)
        else:
            return


def end_child(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the worker's process through /proc")
def test_a_share_of_the_layers_gives_the_same_answer_and_a_lost_worker_is_an_error(worker):
    process, address = worker
    assert answer((address,)) == answer()
    with open_session(MODEL, LoadOptions(context=128, threads=1, workers=(address,))) as session:
        end_child(process)
        with pytest.raises(EdgeError) as caught:
            list(session.generate(PROMPT, GREEDY))
        assert "\n" not in caught.value.message
    assert "starting it again" in process.stderr.readline()
    wait_for(address)
    assert answer((address,)) == answer()


def test_the_version_that_is_expected_is_the_librarys_own(worker):
    assert rpc.read_version(*rpc.parse_address(worker[1])) == rpc.PROTOCOL


def test_another_version_is_refused(worker, monkeypatch):
    monkeypatch.setattr(rpc, "PROTOCOL", (6, 0, 0))
    with pytest.raises(HostError, match=r"uses version 7\.0\.0 of the protocol, this machine 6\.0\.0"):
        rpc.check_worker(worker[1])


def test_clients_from_outside_are_rejected(capsys):
    assert main(["worker", "--host", "0.0.0.0"]) == 2
    assert "ssh -L" in capsys.readouterr().err


def test_a_port_in_use_is_one_line(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["worker", "--port", str(taken.getsockname()[1])]) == 7
    assert "--port" in capsys.readouterr().err


def test_a_worker_that_does_not_exist_is_reported():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
    with pytest.raises(HostError, match="cannot be reached"):
        answer((f"127.0.0.1:{port}",))
