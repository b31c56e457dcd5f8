"""Where the model of a chat can be: a file with an adapter, an artifact, other computers, a server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pexpect
import pytest

from runtimes.artifact import write
from runtimes.artifact.manifest import Manifest
from tests.edge.chat.terminals import Terminal
from tests.edge.language_models import ROOT, edge, llama_server, stories, write_adapter

ASKED = ("Once upon a time", "--template", "plain", "--temp", "0", "--max-tokens", "12")
STORY = ", there was a little girl named Lily"
SECONDS = 180
READY = "\x1b[?2004h"  # the input line asks the terminal to mark what is pasted


@pytest.fixture(scope="module")
def model():
    return stories()


@pytest.fixture(scope="module")
def plain(model):
    """What the file says when it is asked."""
    done = edge("chat", model, *ASKED, "--json")
    found = json.loads(done.stdout)
    assert found["answer"].startswith(STORY)
    return found


@pytest.fixture(scope="module")
def server(model):
    with llama_server(model) as (address, key, _process):
        yield address, key


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("adapter") / "lora=1.gguf")


def test_an_adapter_changes_the_answer_by_its_strength(model, plain, adapter) -> None:
    without, with_it = (edge("chat", model, *ASKED, "--lora", f"{adapter}{end}") for end in ("=0", ""))
    assert without.stdout.strip() == plain["answer"].strip()
    assert (with_it.returncode, with_it.stderr) == (0, "")
    assert with_it.stdout.strip() != plain["answer"].strip()


@pytest.mark.parametrize(
    ("given", "status", "told"),
    [
        ("nowhere.gguf", 3, "nowhere.gguf"),
        ("{model}", 3, "cannot apply the adapter"),
        ("{adapter}=nan", 2, "strength of"),
    ],
)
def test_what_is_no_adapter_is_one_line(model, adapter, given, status, told) -> None:
    done = edge("chat", model, *ASKED, "--lora", given.format(model=model, adapter=adapter))
    assert (done.returncode, done.stdout) == (status, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_of_an_artifact_is_its_model(model, tmp_path) -> None:
    (tmp_path / "stories.gguf").write_bytes(model.read_bytes())
    write(tmp_path, Manifest("stories", "gguf", "fp32", "stories.gguf"), {}, {})
    done = edge("chat", tmp_path, *ASKED)
    assert done.stdout.startswith(STORY), done.stderr


def test_a_folder_of_something_else_says_what_to_do(tmp_path) -> None:
    done = edge("chat", tmp_path, *ASKED)
    assert done.returncode == 3
    assert f"convert it first: edge convert {tmp_path} --to gguf\n" in done.stderr
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "--to gguf --base FOLDER" in edge("chat", tmp_path, *ASKED).stderr
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    write(tmp_path, Manifest("a", "onnx", "fp32", "model.onnx"), {}, {})
    assert "not a language model: its format is onnx" in edge("chat", tmp_path, *ASKED).stderr


def test_workers_take_a_share_and_one_that_is_not_there_is_one_line(model) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    words = [sys.executable, "-m", "edge", "worker", "--port", port, "--threads", "1", "--json"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as worker:
        address = json.loads(worker.stdout.readline())["address"]
        shared = edge("chat", model, *ASKED, "--workers", address)
        worker.send_signal(signal.SIGINT)
    assert shared.stdout.startswith(STORY), shared.stderr
    gone = edge("chat", model, *ASKED, "--workers", address)
    assert (gone.returncode, gone.stdout) == (7, "")
    assert address in gone.stderr


@pytest.mark.parametrize("place", ["--server http://HOST", "--server HOST", "http://HOST"])
def test_a_server_answers_as_the_file_does(plain, server, place) -> None:
    address, key = server
    words = place.replace("HOST", address.partition("://")[2]).split()
    found = json.loads(edge("chat", *words, *ASKED, "--json", EDGE_API_KEY=key).stdout)
    same = ("answer", "finish", "tokens", "prompt_tokens")
    assert [found[name] for name in same] == [plain[name] for name in same]


def test_a_server_is_not_told_how_to_load_and_needs_its_key(server) -> None:
    address, key = server
    told = edge("chat", "--server", address, *ASKED, "--context", "64", EDGE_API_KEY=key)
    assert (told.returncode, told.stdout) == (2, "")
    assert "--context cannot be set on a running server" in told.stderr
    without = edge("chat", "--server", address, *ASKED, EDGE_API_KEY="wrong-key")
    assert (without.returncode, without.stdout) == (7, "")
    assert "EDGE_API_KEY" in without.stderr


def test_a_chat_outlives_its_server(model, tmp_path) -> None:
    with llama_server(model) as (address, key, process):
        command = [
            sys.executable,
            "-m",
            "edge",
            "chat",
            "--server",
            address,
            "--template",
            "plain",
            "--max-tokens",
            "5",
        ]
        env = {**os.environ, "EDGE_CHATS": str(tmp_path), "EDGE_API_KEY": key, "PYTHONPATH": str(ROOT)}
        env |= {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
        child = Terminal(command, env=env, cwd=tmp_path, seconds=SECONDS)
        for text in ("Once", " upon"):
            child.expect_exact(READY)
            child.send(f"{text}\r")
            child.expect("tok/s")
        child.expect_exact(READY)
        process.kill()
        process.wait()
        child.send("a time\r")
        child.expect("no server answers at")
        child.expect_exact(READY)
        child.press_ctrl("d")
        child.expect("continue with: edge chat http://")
        child.expect(pexpect.EOF)
        child.end()
    (saved,) = tmp_path.glob("*.json")
    assert len(json.loads(saved.read_text())["messages"]) == 5
