"""The real server with a scripted llama-server: `python scripted_server.py OPTIONS-AS-JSON`.

The last question says what happens:

    say TEXT       the answer is TEXT, word by word
    think TEXT     the thought is TEXT, and the answer "done"
    call NAME      a call of the tool NAME
    request        the answer is the request, as JSON
    count N        the numbers to N
    read S         S seconds of reading the prompt
    die            the engine's process is killed after one word: it closes this connection, and for a moment
                   it still accepts others and closes them, until somebody waits for its end
    pause S        as `count 1000`, S seconds a word
Everything else is answered with itself; an answer that is to be continued with "... and more".
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress

from edge.serve.listening import Key
from edge.serve.proxy import Facts
from edge.serve.served_model import ServedModel
from edge.serve.server import ServeOptions, serve
from edge.serve.template_guard import TemplateGuard
from edge.serve.upstream import Upstream
from runtimes.errors import HostError

META = {
    "context": 4096, "trained_context": 4096, "quantization": "Q4_0", "architecture": "script", "parameters": 1,
    "bytes": 1, "slots": 2,
}  # fmt: skip


class Engine:
    """A llama-server in this process; with `fails_again` it cannot be started a second time."""

    def __init__(self, slots: int, fails_again: bool) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._server: asyncio.Server | None = None
        self._slots = asyncio.Semaphore(slots)
        self._fails_again = fails_again
        self._starts = 0
        self._is_dying = False
        self.upstream = Upstream(f"unix:{self._folder.name}/a.sock", "secret")

    @property
    def restarts(self) -> int:
        return max(self._starts - 1, 0)

    @property
    def is_ready(self) -> bool:
        return self._server is not None

    async def ready(self) -> None:
        if self._server is None:
            if self._fails_again and self._starts:
                raise HostError("there is too little memory", "close other programs")
            self._starts += 1
            self._is_dying = False
            self._server = await asyncio.start_unix_server(self._serve, f"{self._folder.name}/a.sock")

    async def wait_until_ended(self) -> None:
        if self._is_dying and self._server is not None:
            self._server.close()
            self._server = None

    def stop(self) -> None:
        self.upstream.hang_up()

    def close(self) -> None:
        self._folder.cleanup()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_dying:
            writer.transport.abort()
            return
        with suppress(OSError, EOFError):
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(length[1])) if length else b"{}"
        path, answer = head.split(" ")[1], _Answer(writer)
        if path == "/v1/models":
            await answer.whole({"object": "list", "data": [{"id": "x", "object": "model", "created": 0, "meta": {}}]})
        elif path == "/props":
            await answer.whole({"modalities": {"vision": True, "audio": False}})
        elif path not in ("/v1/chat/completions", "/v1/completions"):
            await answer.whole({"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}, 404)
        else:
            leaves = asyncio.ensure_future(reader.read())  # like the real server, it stops when its client disconnects
            works = asyncio.ensure_future(self._speak(path, json.loads(body), answer))
            await asyncio.wait({leaves, works}, return_when=asyncio.FIRST_COMPLETED)
            leaves.cancel()
            works.cancel()
            await asyncio.wait({leaves, works})

    async def _speak(self, path: str, asked: dict, answer: _Answer) -> None:
        question = _question(asked)
        is_chat, most = "messages" in asked, asked.get("max_tokens") or 10_000
        texts, reason = [], "stop"
        async with self._slots:
            if is_chat and asked["messages"][-1]["role"] == "assistant":
                question = f"say {question} and more"  # like llama-server, it sends the beginning again
            if question.startswith("call "):
                function = {"name": question[5:], "arguments": '{"a": 1}'}
                await answer.event(_choice({"tool_calls": [{"index": 0, "id": "c1", "function": function}]}, None))
            if question.startswith("think "):
                await answer.event(_choice({"reasoning_content": question[6:]}, None))
            for word, pause in [(json.dumps(asked), 0.0)] if question == "request" else _words(question):
                await asyncio.sleep(pause)
                if word is None:
                    self._is_dying = True
                    answer.writer.transport.abort()
                    return
                texts.append(word)
                if asked.get("stream"):
                    await answer.event(_choice({"content": word} if is_chat else word, None))
                if len(texts) == most:
                    reason = "length"
                    break
            usage = {"prompt_tokens": 4, "completion_tokens": len(texts), "total_tokens": 4 + len(texts)}
            timings = {"cache_n": 2, "prompt_n": 2, "prompt_ms": 1.5, "predicted_n": len(texts), "predicted_ms": 20.0}
            timings["predicted_per_second"] = 50.0 * len(texts)
            if not asked.get("stream"):
                text = "".join(texts)
                whole = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
                choice = {"index": 0, **whole, "finish_reason": reason}
                await answer.whole({"choices": [choice], "usage": usage, "timings": timings})
                return
            await answer.event({**_choice({} if is_chat else "", reason), "usage": usage, "timings": timings})
            await answer.part(b"data: [DONE]\n\n")
            await answer.part(b"")


class _Answer:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._has_begun = False

    async def whole(self, value: dict, status: int = 200) -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        await self.writer.drain()

    async def event(self, value: dict) -> None:
        await self.part(b"data: " + json.dumps(value).encode() + b"\n\n")

    async def part(self, data: bytes) -> None:
        if not self._has_begun:
            self._has_begun = True
            head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            self.writer.write(head.encode())
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.writer.drain()


def _choice(what: object, reason: str | None) -> dict:
    inner = {"text": what} if isinstance(what, str) else {"delta": what}
    return {"choices": [{"index": 0, **inner, "finish_reason": reason}]}


def _question(asked: dict) -> str:
    """The last paragraph of the last message, or the prompt."""
    content = asked["messages"][-1]["content"] if "messages" in asked else asked["prompt"]
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content or [])
    return text.rpartition("\n\n")[2]


def _words(question: str) -> Iterator[tuple[str | None, float]]:
    """Yield the words of the answer, each with the seconds to wait before it; None ends the engine."""
    verb, _, rest = question.strip().partition(" ")
    if verb == "say":
        yield from ((word, 0.002) for word in re.findall(r"\s*\S+", rest))
    elif verb in ("count", "pause"):
        last, pause = (int(rest), 0.0) if verb == "count" else (1000, float(rest))
        yield from ((f"{number} ", pause) for number in range(1, last + 1))
    elif verb == "call":
        yield from ()
    elif verb == "think":
        yield "done", 0.0
    elif verb == "read":
        yield "done", float(rest)
    elif verb == "die":
        yield "last ", 0.0
        yield None, 0.05
    else:
        yield question, 0.0


def main(given: dict) -> None:
    slots, fails_again = given.pop("slots", 2), given.pop("fails_again", False)
    beat = given.pop("beat_s", None)
    if beat is not None:
        from edge.serve import proxy

        proxy._KEEP_ALIVE_S = beat
    if given.get("key"):
        given["key"] = Key(given["key"], is_new=False)
    lists = {name: tuple(given.pop(name, ())) for name in ("origins", "hosts")}
    facts = Facts(name="scripted", context=4096, slots=slots, quantization="Q4_0", meta={**META, "slots": slots})

    def opener() -> ServedModel:
        return ServedModel(engine=Engine(slots, fails_again), template=TemplateGuard(None), notes=[], _facts=facts)

    options = ServeOptions(**{"name": "scripted", "port": 0, **lists, **given})
    serve(
        opener, options, lambda ready: print(json.dumps({"address": ready.address, "notes": ready.notes}), flush=True)
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # the command line shows the log
    main(json.loads(sys.argv[1]))
