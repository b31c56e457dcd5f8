"""One conversation with a model: its messages, and answers as a stream of events.

Independent of the terminal: the chat, the one-shot command and the tests consume the same events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from edge.chat.context_window import ContextFit, fit, split
from edge.chat.thoughts import CONTROL_TOKENS, Piece, ThoughtSplitter
from edge.llm.chat_template import PICTURE_TOKEN, ChatTemplate, Message, Picture, StopTexts
from edge.llm.pictures import load_picture
from runtimes.artifact.json_fields import JsonObject, JsonValue
from runtimes.errors import EdgeError, UsageError
from runtimes.llm.session import Finish, PromptPart, TextOptions, TextSession, Token

_STEP = 256  # prompt tokens between two progress events
_PROMPT_END = 16  # tokens: enough to see whether the template has opened a thought


@dataclass(frozen=True)
class PromptProgress:
    """Progress of a long prompt: `done` of `total` new tokens are evaluated."""

    done: int
    total: int


@dataclass(frozen=True)
class TextDelta:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class ThoughtDelta:
    """A piece of what a reasoning model thinks before it answers."""

    text: str


@dataclass(frozen=True)
class TurnsDropped:
    """The context was full: this many of the oldest turns, or of the first tokens of this answer, were dropped."""

    turns: int = 0
    answer_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class AnswerSummary:
    """The answer is complete; its measurements.

    reason: One of runtimes.llm.session.FINISHES.
    new_tokens: Prompt tokens that had to be evaluated.
    reused_tokens: Prompt tokens that were in the cache.
    prompt_s: Seconds to evaluate the prompt.
    first_s: Seconds from the question to the first token.
    tokens: Tokens of the answer.
    generate_s: Seconds to generate it.
    seed: The seed of the sampling.
    used: Tokens in the context now.
    context: Size of the context in tokens.
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
        """Answer tokens per second; 0 if nothing was measured."""
        return self.tokens / self.generate_s if self.generate_s > 0 else 0.0


ChatEvent = PromptProgress | TextDelta | ThoughtDelta | TurnsDropped | AnswerSummary


@dataclass(kw_only=True)
class Conversation:
    """A conversation and the model that continues it.

    session: The loaded model.
    template: Its chat template.
    options: The sampling options.
    messages: Plain dictionaries, as templates expect them. An answer may have a `thought`, which templates do not get;
        an answer that was cut off has `stopped`, and if it has a thought, `raw`: both with their markers. A question
        may have `pictures`, the paths of their files.
    thinks: Whether a reasoning model may think; None leaves it to the template.
    shifts: Whether an answer that fills the context continues, while the oldest turns or its own start are dropped.
    forgotten: How many of the oldest turns no longer fit the context; they stay in `messages`.
    used: Tokens in the context.
    attached: The pictures that the next question will have, as paths.
    """

    session: TextSession
    template: ChatTemplate
    options: TextOptions
    messages: list[JsonObject] = field(default_factory=list)
    thinks: bool | None = None
    shifts: bool = True
    forgotten: int = 0
    used: int = 0
    attached: list[str] = field(default_factory=list)
    _prompt: list[int] = field(default_factory=list)  # prompt tokens of the last answer
    _answer: list[int] = field(default_factory=list)  # tokens of the last answer
    _answered: JsonObject | None = None  # its message
    _controls: dict[int, str] = field(default_factory=dict)  # token → its text if CONTROL_TOKENS has it, else ""

    @property
    def system(self) -> str:
        """The system prompt; empty if there is none."""
        return next((str(message["content"]) for message in self.messages if message["role"] == "system"), "")

    @system.setter
    def system(self, text: str) -> None:
        rest = [message for message in self.messages if message["role"] != "system"]
        self.messages = [{"role": "system", "content": text}, *rest] if text else rest

    @property
    def can_continue(self) -> bool:
        """Whether the last answer was cut off and can be continued; under a grammar it cannot."""
        return bool(self.messages) and self.messages[-1].get("stopped") is True and not self._is_bound_by_grammar

    @property
    def is_unanswered(self) -> bool:
        """Whether the last message is a question."""
        return bool(self.messages) and self.messages[-1]["role"] == "user"

    @property
    def can_switch_thinking(self) -> bool:
        """Whether the template can be set not to let the model think."""
        return "enable_thinking" in self.template.source

    @property
    def last_thought(self) -> str:
        """What the model thought before its last answer; empty if it did not."""
        answers = [message for message in self.messages if message["role"] == "assistant"]
        return str(answers[-1].get("thought", "")) if answers else ""

    def attach(self, file: Path) -> Picture:
        """Attach a picture to the next question.

        Raises InputError if it cannot be read, and UsageError if the model is open without a picture encoder.
        """
        picture = self._picture(str(file.resolve()))
        self.attached.append(str(file.resolve()))
        return picture

    def ask(self, text: str) -> None:
        """Add a question, with the attached pictures. It replaces a question that was not answered."""
        if self.is_unanswered:
            self.messages.pop()
        pictures: JsonObject = {"pictures": list(self.attached)} if self.attached else {}
        self.messages.append({"role": "user", "content": text, **pictures})
        self.attached = []

    def pop_turn(self) -> str:
        """Remove the last question and its answer, and return the question. Raises UsageError if there is none."""
        turn = self._last_turn()
        self.replace_messages(self.messages[: len(self.messages) - len(turn)])
        return str(turn[0]["content"])

    @property
    def last_pictures(self) -> list[str]:
        """The pictures of the last question. Raises UsageError if there is no question."""
        return _pictures_of(self._last_turn()[0])

    @property
    def last_question(self) -> str:
        """The last question. Raises UsageError if there is none."""
        return str(self._last_turn()[0]["content"])

    def pop_answer(self) -> None:
        """Remove the last answer, so that its question can be answered again. Raises UsageError if there is none."""
        question = dict(self._last_turn()[0])
        self.pop_turn()
        self.messages.append(question)

    def clear(self) -> None:
        """Remove all messages except the system prompt."""
        self.replace_messages(split(self.messages)[0])  # type: ignore[arg-type] # these are the same dictionaries

    def replace_messages(self, messages: Sequence[JsonObject]) -> None:
        """Replace all messages, and count the context that they use."""
        self.messages = list(messages)
        self.forgotten = self.used = 0
        if split(self.messages)[1]:
            with suppress(EdgeError):  # the next question reports the error
                self.used = len(self._fit(self.messages).tokens)

    def answer(self, cancel: Event) -> Iterator[ChatEvent]:
        """Answer the last question. The last event is AnswerSummary; by then the answer is added to the messages.

        An answer that was cancelled or reached its limit is kept as `stopped`; an empty one is not kept.
        Pass a new `cancel` for each answer: a stop text of the template sets it too. `AnswerSummary.reason` says which.
        """
        yield from self._continue(self._fit(self.messages), cancel, "")

    def resume(self, cancel: Event) -> Iterator[ChatEvent]:
        """Continue an answer that was cut off; it is kept if this fails. Raises UsageError if there is none."""
        if not self.can_continue:
            raise UsageError("there is no unfinished answer", "ask something")
        last = self.messages[-1]
        prefix = str(last.get("raw", last["content"]))
        fitted = self._fit(self.messages[:-1])
        is_known = last is self._answered  # otherwise it was loaded from a file
        tokens = self._answer if is_known else self.session.tokenize(prefix, special="raw" in last)
        self.messages.pop()
        yield from self._continue(fitted, cancel, prefix, tokens)

    def _continue(
        self, fitted: ContextFit, cancel: Event, prefix: str, answer: Sequence[int] = ()
    ) -> Iterator[ChatEvent]:
        run = _AnswerInProgress(
            tokens=list(answer), stream=StopTexts(self.template.stops), splitter=self._splitter(fitted.tokens)
        )
        run.add(prefix)
        context = self.session.facts.context
        try:
            if fitted.dropped:
                yield self._forget(fitted)
            while len(fitted.tokens) + len(run.tokens) > context:  # a loaded answer longer than the context
                fitted, dropped = self._make_room(run)
                yield dropped
            yield from self._read_ahead(run, fitted.tokens, cancel)
            while True:
                yield from self._stretch(run, fitted, cancel)
                assert run.finish is not None
                if run.finish.reason != "context" or self._is_bound_by_grammar or not self.shifts:
                    break
                fitted, dropped = self._make_room(run)
                yield dropped
        finally:  # also if the consumer of these events stops early
            self._prompt, self._answer = fitted.tokens[: run.read_to], run.tokens
            self.used = len(fitted.tokens) + len(run.tokens)
            self._keep(run)
        yield run.summary(self.used, context)

    def _splitter(self, prompt: Sequence[int]) -> ThoughtSplitter | None:
        """Return None for a template that only joins texts: everything that such a model writes is its answer."""
        if self.template.is_plain:
            return None
        end = [token for token in prompt[-_PROMPT_END:] if token != PICTURE_TOKEN]
        return ThoughtSplitter(self.session.detokenize(end, special=True))

    @property
    def _is_bound_by_grammar(self) -> bool:
        # A grammar restarts with each call of the engine: the text after a shift would not follow it.
        return self.options.grammar is not None or self.options.json_schema is not None

    def _stretch(self, run: _AnswerInProgress, prompt: ContextFit, cancel: Event) -> Iterator[TextDelta | ThoughtDelta]:
        """Run one generation of the engine to its end."""
        most = self.options.max_tokens
        options = self.options if most is None else replace(self.options, max_tokens=max(0, most - run.generated))
        for token in self._generate(prompt, run.tokens, options, cancel):
            text = token.text or self._control_text(token.id)
            yield from _deltas(run.take(token.id, text))
            if token.finish is not None:
                run.end(token.finish)
            elif run.stream.hit is not None:
                cancel.set()  # the engine does not know the stop texts; its Finish event follows
        yield from _deltas(run.rest())

    def _generate(
        self, prompt: ContextFit, answer: Sequence[int], options: TextOptions, cancel: Event
    ) -> Iterator[Token]:
        if PICTURE_TOKEN not in prompt.tokens:
            return self.session.generate([*prompt.tokens, *answer], options, cancel)
        parts = self.template.parts(self.session, prompt.kept, **self._values)
        if answer:
            parts.append(PromptPart(self.session.detokenize(answer, special=True)))
        return self.session.generate_parts(parts, len(prompt.tokens) + len(answer), options, cancel)

    def _control_text(self, token: int | None) -> str:
        """Return the text of a control token that delimits a thought, which engines leave out; else ""."""
        if token is None or self.template.is_plain:
            return ""
        if token not in self._controls:
            text = self.session.detokenize([token], special=True)
            self._controls[token] = text if text in CONTROL_TOKENS else ""
        return self._controls[token]

    def _read_ahead(self, run: _AnswerInProgress, tokens: Sequence[int], cancel: Event) -> Iterator[PromptProgress]:
        """Evaluate a long prompt step by step, to report progress."""
        known = _common_prefix([*self._prompt, *self._answer], tokens)
        total = len(tokens) - known
        if (
            PICTURE_TOKEN in tokens
            or total < 2 * _STEP
            or (self._prompt and self.forgotten and known < len(self._prompt) // 2)
        ):
            return  # a picture cannot be divided; too short; or the engine shifts its cache, which steps would prevent
        for end in range(known + _STEP, len(tokens), _STEP):
            yield PromptProgress(end - _STEP - known, total)
            for token in self.session.generate(tokens[:end], replace(self.options, max_tokens=0), cancel):
                run.read(token.finish)
            if cancel.is_set():
                run.read_to = end - _STEP
                return

    def _fit(self, messages: Sequence[JsonObject], room: int | None = None) -> ContextFit:
        system, turns = split(messages)
        rest = [message for turn in turns[self.forgotten :] for message in turn]
        plain = [_for_template(message) for message in (*system, *rest)]
        for message in plain:
            for name in _pictures_of(message):
                self._picture(name)
        return fit(self.template, self.session, plain, room, self._values)

    @property
    def _values(self) -> dict[str, bool]:
        return {} if self.thinks is None else {"enable_thinking": self.thinks}

    def _picture(self, name: str) -> Picture:
        """Load the picture `name`, a path, unless it is loaded."""
        known = self.template.pictures
        if name not in known:
            content = load_picture(Path(name))
            known[name] = Picture(content, self.session.picture_tokens(content))
        return known[name]

    def _forget(self, fitted: ContextFit) -> TurnsDropped:
        turns = len(split(fitted.dropped)[1])
        self.forgotten += turns
        return TurnsDropped(turns=turns)

    def _make_room(self, run: _AnswerInProgress) -> tuple[ContextFit, TurnsDropped]:
        """Drop the oldest turns in the middle of an answer, or the start of this answer if no turns are left."""
        context = self.session.facts.context
        fitted = self._fit(self.messages, len(run.tokens) + context // 4)
        if fitted.dropped:
            return fitted, self._forget(fitted)
        keep = max(1, (context - len(fitted.tokens)) // 2)
        dropped_tokens = max(1, len(run.tokens) - keep)
        run.tokens = run.tokens[dropped_tokens:]
        return fitted, TurnsDropped(answer_tokens=dropped_tokens)

    def _keep(self, run: _AnswerInProgress) -> None:
        if not run.raw:
            return
        message: JsonObject = {"role": "assistant", "content": run.text}
        if run.thought:
            message["thought"] = run.thought
        if run.finish is None or run.finish.reason != "stop":
            message["stopped"] = True
            if run.thought:
                message["raw"] = run.raw
        self.messages.append(message)
        self._answered = message

    def _last_turn(self) -> list[Mapping[str, JsonValue]]:
        turns = split(self.messages)[1]
        if not turns or turns[-1][0]["role"] != "user":
            raise UsageError("there is no question yet", "ask something")
        return turns[-1]


@dataclass(kw_only=True)
class _AnswerInProgress:
    """The state of an answer while it is generated.

    tokens: Its tokens in the context.
    raw: Its text as the model wrote it, without what follows a stop text.
    text: The answer in it.
    thought: What the model thought before.
    generated: All tokens of this run, including those dropped from the context.
    """

    tokens: list[int]
    stream: StopTexts
    splitter: ThoughtSplitter | None
    raw: str = ""
    text: str = ""
    thought: str = ""
    generated: int = 0
    finish: Finish | None = None
    first: Finish | None = None
    generate_s: float = 0.0
    ahead_tokens: int = 0
    ahead_s: float = 0.0
    read_to: int | None = None  # where the evaluation of the prompt was cancelled
    began: float = field(default_factory=time.monotonic)
    first_at: float | None = None

    def take(self, token: int | None, text: str) -> list[Piece]:
        if token is not None and self.stream.hit is None:
            self.first_at = self.first_at or time.monotonic()
            self.tokens.append(token)
            self.generated += 1
        return self.add(self.stream.feed(text))

    def add(self, text: str) -> list[Piece]:
        self.raw += text
        if self.splitter is None:
            return self._add_pieces([Piece(text, is_thought=False)] if text else [])
        return self._add_pieces(self.splitter.feed(text))

    def rest(self) -> list[Piece]:
        if self.finish is None or self.finish.reason == "context":
            return []
        pieces = self.add(self.stream.rest())
        return [*pieces, *(self._add_pieces(self.splitter.rest()) if self.splitter else ())]

    def _add_pieces(self, pieces: list[Piece]) -> list[Piece]:
        self.thought += "".join(piece.text for piece in pieces if piece.is_thought)
        self.text += "".join(piece.text for piece in pieces if not piece.is_thought)
        return pieces

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

    def summary(self, used: int, context: int) -> AnswerSummary:
        assert self.finish is not None
        assert self.first is not None
        return AnswerSummary(
            reason=self.finish.reason,
            new_tokens=self.first.prompt_tokens - self.first.reused_tokens + self.ahead_tokens,
            reused_tokens=self.first.reused_tokens - self.ahead_tokens,
            prompt_s=self.first.prompt_s + self.ahead_s,
            first_s=(self.first_at or time.monotonic()) - self.began,
            tokens=self.generated,
            generate_s=self.generate_s,
            seed=self.first.seed,
            used=used,
            context=context,
        )


def _deltas(pieces: Sequence[Piece]) -> Iterator[TextDelta | ThoughtDelta]:
    for piece in pieces:
        yield ThoughtDelta(piece.text) if piece.is_thought else TextDelta(piece.text)


def _for_template(message: Message) -> JsonObject:
    """Return a message without the keys that only this program reads: templates handle thoughts themselves."""
    return {key: value for key, value in message.items() if key not in ("thought", "raw")}


def _pictures_of(message: Message) -> list[str]:
    names = message.get("pictures")
    return [str(name) for name in names] if isinstance(names, list) else []


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))
