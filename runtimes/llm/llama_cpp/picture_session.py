"""A session of a model that sees pictures: llama.cpp's own server in a child process, over a Unix socket.

llama.cpp encodes pictures in libmtmd. llama-cpp-python is compiled here without it, and xllamacpp's wheel has it only
inside its server. Both servers accept a text with pictures at `/completion`, so pictures go through the server with
either engine. It needs POSIX; its socket is in a folder that only this user can access.
"""

from __future__ import annotations

import base64
import http.client
import re
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import IO, Any, Iterator, Sequence

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject, JsonValue
from runtimes.child_process import last_words
from runtimes.errors import EngineError, HostError, InputError
from runtimes.llm.llama_cpp.http_session import ServerSession
from runtimes.llm.llama_cpp.memory import context_size, memory_mode, trained_context
from runtimes.llm.llama_cpp.server_arguments import server_arguments
from runtimes.llm.llama_cpp.server_program import CLIP_HINT, CLIP_REASON, Program, die_with_parent, last_error
from runtimes.llm.session import LoadOptions, PromptPart, TextOptions, Token
from runtimes.model_files.gguf import control_texts, read_gguf

# edge renders chats itself. For requests that only count tokens, and instead of the model's own untrusted template.
_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
_POLL_S = 0.05
_END_S = 2.0
_EXIT_S = 10.0  # from the end of a crashed process's connections to its own: it may write its memory to a file first
_PICTURE_ENCODER = "clip"  # general.architecture of every file with one
# The projectors of the encoders that tools/mtmd/models/llava.cpp computes, and the tensor that it puts last.
_LLAVA, _CLASS_EMBEDDING = ("mlp", "mlp_norm", "ldp", "ldpv2", "adapter"), "v.class_embd"


def check_picture_encoder(path: Path, program: Program) -> None:
    """Raise InputError if `path` is not a picture encoder, or one that `program` computes wrongly."""
    if not path.is_file():
        raise InputError(f"{path} does not exist", "--mmproj takes the mmproj file that belongs to the model")
    file = read_gguf(path)
    if file.architecture != _PICTURE_ENCODER:
        raise InputError(f"{path} is not a picture encoder", "--mmproj takes the mmproj file, MODEL the language model")
    if (
        file.text("clip.projector_type") in _LLAVA
        and any(tensor.name == _CLASS_EMBEDDING for tensor in file.tensors)
        and not program.is_right_about_clip
    ):
        hint = f"{CLIP_HINT}; to use the language model alone, move {path.name} to another folder"
        raise InputError(f"{path} is CLIP, and {CLIP_REASON}", hint)


def open_with_pictures(model: str, options: LoadOptions, program: Program, words: Sequence[str] = ()) -> PictureSession:
    """Start the server of `model` with the picture encoder `options.mmproj`, and connect to it.

    words: Further options of llama-server. Raises the errors of `TextEngine.open_text`.
    """
    assert options.mmproj is not None
    path, encoder = Path(model), Path(options.mmproj)
    file = read_gguf(path)
    check_picture_encoder(encoder, program)
    context = context_size(file, path, options)
    arguments = [*server_arguments(path, file, context, options), "--mmproj", str(encoder), *words]
    process = _ServerProcess(program, arguments, f"{path} with {encoder.name}")
    try:
        session = PictureSession(process, control_texts(path))
    except BaseException:
        process.close()
        raise
    threads = int(arguments[arguments.index("--threads") + 1])
    session.facts = replace(
        session.facts,
        name=file.text("general.name") or path.stem,
        architecture=file.architecture,
        context=min(context, session.facts.context),
        trained_context=trained_context(file),
        template=file.text("tokenizer.chat_template"),
        threads=threads,
        batch_threads=options.batch_threads or threads,
        memory=memory_mode(file, options),
    )
    return session


class PictureSession(ServerSession):
    """See `runtimes.llm.session.TextSession`; it owns the server's process.

    `marks` are the model's control tokens, which are escaped in texts that are not special.
    """

    capabilities = frozenset({"tokenize", "pictures"})

    def __init__(self, process: _ServerProcess, marks: re.Pattern[str] | None) -> None:
        self._process = process
        self._marks = marks
        super().__init__("http://localhost", process.key)
        # A random text, for which a user's text cannot be mistaken.
        self._marker = str(self._json("GET", "/props")["media_marker"])

    def picture_tokens(self, picture: bytes) -> int:
        """See `TextSession`."""
        url = f"data:image/png;base64,{_base64(picture)}"
        text: JsonObject = {"type": "text", "text": "."}
        return self._count([{"type": "image_url", "image_url": {"url": url}}, text]) - self._count([text])

    def _count(self, parts: list[JsonValue]) -> int:
        request: JsonObject = {"messages": [{"role": "user", "content": parts}]}
        return int(self._json("POST", "/v1/chat/completions/input_tokens", request)["input_tokens"])

    def generate_parts(
        self, parts: Sequence[PromptPart], length: int, options: TextOptions, cancel: Event | None = None
    ) -> Iterator[Token]:
        """See `TextSession`."""
        return self.generate_prompt(self.prompt(parts), length, options, cancel)

    def generate_prompt(
        self, prompt: JsonValue, length: int, options: TextOptions, cancel: Event | None
    ) -> Iterator[Token]:
        """See `ServerSession`. Raises EngineError if the process has died."""
        return self._watched(super().generate_prompt(prompt, length, options, cancel))

    def _watched(self, tokens: Iterator[Token]) -> Iterator[Token]:
        with self._process.watched():
            yield from tokens

    def prompt(self, parts: Sequence[PromptPart]) -> JsonObject:
        """Return the prompt of a request to `/completion`."""
        texts = [
            self._marker
            if part.picture is not None
            else part.text
            if part.is_special
            else escape_controls(part.text, self._marks)
            for part in parts
        ]
        text = "".join(texts)
        if self.facts.adds_bos and self.facts.bos_text:
            text = _without_start(text, self.facts.bos_text)  # the server adds it
        pictures = [_base64(part.picture) for part in parts if part.picture is not None]
        return {"prompt_string": text, "multimodal_data": pictures}

    def next_scores(self, parts: Sequence[PromptPart], forced: int) -> tuple[Array, int]:
        """Return the log-probabilities of all tokens after `parts`, float32 [vocabulary], and the prompt's tokens.

        `forced`: a token with a text of its own, which is "generated"; the server reports scores only with a token,
        and holds a token back that ends within a character. Impossible tokens have -inf.
        """
        request: JsonObject = {
            "prompt": self.prompt(parts),
            "n_predict": 1,
            "n_probs": self.facts.vocabulary,
            "logit_bias": [[forced, 1e4]],
            "samplers": ["temperature"],
            "temperature": 1.0,
            "cache_prompt": False,
        }
        answer = self._json("POST", "/completion", request)
        found = np.full(self.facts.vocabulary, -np.inf, np.float32)
        for entry in answer["completion_probabilities"][0]["top_logprobs"]:
            found[int(entry["id"])] = entry["logprob"]
        return found, int(answer["tokens_evaluated"])

    def close(self) -> None:
        """See `TextSession`."""
        super().close()
        self._process.close()

    def _json(self, method: str, path: str, body: JsonObject | None = None) -> Any:
        with self._process.watched():
            return super()._json(method, path, body)

    def _connection(self) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._process.socket)
        self._open.add(connection)
        return connection


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _ServerProcess:
    """A llama-server that listens on `socket` with `key`. Raises InputError if it cannot load the model."""

    def __init__(self, program: Program, words: Sequence[str], name: str) -> None:
        self._name = name
        self._folder = tempfile.TemporaryDirectory(prefix="edge-pictures-")  # mode 700
        self.socket = Path(self._folder.name) / "llama.sock"
        self.key = secrets.token_hex(24)
        template = Path(self._folder.name) / "template.jinja"
        template.write_text(_TEMPLATE, encoding="utf-8")
        own = ("--log-verbosity", "1", "--chat-template-file", str(template), "--host", str(self.socket))
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [*program.command, *words, *own],
            stdin=subprocess.PIPE,  # the server in the wheel exits when its stdin is closed
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            env=dict(program.environment(self.key)),
            preexec_fn=die_with_parent(),
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process. A second call does nothing."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._folder.cleanup()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Explain the error of a connection that ended with the process."""
        try:
            yield
        except HostError:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_S)
            if self._process.poll() is None:
                raise
            hint = "close other programs if memory is short; a newer llama.cpp may support the model"
            raise EngineError(f"llama-server {self._end()}, while it ran {self._name}", hint) from None

    def _wait(self) -> None:
        while not self._answers():
            if self._process.poll() is not None:
                what = f"llama-server cannot load {self._name}: it {self._end()}"
                raise InputError(what, "check that both belong together")
            time.sleep(_POLL_S)

    def _end(self) -> str:
        """Return how the process ended, and the error that it printed last."""
        status = self._process.returncode
        how = f"crashed with {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        line = last_error(last_words(self._log).splitlines())
        return f"{how} ({line})" if line else how

    def _answers(self) -> bool:
        connection: Any = _UnixConnection(self.socket)
        try:
            connection.request("GET", "/health")
            return bool(connection.getresponse().status == 200)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _without_start(text: str, start: str) -> str:
    return text[len(start) :] if text.startswith(start) else text


def escape_controls(text: str, marks: re.Pattern[str] | None) -> str:
    """Put a zero-width space after the first character of each control token: it is plain text then, and looks alike.

    The server parses the whole text of a prompt with pictures for control tokens.
    """
    return text if marks is None else marks.sub(lambda match: f"{match[0][0]}\u200b{match[0][1:]}", text)
