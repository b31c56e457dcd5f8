"""One continuation on its way through the scheduler, and the slot that it occupies."""

from __future__ import annotations

import codecs
import time
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Union

from runtimes.errors import EdgeError
from runtimes.llm.session import Finish, TextOptions, Token

Event = Union[Token, EdgeError]


@dataclass
class Request:
    """A request and its state; the last of `events` is a Token with `finish`, or an error."""

    prompt: list[int]
    options: TextOptions
    seed: int
    events: SimpleQueue[Event] = field(default_factory=SimpleQueue)
    cancelled: bool = False
    sampler: Any = None
    reused: int = 0
    generated: int = 0
    started: float = field(default_factory=time.perf_counter)
    first_scores: float | None = None
    decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    @property
    def limit(self) -> float:
        """The maximum number of tokens to generate."""
        return float("inf") if self.options.max_tokens is None else self.options.max_tokens

    def give(self, token: int, piece: bytes) -> None:
        """Emit one token with the text that it completes."""
        self.generated += 1
        self.events.put(Token(token, self.decoder.decode(piece)))

    def end(self, reason: str) -> None:
        """Emit the last token, with the measurements."""
        now = time.perf_counter()
        scores = self.first_scores or now
        finish = Finish(
            reason,
            prompt_tokens=len(self.prompt),
            reused_tokens=self.reused,
            prompt_s=scores - self.started,
            tokens=self.generated,
            generate_s=now - scores,
            seed=self.seed,
        )
        self.events.put(Token(None, self.decoder.decode(b"", final=True), finish))


@dataclass
class Slot:
    """One sequence of the context: `tokens` are in its memory, `pending` are to be evaluated next."""

    number: int
    tokens: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    request: Request | None = None

    @property
    def is_reading(self) -> bool:
        """Whether the prompt is still being evaluated, or a single token that continues an answer."""
        return self.request is not None and self.request.first_scores is None
