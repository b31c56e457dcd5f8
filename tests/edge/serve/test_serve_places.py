"""Where the model of `edge serve` can be: a file with an adapter, an artifact, another server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtimes.artifact import write
from runtimes.artifact.manifest import Manifest
from tests.edge.language_models import edge, llama_server, write_adapter
from tests.edge.serve.conftest import Server

BODY = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0}
STORY = ", there was a little girl named Lily"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts `edge serve` with these words."""
    with ExitStack() as stack:

        def start(*words: object, **environment: str) -> Server:
            command = ["-m", "edge", "serve", *map(str, words), "--json", "--port", "0"]
            server = Server(command, tmp_path / "log", **environment)
            stack.callback(server.stop)
            return server

        yield start


def _text(server: Server, **headers: str) -> str:
    status, _, answer = server.post("/v1/completions", BODY, **headers)
    assert status == 200, answer
    return str(answer["choices"][0]["text"])


def test_an_adapter_is_applied(start, stories, tmp_path) -> None:
    server = start(stories, "--lora", write_adapter(tmp_path / "lora.gguf"), "--slots", "1")
    assert not _text(server).startswith(STORY)


def test_a_folder_of_an_artifact_is_its_model(start, stories, tmp_path) -> None:
    folder = tmp_path / "told"
    folder.mkdir()
    (folder / "stories.gguf").write_bytes(stories.read_bytes())
    write(folder, Manifest("stories", "gguf", "fp32", "stories.gguf"), {}, {})
    server = start(folder, "--slots", "1")
    assert server.told["model"] == "stories"
    assert _text(server).startswith(STORY)


def test_another_server_has_the_model_until_it_is_gone(start, stories) -> None:
    with llama_server(stories) as (address, key, process):
        server = start("--server", address, EDGE_API_KEY=key)
        assert (server.told["model"], server.told["slots"], server.told["context"]) == ("stories260K.gguf", 2, 512)
        opens: dict[str, str] = {}  # the key of that server is not asked of the clients of this one
        assert _text(server, **opens).startswith(STORY)
        chat = {"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 6, "temperature": 0}
        _, _, answer = server.post("/v1/chat/completions", chat, **opens)
        assert answer["usage"]["completion_tokens"] == 6
        process.kill()
        process.wait()
        status, _, answer = server.post("/v1/completions", BODY, **opens)
        assert (status, answer["error"]["code"]) == (503, "engine_unavailable")
        assert server.get("/health")[0] == 200


def test_what_another_server_was_told_is_not_told_here() -> None:
    for words in (("--template", "plain"), ("--context", "100"), ("--", "--embeddings")):
        done = edge("serve", "--server", "http://127.0.0.1:1", "--port", "0", *words)
        assert (done.returncode, "cannot be set on a running server" in done.stderr) == (2, True)


def test_no_model_and_two_are_refused(stories) -> None:
    assert edge("serve").returncode == edge("serve", stories, "--server", "http://127.0.0.1:1").returncode == 2
    done = edge("serve", "--server", "http://127.0.0.1:1", "--port", "0")
    assert (done.returncode, done.stdout) == (7, "")
    assert "no server answers at 127.0.0.1:1" in done.stderr
