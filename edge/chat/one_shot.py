"""One question, one answer: on stdout alone, for pipes and scripts."""

from __future__ import annotations

import json
import sys
from typing import Any

from edge.chat.conversation import Answered, Conversation, Dropped, Reading, Text
from edge.chat.interrupt import stops_answer
from edge.chat.terminal import CUT_OFF, dropped_line
from edge.progress import Progress
from edge.terminal import readable

_STOPPED = 130  # what a shell calls "ended by Ctrl+C"


def answer_once(conversation: Conversation, prompt: str, *, as_json: bool) -> int:
    """Ask, and print the answer as it comes, or one JSON object at its end; the exit status.

    On a terminal the answer is made harmless; in a pipe it is what the model wrote.
    """
    conversation.ask(prompt)
    pieces: list[str] = []
    notes: list[str] = []
    answered: Answered | None = None
    with stops_answer() as cancel:
        bar: Progress | None = None
        for happening in conversation.answer(cancel):
            if isinstance(happening, Reading):
                bar = bar or Progress(happening.total, "reading", quiet=True)
                bar.note(f"{happening.done} of {happening.total} tokens")
                continue
            if bar is not None:
                bar.__exit__()
                bar = None
            if isinstance(happening, Text):
                pieces.append(happening.text)
                if not as_json:
                    _write(happening.text)
            elif isinstance(happening, Dropped):
                notes.append(dropped_line(happening))
                print(f"edge: {notes[-1]}", file=sys.stderr)
            else:
                answered = happening
    assert answered is not None
    if answered.reason == "context":
        notes.append(CUT_OFF)
        print(f"\nedge: {CUT_OFF}", file=sys.stderr)
    text = "".join(pieces)
    if as_json:
        print(json.dumps(_as_dict(conversation, answered, text, notes), ensure_ascii=False, indent=2))
    elif not text.endswith("\n"):
        _write("\n")
    return _STOPPED if answered.reason == "cancelled" else 0


def _write(text: str) -> None:
    sys.stdout.write(readable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def _as_dict(conversation: Conversation, answered: Answered, text: str, notes: list[str]) -> dict[str, Any]:
    facts = conversation.session.facts
    return {
        "model": facts.name,
        "template": conversation.template.name,
        "answer": text,
        "finish": answered.reason,
        "prompt_tokens": answered.new_tokens + answered.reused_tokens,
        "tokens": answered.tokens,
        "tokens_per_s": round(answered.rate, 2),
        "first_token_ms": round(answered.first_s * 1000, 1),
        "seed": answered.seed,
        "threads": facts.threads,
        "notes": notes,
    }
