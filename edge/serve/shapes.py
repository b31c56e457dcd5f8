"""What is sent back, in OpenAI's shapes: whole answers, chunks of a stream, the list of models."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from edge.serve.answering import Piece
from runtimes.text import Finish, ModelFacts


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
ALIVE = b": the model is at work\n\n"


class ChatShape:
    """Answers of `/v1/chat/completions`."""

    prefix = "chatcmpl"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def choice(self, text: str, reason: str | None) -> dict[str, Any]:
        """The one choice of a whole answer."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}

    def opening(self) -> dict[str, Any] | None:
        """The choice of a stream's first chunk."""
        return self._delta({"role": "assistant", "content": ""}, None)

    def more(self, text: str, reason: str | None) -> dict[str, Any]:
        """The choice of a chunk with text, or of the one that says why the answer has ended."""
        return self._delta({"content": text} if text or reason is None else {}, reason)

    def _delta(self, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


class TextShape:
    """Answers of `/v1/completions`, whose chunks look like whole answers."""

    prefix = "cmpl"
    whole = chunk = "text_completion"

    def choice(self, text: str, reason: str | None) -> dict[str, Any]:
        """The one choice of an answer or a chunk."""
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}

    def opening(self) -> dict[str, Any] | None:
        """Nothing: these streams begin with their text."""
        return None

    more = choice


Shape = ChatShape | TextShape


class Form:
    """One answer's frame: the same id, time and model in all of its parts."""

    def __init__(self, shape: Shape, model: str) -> None:
        self._shape = shape
        self._frame = {"id": f"{shape.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, text: str, piece: Piece) -> dict[str, Any]:
        """A whole answer; `piece` is its last."""
        assert piece.finish is not None
        choices = [self._shape.choice(text, piece.reason)]
        return {**self._frame, "object": self._shape.whole, "choices": choices, **_costs(piece.finish)}

    def opening(self) -> bytes:
        """What a stream begins with."""
        choice = self._shape.opening()
        return b"" if choice is None else self._chunk([choice])

    def more(self, piece: Piece) -> bytes:
        """The chunks of one piece: its text, and on the last one why the answer has ended."""
        chunks = self._chunk([self._shape.more(piece.text, None)]) if piece.text else b""
        if piece.reason is not None:
            chunks += self._chunk([self._shape.more("", piece.reason)])
        return chunks

    def usage(self, finish: Finish) -> bytes:
        """The chunk of `stream_options.include_usage`, which has no choice."""
        return event({**self._frame, "object": self._shape.chunk, "choices": [], **_costs(finish)})

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return event({**self._frame, "object": self._shape.chunk, "choices": choices})


def _costs(finish: Finish) -> dict[str, Any]:
    """`usage` as OpenAI has it, and `timings` as llama.cpp's server has them."""
    read = finish.prompt_tokens - finish.reused_tokens
    usage = {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.tokens,
        "total_tokens": finish.prompt_tokens + finish.tokens,
        "prompt_tokens_details": {"cached_tokens": finish.reused_tokens},
    }
    timings = {
        "cache_n": finish.reused_tokens,
        "prompt_n": read,
        "prompt_ms": round(finish.prompt_s * 1000, 3),
        "predicted_n": finish.tokens,
        "predicted_ms": round(finish.generate_s * 1000, 3),
        "predicted_per_second": round(per_second(finish), 3),
    }
    return {"usage": usage, "timings": timings}


def per_second(finish: Finish) -> float:
    """Generated tokens per second; 0 where there was nothing to measure."""
    return finish.tokens / finish.generate_s if finish.generate_s > 0 else 0.0


def model_entry(name: str, facts: ModelFacts, created: int) -> dict[str, Any]:
    """The model in `/v1/models`; `meta` is no part of OpenAI's interface."""
    meta = {
        "context": facts.context,
        "trained_context": facts.trained_context,
        "quantization": facts.quantization,
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "bytes": facts.bytes,
        "slots": facts.slots,
    }
    return {"id": name, "object": "model", "created": created, "owned_by": "edge", "meta": meta}
