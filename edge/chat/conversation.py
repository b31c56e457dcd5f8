"""One conversation with a model: its messages, and answers as a stream of events.

Nothing here knows a terminal: the chat, the one-shot command and tests read the same events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any

from edge.chat.context import Fitted, fit, split
from edge.chat.stops import StopTexts
from edge.chat.templates import ChatTemplate
from runtimes.errors import EdgeError, UsageError
from runtimes.text import Finish, TextOptions, TextSession

_STEP = 256  # tokens of a prompt between two words about how far it is


@dataclass(frozen=True)
class Reading:
    """How far a long prompt is read: `done` of `total` new tokens."""

    done: int
    total: int


@dataclass(frozen=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Dropped:
    """The context was full: so many of the oldest turns, or tokens of this answer's beginning, left it."""

    turns: int = 0
    answer_tokens: int = 0


@dataclass(frozen=True)
class Answered:
    """The answer is over.

    reason         one of runtimes.text.FINISHES
    new_tokens     tokens of the prompt that had to be read, reused_tokens those that had been read before
    first_s        seconds from the question to the first token
    tokens, generate_s   of the answer
    used, context  tokens in the context now, and how many it holds
    """

    reason: str
    new_tokens: int
    reused_tokens: int
    prompt_s: float
    first_s: float
    tokens: int
    generate_s: float
    seed: int
    used: int
    context: int

    @property
    def rate(self) -> float:
        """Tokens of the answer per second; 0 where there was nothing to measure."""
        return self.tokens / self.generate_s if self.generate_s > 0 else 0.0


Happening = Reading | Text | Dropped | Answered


@dataclass
class Conversation:
    """Messages (plain dictionaries, as templates take them) and how they are continued.

    `forgotten` counts the oldest turns that no longer fit; they stay in `messages`. `used` tokens are in the
    context.
    """

    session: TextSession
    template: ChatTemplate
    options: TextOptions
    messages: list[dict[str, Any]] = field(default_factory=list)
    forgotten: int = 0
    used: int = 0
    _prompt: list[int] = field(default_factory=list)  # the tokens of the last question, as they were read
    _answer: list[int] = field(default_factory=list)  # and of the answer to it,
    _answered: dict[str, Any] | None = None  # which is this message

    @property
    def system(self) -> str:
        """The system prompt; empty for none."""
        return next((str(message["content"]) for message in self.messages if message["role"] == "system"), "")

    @system.setter
    def system(self, text: str) -> None:
        rest = [message for message in self.messages if message["role"] != "system"]
        self.messages = [{"role": "system", "content": text}, *rest] if text else rest

    @property
    def can_go_on(self) -> bool:
        """Whether the last answer was cut off, and the model can go on with it; under a grammar it cannot."""
        return bool(self.messages) and self.messages[-1].get("stopped") is True and not self._is_bound_by_grammar

    @property
    def is_unanswered(self) -> bool:
        """Whether the last message is a question."""
        return bool(self.messages) and self.messages[-1]["role"] == "user"

    def ask(self, text: str) -> None:
        """Add a question; it takes the place of one that was not answered."""
        if self.is_unanswered:
            self.messages.pop()
        self.messages.append({"role": "user", "content": text})

    def take_back(self) -> str:
        """Remove the last question with its answer, and return the question; UsageError where there is none."""
        turn = self._last_turn()
        self.put(self.messages[: len(self.messages) - len(turn)])
        return str(turn[0]["content"])

    @property
    def last_question(self) -> str:
        """What was asked last; UsageError where nothing was."""
        return str(self._last_turn()[0]["content"])

    def take_back_answer(self) -> None:
        """Remove the last answer, so that its question can be answered again; UsageError where there is none."""
        question = self.take_back()
        self.messages.append({"role": "user", "content": question})

    def clear(self) -> None:
        """Forget everything but the system prompt."""
        self.put(split(self.messages)[0])  # type: ignore[arg-type] # they are the same dictionaries

    def put(self, messages: Sequence[dict[str, Any]]) -> None:
        """Have these messages instead, and count what of the context they use."""
        self.messages = list(messages)
        self.forgotten = self.used = 0
        if split(self.messages)[1]:
            with suppress(EdgeError):  # the next question will tell what is wrong
                self.used = len(self._fitted(self.messages).tokens)

    def answer(self, cancel: Event) -> Iterator[Happening]:
        """Answer the last question; the last event is Answered, and the answer is among the messages then.

        An answer that was cancelled or reached its limit is kept as `stopped`; of an empty one nothing is kept.
        `cancel` is for this answer alone: a stop text of the template sets it too. `Answered.reason` tells which.
        """
        yield from self._continued(self._fitted(self.messages), cancel, "")

    def go_on(self, cancel: Event) -> Iterator[Happening]:
        """Go on with an answer that was cut off; UsageError where there is none, and it stays where this fails."""
        if not self.can_go_on:
            raise UsageError("there is no unfinished answer", "ask something")
        begun = str(self.messages[-1]["content"])
        fitted = self._fitted(self.messages[:-1])
        is_known = self.messages[-1] is self._answered
        tokens = self._answer if is_known else self.session.tokenize(begun, special=False)  # it was loaded
        self.messages.pop()
        yield from self._continued(fitted, cancel, begun, tokens)

    def _continued(self, fitted: Fitted, cancel: Event, begun: str, answer: Sequence[int] = ()) -> Iterator[Happening]:
        run = _Run(list(answer), begun, StopTexts(self.template.stops))
        context = self.session.facts.context
        try:
            if fitted.dropped:
                yield self._forget(fitted)
            while len(fitted.tokens) + len(run.tokens) > context:  # an answer that was loaded, and is longer
                fitted, dropped = self._make_room(run)
                yield dropped
            yield from self._read_ahead(run, fitted.tokens, cancel)
            while True:
                yield from self._stretch(run, fitted.tokens, cancel)
                assert run.finish is not None
                if run.finish.reason != "context" or self._is_bound_by_grammar:
                    break
                fitted, dropped = self._make_room(run)
                yield dropped
        finally:  # also where the reader of these events leaves early
            self._prompt, self._answer = fitted.tokens[: run.read_to], run.tokens
            self.used = len(fitted.tokens) + len(run.tokens)
            self._keep(run)
        yield run.summary(self.used, context)

    @property
    def _is_bound_by_grammar(self) -> bool:
        # A grammar begins anew with each call of the engine: what goes on after a shift would not follow it.
        return self.options.grammar is not None or self.options.json_schema is not None

    def _stretch(self, run: _Run, prompt: Sequence[int], cancel: Event) -> Iterator[Text]:
        """Generate until the engine ends, once."""
        most = self.options.max_tokens
        options = self.options if most is None else replace(self.options, max_tokens=max(0, most - run.made))
        for token in self.session.generate([*prompt, *run.tokens], options, cancel):
            if shown := run.take(token.id, token.text):
                yield Text(shown)
            if token.finish is not None:
                run.end(token.finish)
            elif run.stream.hit is not None:
                cancel.set()  # the engine does not know of stop texts; its Finish follows
        if rest := run.rest():
            yield Text(rest)

    def _read_ahead(self, run: _Run, tokens: Sequence[int], cancel: Event) -> Iterator[Reading]:
        """Read a long prompt step by step, so that it can be told how far it is."""
        known = _common([*self._prompt, *self._answer], tokens)
        total = len(tokens) - known
        if total < 2 * _STEP or (self._prompt and self.forgotten and known < len(self._prompt) // 2):
            return  # it takes no time to speak of; or the engine moves what it has read, which steps would spoil
        for end in range(known + _STEP, len(tokens), _STEP):
            yield Reading(end - _STEP - known, total)
            for token in self.session.generate(tokens[:end], replace(self.options, max_tokens=0), cancel):
                run.read(token.finish)
            if cancel.is_set():
                run.read_to = end - _STEP
                return

    def _fitted(self, messages: Sequence[dict[str, Any]], room: int | None = None) -> Fitted:
        system, turns = split(messages)
        rest = [message for turn in turns[self.forgotten :] for message in turn]
        return fit(self.template, self.session, [*system, *rest], room)

    def _forget(self, fitted: Fitted) -> Dropped:
        turns = len(split(fitted.dropped)[1])
        self.forgotten += turns
        return Dropped(turns=turns)

    def _make_room(self, run: _Run) -> tuple[Fitted, Dropped]:
        """Drop the oldest turns in the middle of an answer; where there are none left, this answer's beginning."""
        context = self.session.facts.context
        fitted = self._fitted(self.messages, len(run.tokens) + context // 4)
        if fitted.dropped:
            return fitted, self._forget(fitted)
        keep = max(1, (context - len(fitted.tokens)) // 2)
        gone = max(1, len(run.tokens) - keep)
        run.tokens = run.tokens[gone:]
        return fitted, Dropped(answer_tokens=gone)

    def _keep(self, run: _Run) -> None:
        if not run.text:
            return
        message: dict[str, Any] = {"role": "assistant", "content": run.text}
        if run.finish is None or run.finish.reason != "stop":
            message["stopped"] = True
        self.messages.append(message)
        self._answered = message

    def _last_turn(self) -> list[Mapping[str, Any]]:
        turns = split(self.messages)[1]
        if not turns or turns[-1][0]["role"] != "user":
            raise UsageError("nothing was asked yet", "ask something")
        return turns[-1]


@dataclass
class _Run:
    """What became of an answer so far. `tokens` are those in the context, `made` counts all of this run."""

    tokens: list[int]
    text: str
    stream: StopTexts
    made: int = 0
    finish: Finish | None = None
    first: Finish | None = None
    generate_s: float = 0.0
    ahead_tokens: int = 0
    ahead_s: float = 0.0
    read_to: int | None = None  # where the reading of the prompt was stopped
    began: float = field(default_factory=time.monotonic)
    first_at: float | None = None

    def take(self, token: int | None, text: str) -> str:
        if token is not None and self.stream.hit is None:
            self.first_at = self.first_at or time.monotonic()
            self.tokens.append(token)
            self.made += 1
        shown = self.stream.feed(text)
        self.text += shown
        return shown

    def rest(self) -> str:
        shown = self.stream.rest() if self.finish and self.finish.reason != "context" else ""
        self.text += shown
        return shown

    def end(self, finish: Finish) -> None:
        if self.stream.hit is not None:
            finish = replace(finish, reason="stop")
        self.first = self.first or finish
        self.generate_s += finish.generate_s
        self.finish = finish

    def read(self, finish: Finish | None) -> None:
        if finish is not None:
            self.ahead_tokens += finish.prompt_tokens - finish.reused_tokens
            self.ahead_s += finish.prompt_s

    def summary(self, used: int, context: int) -> Answered:
        assert self.finish is not None
        assert self.first is not None
        return Answered(
            reason=self.finish.reason,
            new_tokens=self.first.prompt_tokens - self.first.reused_tokens + self.ahead_tokens,
            reused_tokens=self.first.reused_tokens - self.ahead_tokens,
            prompt_s=self.first.prompt_s + self.ahead_s,
            first_s=(self.first_at or time.monotonic()) - self.began,
            tokens=self.made,
            generate_s=self.generate_s,
            seed=self.first.seed,
            used=used,
            context=context,
        )


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))
