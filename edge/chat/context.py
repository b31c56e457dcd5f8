"""Fits a conversation into the model's context: the system prompt stays, the oldest turns go, and it is told.

An engine with the capability "shift" moves what it has read of the kept turns; nothing of them is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.chat.templates import ChatTemplate, Message
from runtimes.errors import InputError
from runtimes.text import TextSession

_ANSWER_SHARE = 4  # a quarter of the context is kept for the answer, before any turn is dropped for it
_LEAST_ROOM = 8  # tokens: less is no answer


@dataclass(frozen=True)
class Fitted:
    """What of a conversation is read: its `tokens`, the messages `kept`, and the oldest, that were `dropped`."""

    tokens: list[int]
    kept: list[Message]
    dropped: list[Message]


def fit(template: ChatTemplate, session: TextSession, messages: Sequence[Message], room: int | None = None) -> Fitted:
    """The longest end of the conversation that leaves `room` tokens for the answer (None: a quarter of the context).

    Leading system messages and the last question are always kept; where these two leave less than `room`, they get
    what there is. InputError where not even they fit.
    """
    context = session.facts.context
    room = max(_LEAST_ROOM, context // _ANSWER_SHARE) if room is None else room
    system, turns = split(messages)

    def without(count: int) -> Fitted:
        dropped = [message for turn in turns[:count] for message in turn]
        kept = [*system, *(message for turn in turns[count:] for message in turn)]
        return Fitted(template.tokens(session, kept), kept, dropped)

    fitted = _fewest_dropped(without, max(0, len(turns) - 1), context - room)
    if len(fitted.tokens) > context - min(room, _LEAST_ROOM):
        raise InputError(
            f"the last message and the system prompt take {len(fitted.tokens)} tokens; the context holds {context}, "
            "the answer included",
            "shorten them, or give more with --context",
        )
    return fitted


def split(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The leading system messages, and the turns: each a question with what follows it."""
    first = next((index for index, message in enumerate(messages) if message["role"] != "system"), len(messages))
    turns: list[list[Message]] = []
    for message in messages[first:]:
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return list(messages[:first]), turns


def _fewest_dropped(without: Callable[[int], Fitted], most: int, limit: int) -> Fitted:
    """`without(n)` for the least n up to `most` whose tokens are within the limit, found by halving."""
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
