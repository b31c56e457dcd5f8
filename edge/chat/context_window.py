"""Fit a conversation into the model's context: keep the system prompt, drop the oldest turns, and report them.

An engine with the capability "shift" moves the cached entries of the kept turns, so that they are not evaluated again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge.llm.chat_template import ChatTemplate, Message
from runtimes.errors import InputError
from runtimes.llm.session import TextSession

_ANSWER_SHARE = 4  # turns are dropped until a quarter of the context is free for the answer
_MIN_ANSWER_TOKENS = 8  # a shorter answer is useless


@dataclass(frozen=True, kw_only=True)
class ContextFit:
    """The part of a conversation that fits the context.

    tokens: The prompt.
    kept: The messages in it.
    dropped: The oldest messages, which did not fit.
    """

    tokens: list[int]
    kept: list[Message]
    dropped: list[Message]


def fit(
    template: ChatTemplate,
    session: TextSession,
    messages: Sequence[Message],
    room: int | None = None,
    values: Mapping[str, bool] | None = None,
) -> ContextFit:
    """Keep as many of the latest turns as leave `room` tokens for the answer (None: a quarter of the context).

    `values` are for templates that read them (`enable_thinking`).

    Leading system messages and the last question are always kept, even if they leave less than `room`.
    Raises InputError if these alone do not fit.
    """
    context = session.facts.context
    room = max(_MIN_ANSWER_TOKENS, context // _ANSWER_SHARE) if room is None else room
    system, turns = split(messages)

    def without(count: int) -> ContextFit:
        dropped = [message for turn in turns[:count] for message in turn]
        kept = [*system, *(message for turn in turns[count:] for message in turn)]
        return ContextFit(tokens=template.tokens(session, kept, **(values or {})), kept=kept, dropped=dropped)

    fitted = _fewest_dropped(without, max(0, len(turns) - 1), context - room)
    if len(fitted.tokens) > context - min(room, _MIN_ANSWER_TOKENS):
        raise InputError(
            f"the last message and the system prompt take {len(fitted.tokens)} tokens; the context holds {context}, "
            "the answer included",
            "shorten them, or raise --context",
        )
    return fitted


def split(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """Return the leading system messages and the turns; a turn is a question and the messages that follow it."""
    first = next((index for index, message in enumerate(messages) if message["role"] != "system"), len(messages))
    turns: list[list[Message]] = []
    for message in messages[first:]:
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return list(messages[:first]), turns


def _fewest_dropped(without: Callable[[int], ContextFit], most: int, limit: int) -> ContextFit:
    """Return `without(n)` for the smallest n up to `most` whose tokens are within the limit, by binary search."""
    fitted = without(0)
    if len(fitted.tokens) <= limit or most == 0:
        return fitted
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if len(without(middle).tokens) <= limit:
            high = middle
        else:
            low = middle + 1
    return without(low)
