"""A language model behind llama.cpp's own server: a TextSession over HTTP, for phones and other computers.

Written against the endpoints /props, /v1/models, /tokenize, /detokenize and /completion of tools/server in llama.cpp.
Prompts are sent as token ids. The server's responses are untrusted: their sizes are limited.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any, Iterator, Sequence, TypedDict
from urllib.parse import SplitResult, urlsplit

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject, JsonValue
from runtimes.errors import EngineError, HostError, InputError, UsageError, first_line
from runtimes.llm.grammar.json_schema import grammar_of
from runtimes.llm.llama_cpp.sampling import choose_seed
from runtimes.llm.session import Finish, LlmFacts, TextOnly, TextOptions, Token
from runtimes.session import Closeable

_LONGEST_LINE = 16 * 2**20
_LONGEST_ANSWER = 256 * 2**20
_TIMEOUT_S = 30.0  # to connect, and for all but reading a prompt
_READING_TIMEOUT_S = 3600.0
_REASONS = {"eos": "stop", "word": "stop", "limit": "length"}
# What llama-server shows for a model that has no template of its own.
_DEFAULT_TEMPLATE = "{%- for message in messages -%}\n  {{- '<|im_start|>' + message.role + '\n' + message.content"
_SAMPLERS = {
    "modern": ["penalties", "top_k", "top_p", "min_p", "temperature"],
    "2023": ["penalties", "top_k", "temperature", "top_p"],
}


class _Timings(TypedDict, total=False):
    cache_n: int


class _Part(TypedDict, total=False):
    """The keys of a part of /completion's response that are used here; only the last part has `stop` and the rest."""

    content: str
    tokens: list[int]
    stop: bool
    stop_type: str
    truncated: bool
    tokens_predicted: int
    timings: _Timings


class _Meta(TypedDict, total=False):
    """The keys of a model's entry in /v1/models that are used here."""

    architecture: str
    ftype: str
    n_params: int
    size: int
    n_vocab: int
    n_ctx_train: int


class ServerSession(TextOnly, Closeable):
    """See `runtimes.llm.session.TextSession`; `address` is `http://host:port`, `key` its API key."""

    capabilities = frozenset({"tokenize"})

    def __init__(self, address: str, key: str | None = None) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _has_usable_port(parts):
            raise UsageError(f"'{address}' is not the address of a server", "write http://HOST:PORT")
        self._parts = parts
        self._key = key
        self._is_closed = False
        self._open: set[http.client.HTTPConnection] = set()
        self.facts = self._facts()

    def tokenize(self, text: str, *, special: bool = True, begin: bool = False) -> list[int]:
        """See `TextSession`."""
        request: JsonObject = {"content": text, "add_special": begin, "parse_special": special}
        return [int(token) for token in self._json("POST", "/tokenize", request)["tokens"]]

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """See `TextSession`; special tokens are removed here, because the server includes their texts."""
        hidden = () if special else {token for token in (self.facts.bos, self.facts.eos) if token is not None}
        visible = [token for token in tokens if token not in hidden]
        return str(self._json("POST", "/detokenize", {"tokens": visible})["content"]) if visible else ""

    def generate(
        self, tokens: Sequence[int], options: TextOptions, cancel: threading.Event | None = None
    ) -> Iterator[Token]:
        """See `TextSession`."""
        prompt = list(tokens)
        self._check(prompt)
        return self.generate_prompt(prompt, len(prompt), options, cancel)

    def generate_prompt(
        self, prompt: JsonValue, length: int, options: TextOptions, cancel: threading.Event | None
    ) -> Iterator[Token]:
        """Continue a prompt in any form that `/completion` accepts, of `length` tokens."""
        if self._is_closed:
            raise UsageError("the session is closed", "open the server again")
        seed = choose_seed(options)
        return self._tokens(length, _request(prompt, options, seed), seed, cancel)

    def logits(self, tokens: Sequence[int]) -> Array:
        """Raise UsageError: the server does not return scores."""
        raise _not_over_http(f"scores of {len(tokens)} tokens")

    def save_state(self, path: str) -> None:
        """Raise UsageError: the server does not exchange its state."""
        raise _not_over_http(f"the state for {path}")

    def load_state(self, path: str) -> list[int]:
        """Raise UsageError: the server does not exchange its state."""
        raise _not_over_http(f"the state in {path}")

    def close(self) -> None:
        """Disconnect; running continuations end as cancelled."""
        self._is_closed = True
        for connection in list(self._open):
            _hang_up(connection)

    def _tokens(self, length: int, request: JsonObject, seed: int, cancel: threading.Event | None) -> Iterator[Token]:
        started, first, count = time.perf_counter(), None, 0
        is_only_read = request["n_predict"] == 0  # the server generates one token even then
        connection = self._connection()
        over = threading.Event()
        if cancel is not None:  # the server stops when the client disconnects, also while it processes the prompt
            threading.Thread(target=_watch, args=(cancel, over, connection), daemon=True).start()
        try:
            for part in self._receive(connection, request, cancel):
                if cancel is not None and cancel.is_set():
                    break  # skip parts that were generated before the cancellation
                if first is None:
                    first = time.perf_counter()
                if part.get("stop"):
                    finish = _finish(part, length, count, started, first, seed)
                    if is_only_read:
                        yield Token(None, "", replace(finish, reason="length", tokens=0, generate_s=0.0))
                    else:
                        yield Token(None, str(part.get("content", "")), finish)
                    return
                if is_only_read:
                    continue
                # A part has several tokens if a character has several bytes.
                ids: Sequence[int | None] = part.get("tokens") or [None]
                count += len(ids)
                yield from (Token(one, "") for one in ids[:-1])
                yield Token(ids[-1], str(part.get("content", "")))
            if not self._has_left(cancel):
                raise HostError(
                    f"{self._parts.netloc} ended in the middle of a response", "check the output of the server"
                )
            yield Token(None, "", _finish({}, length, count, started, first or time.perf_counter(), seed))
        finally:
            over.set()
            self._leave(connection)

    def _receive(
        self, connection: http.client.HTTPConnection, request: JsonObject, cancel: threading.Event | None
    ) -> Iterator[_Part]:
        """Yield the parts of a response; none if the request was cancelled before it began."""
        try:
            response = self._answer(connection, "POST", "/completion", request, _READING_TIMEOUT_S)
        except HostError:
            if self._has_left(cancel):
                return
            raise
        yield from _events(response)

    def _has_left(self, cancel: threading.Event | None) -> bool:
        return self._is_closed or (cancel is not None and cancel.is_set())

    def _facts(self) -> LlmFacts:
        props = self._json("GET", "/props")
        model = self._json("GET", "/v1/models")["data"][0]
        meta: _Meta = model.get("meta") or _Meta()
        begin = self.tokenize("", begin=True)
        template = props.get("chat_template") or None
        eos = self.tokenize(str(props.get("eos_token") or ""), special=True)
        return LlmFacts(
            name=str(props.get("model_alias") or model.get("id")).rpartition("/")[2],
            architecture=str(meta.get("architecture", "unknown")),
            quantization=str(props.get("model_ftype") or meta.get("ftype") or "unknown"),
            parameters=meta.get("n_params"),
            bytes=meta.get("size"),
            vocabulary=int(meta.get("n_vocab", 0)),
            context=int(props["default_generation_settings"]["n_ctx"]),
            trained_context=meta.get("n_ctx_train"),
            slots=int(props.get("total_slots", 1)),
            bos=begin[0] if begin else None,
            eos=eos[0] if len(eos) == 1 else None,
            ends=tuple(eos) if len(eos) == 1 else (),
            adds_bos=bool(begin),
            template=None if template and template.startswith(_DEFAULT_TEMPLATE) else template,
            threads=None,
            batch_threads=None,
            memory=None,
            system_info=str(props.get("build_info", "")),
            bos_text=str(props.get("bos_token") or ""),
            eos_text=str(props.get("eos_token") or ""),
        )

    def _check(self, tokens: Sequence[int]) -> None:
        if not tokens:
            raise InputError("there is nothing to continue", "pass at least one token")
        wrong = next((token for token in tokens if not 0 <= token < self.facts.vocabulary), None)
        if wrong is not None:
            raise InputError(f"the model has no token {wrong}", f"its tokens are 0 to {self.facts.vocabulary - 1}")
        if len(tokens) > self.facts.context:
            message = f"the prompt has {len(tokens)} tokens, but the context only holds {self.facts.context}"
            raise InputError(message, "shorten it, or start the server with more context")

    def _json(self, method: str, path: str, body: JsonObject | None = None) -> Any:
        connection = self._connection()
        try:
            return json.loads(self._answer(connection, method, path, body, _TIMEOUT_S).read(_LONGEST_ANSWER))
        except (ValueError, OSError, http.client.HTTPException) as error:
            raise HostError(f"the answer of {self._parts.netloc} is not JSON: {first_line(error)}", _HINT) from None
        finally:
            self._leave(connection)

    def _connection(self) -> http.client.HTTPConnection:
        """Return a connection that is not open yet, so that another thread can close it; `_leave` ends it."""
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(str(self._parts.hostname), self._parts.port, timeout=_TIMEOUT_S)
        self._open.add(connection)
        return connection

    def _leave(self, connection: http.client.HTTPConnection) -> None:
        self._open.discard(connection)
        _hang_up(connection)
        connection.close()

    def _answer(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: JsonObject | None,
        timeout_s: float,
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            connection.connect()
            connection.sock.settimeout(timeout_s)
            connection.request(
                method, f"{self._parts.path.rstrip('/')}{path}", json.dumps(body) if body else None, headers
            )
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise HostError(f"no server answers at {self._parts.netloc}: {reason}", _HINT) from None
        if response.status != 200:
            raise _refusal(self._parts.netloc, response)
        return response


def _not_over_http(what: str) -> UsageError:
    return UsageError(f"a server does not exchange {what}", "open the model's file with --runtime llama_cpp")


_HINT = "start llama-server there, and check the address"


def _request(prompt: JsonValue, options: TextOptions, seed: int) -> JsonObject:
    request: JsonObject = {
        "prompt": prompt,
        "n_predict": -1 if options.max_tokens is None else options.max_tokens,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p if options.chain == "modern" else 0,
        "repeat_penalty": options.repeat_penalty,
        "repeat_last_n": options.repeat_last_n,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "samplers": _SAMPLERS[options.chain],
        "seed": seed,
        "ignore_eos": options.ignore_end,
        "cache_prompt": True,
        "return_tokens": True,
        "stream": True,
    }
    grammar = options.grammar if options.json_schema is None else grammar_of(options.json_schema)
    if grammar is not None:  # the servers' own translations of schemas drop words
        request["grammar"] = grammar
    return request


def _events(response: http.client.HTTPResponse) -> Iterator[_Part]:
    """Yield the objects of a stream of server-sent events until it ends or the connection is closed."""
    while True:
        try:
            line = response.readline(_LONGEST_LINE)
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            return  # closed by another thread: http.client closes its file while it is being read
        if not line:
            return
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            part: _Part = json.loads(line[6:])
            yield part
        elif line.startswith(b"error: "):
            raise EngineError(f"the server failed: {_message(line[7:])}", "check the output of the server")


def _finish(part: _Part, length: int, count: int, started: float, first: float, seed: int) -> Finish:
    timings: _Timings = part.get("timings") or {}
    reason = _REASONS.get(str(part.get("stop_type")), "stop") if part else "cancelled"
    if reason == "length" and part.get("truncated"):
        reason = "context"
    return Finish(
        reason,
        prompt_tokens=length,
        reused_tokens=int(timings.get("cache_n", 0)),
        prompt_s=first - started,
        tokens=int(part.get("tokens_predicted", count)),
        generate_s=time.perf_counter() - first,
        seed=seed,
    )


def _refusal(where: str, response: http.client.HTTPResponse) -> Exception:
    message = _message(response.read(_LONGEST_LINE))
    if response.status in (401, 403):
        return HostError(f"{where} requires an API key", "set it in the environment variable EDGE_API_KEY")
    if response.status == 400:
        return InputError(f"{where} rejects the request: {message}", "change the request")
    return HostError(f"{where} answers with status {response.status}: {message}", _HINT)


def _message(content: bytes) -> str:
    with suppress(ValueError, KeyError, TypeError):
        answer = json.loads(content)
        return str(answer.get("error", answer).get("message", answer))[:300]
    return content.decode("utf-8", "replace").strip()[:300] or "nothing"


def _has_usable_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:  # not a number, or above 65535
        return False


def _watch(cancel: threading.Event, over: threading.Event, connection: http.client.HTTPConnection) -> None:
    while not over.is_set():
        if cancel.wait(0.5):
            _hang_up(connection)  # repeated, because it may not have been connected yet
            over.wait(0.1)


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """Shut the connection down from any thread; a thread that reads from it gets its end."""
    connected = connection.sock
    if connected is not None:
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)
