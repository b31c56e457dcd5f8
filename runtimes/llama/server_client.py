"""A language model behind llama.cpp's own server: a TextSession over HTTP, for phones and other computers.

Written against the endpoints /props, /v1/models, /tokenize, /detokenize and /completion of tools/server in llama.cpp.
Prompts go as token ids. What the server answers is not trusted: sizes are bounded, and text is only ever text.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any, Iterator, Mapping, Sequence
from urllib.parse import SplitResult, urlsplit

from runtimes.arrays import Array
from runtimes.errors import EngineError, HostError, InputError, UsageError, first_line
from runtimes.llama.sampling import drawn_seed
from runtimes.text import Finish, ModelFacts, TextOptions, Token

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


class ServerSession:
    """See `runtimes.text.TextSession`; `address` is `http://host:port`, `key` its API key."""

    capabilities = frozenset({"tokenize"})

    def __init__(self, address: str, key: str | None = None) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _has_usable_port(parts):
            raise UsageError(f"'{address}' is no address of a server", "write http://HOST:PORT")
        self._parts = parts
        self._key = key
        self._is_closed = False
        self._open: set[http.client.HTTPConnection] = set()
        self.facts = self._facts()

    def tokenize(self, text: str, *, special: bool = True, begin: bool = False) -> list[int]:
        """See `TextSession`."""
        asked = {"content": text, "add_special": begin, "parse_special": special}
        return [int(token) for token in self._json("POST", "/tokenize", asked)["tokens"]]

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """See `TextSession`; marks are left out here, as the server writes them."""
        hidden = () if special else {token for token in (self.facts.bos, self.facts.eos) if token is not None}
        kept = [token for token in tokens if token not in hidden]
        return str(self._json("POST", "/detokenize", {"tokens": kept})["content"]) if kept else ""

    def generate(
        self, tokens: Sequence[int], options: TextOptions, cancel: threading.Event | None = None
    ) -> Iterator[Token]:
        """See `TextSession`."""
        if self._is_closed:
            raise UsageError("the session is closed", "open the server again")
        prompt = list(tokens)
        self._check(prompt)
        seed = drawn_seed(options)
        return self._tokens(prompt, _request(prompt, options, seed), seed, cancel)

    def logits(self, tokens: Sequence[int]) -> Array:
        """The server gives no scores: UsageError."""
        raise _not_over_http(f"scores of {len(tokens)} tokens")

    def save_state(self, path: str) -> None:
        """The server keeps what it has read to itself: UsageError."""
        raise _not_over_http(f"the state for {path}")

    def load_state(self, path: str) -> list[int]:
        """The server keeps what it has read to itself: UsageError."""
        raise _not_over_http(f"the state in {path}")

    def close(self) -> None:
        """Leave the server; continuations under way end as cancelled."""
        self._is_closed = True
        for connection in list(self._open):
            _hang_up(connection)

    def __enter__(self) -> ServerSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tokens(
        self, prompt: list[int], request: Mapping[str, Any], seed: int, cancel: threading.Event | None
    ) -> Iterator[Token]:
        started, first, count = time.perf_counter(), None, 0
        is_only_read = request["n_predict"] == 0  # the server generates one token all the same
        connection = self._connection()
        over = threading.Event()
        if cancel is not None:  # the server stops when nobody listens any more, also while it reads the prompt
            threading.Thread(target=_watch, args=(cancel, over, connection), daemon=True).start()
        try:
            for part in self._heard(connection, request, cancel):
                if cancel is not None and cancel.is_set():
                    break  # what was made ahead of us is left out
                if first is None:
                    first = time.perf_counter()
                if part.get("stop"):
                    finish = _finish(part, prompt, count, started, first, seed)
                    if is_only_read:
                        yield Token(None, "", replace(finish, reason="length", tokens=0, generate_s=0.0))
                    else:
                        yield Token(None, str(part.get("content", "")), finish)
                    return
                if is_only_read:
                    continue
                # Several together where a character has several bytes.
                ids = part.get("tokens") or [None]
                count += len(ids)
                yield from (Token(one, "") for one in ids[:-1])
                yield Token(ids[-1], str(part.get("content", "")))
            if not self._has_left(cancel):
                raise HostError(f"{self._parts.netloc} ended its answer in the middle", "see what the server printed")
            yield Token(None, "", _finish({}, prompt, count, started, first or time.perf_counter(), seed))
        finally:
            over.set()
            self._leave(connection)

    def _heard(
        self, connection: http.client.HTTPConnection, request: Mapping[str, Any], cancel: threading.Event | None
    ) -> Iterator[Mapping[str, Any]]:
        """The parts of an answer; none where we have left before there was one."""
        try:
            response = self._answer(connection, "POST", "/completion", request, _READING_TIMEOUT_S)
        except HostError:
            if self._has_left(cancel):
                return
            raise
        yield from _events(response)

    def _has_left(self, cancel: threading.Event | None) -> bool:
        return self._is_closed or (cancel is not None and cancel.is_set())

    def _facts(self) -> ModelFacts:
        props = self._json("GET", "/props")
        model = self._json("GET", "/v1/models")["data"][0]
        meta: Mapping[str, Any] = model.get("meta") or {}
        begin = self.tokenize("", begin=True)
        template = props.get("chat_template") or None
        eos = self.tokenize(str(props.get("eos_token") or ""), special=True)
        return ModelFacts(
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
            raise InputError("there is nothing to continue", "give one token or more")
        wrong = next((token for token in tokens if not 0 <= token < self.facts.vocabulary), None)
        if wrong is not None:
            raise InputError(f"the model has no token {wrong}", f"its tokens are 0 to {self.facts.vocabulary - 1}")
        if len(tokens) > self.facts.context:
            message = f"the prompt has {len(tokens)} tokens, and the context {self.facts.context}"
            raise InputError(message, "shorten it, or start the server with more context")

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        connection = self._connection()
        try:
            return json.loads(self._answer(connection, method, path, body, _TIMEOUT_S).read(_LONGEST_ANSWER))
        except (ValueError, OSError, http.client.HTTPException) as error:
            raise HostError(f"{self._parts.netloc} answers what is no JSON: {first_line(error)}", _HINT) from None
        finally:
            self._leave(connection)

    def _connection(self) -> http.client.HTTPConnection:
        """One that is not connected yet, so that who watches can hang it up; `_leave` ends it."""
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
        body: Mapping[str, Any] | None,
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


def _request(prompt: list[int], options: TextOptions, seed: int) -> dict[str, Any]:
    asked: dict[str, Any] = {
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
    if options.grammar is not None:
        asked["grammar"] = options.grammar
    if options.json_schema is not None:
        try:
            asked["json_schema"] = json.loads(options.json_schema)
        except ValueError as error:
            raise InputError(f"the JSON schema is no JSON: {first_line(error)}", "give a JSON schema") from None
    return asked


def _events(response: http.client.HTTPResponse) -> Iterator[Mapping[str, Any]]:
    """The objects of a stream of server-sent events; its end, or a line that was hung up on, ends them."""
    while True:
        try:
            line = response.readline(_LONGEST_LINE)
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            return  # hung up; http.client closes its file under the reader
        if not line:
            return
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            part = json.loads(line[6:])
            yield part
        elif line.startswith(b"error: "):
            raise EngineError(f"the server failed: {_message(line[7:])}", "see what the server printed")


def _finish(part: Mapping[str, Any], prompt: list[int], count: int, started: float, first: float, seed: int) -> Finish:
    timings: Mapping[str, Any] = part.get("timings") or {}
    reason = _REASONS.get(str(part.get("stop_type")), "stop") if part else "cancelled"
    if reason == "length" and part.get("truncated"):
        reason = "context"
    return Finish(
        reason,
        prompt_tokens=len(prompt),
        reused_tokens=int(timings.get("cache_n", 0)),
        prompt_s=first - started,
        tokens=int(part.get("tokens_predicted", count)),
        generate_s=time.perf_counter() - first,
        seed=seed,
    )


def _refusal(where: str, response: http.client.HTTPResponse) -> Exception:
    message = _message(response.read(_LONGEST_LINE))
    if response.status in (401, 403):
        return HostError(f"{where} wants an API key", "put it into the environment variable EDGE_API_KEY")
    if response.status == 400:
        return InputError(f"{where} refuses the request: {message}", "change what is asked for")
    return HostError(f"{where} answers with status {response.status}: {message}", _HINT)


def _message(content: bytes) -> str:
    with suppress(ValueError, KeyError, TypeError):
        found = json.loads(content)
        return str(found.get("error", found).get("message", found))[:300]
    return content.decode("utf-8", "replace").strip()[:300] or "nothing"


def _has_usable_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:  # no number, or beyond 65535
        return False


def _watch(cancel: threading.Event, over: threading.Event, connection: http.client.HTTPConnection) -> None:
    while not over.is_set():
        if cancel.wait(0.5):
            _hang_up(connection)  # once more, as long as it was not connected yet
            over.wait(0.1)


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """From any thread: who reads from it sees its end."""
    line = connection.sock
    if line is not None:
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
