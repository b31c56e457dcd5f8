"""Answer a single question on stdout, for pipes and scripts."""

from __future__ import annotations

import json
import sys

from edge.chat.conversation import AnswerSummary, Conversation, PromptProgress, TextDelta, ThoughtDelta, TurnsDropped
from edge.chat.interrupt import stops_answer
from edge.chat.terminal import describe_dropped
from edge.chat.thought_line import ThoughtLine
from edge.console.progress import ProgressBar
from edge.console.text import readable
from runtimes.artifact.json_fields import JsonObject

_CUT_OFF = "the answer is cut off: the context is full (raise --context)"
_STOPPED = 130  # the shell's status of a program ended by Ctrl+C


def answer_once(conversation: Conversation, prompt: str, *, as_json: bool) -> int:
    """Ask, print the answer as it arrives (or one JSON object at its end), and return the exit status.

    On a terminal, control characters of the answer are escaped; a pipe receives exactly the model's answer. Its
    thoughts are only in the JSON object. An answer ends when it fills the context, because nobody may be watching.
    """
    conversation.shifts = False
    conversation.ask(prompt)
    pieces: list[str] = []
    notes: list[str] = []
    answered: AnswerSummary | None = None
    line = ThoughtLine(sys.stderr)
    with stops_answer() as cancel:
        bar: ProgressBar | None = None
        for event in conversation.answer(cancel):
            if isinstance(event, PromptProgress):
                bar = bar or ProgressBar(event.total, "reading", quiet=True)
                bar.note(f"{event.done} of {event.total} tokens")
                continue
            if bar is not None:
                bar.__exit__()
                bar = None
            if isinstance(event, ThoughtDelta):
                line.feed(event.text)
                continue
            line.end()
            if isinstance(event, TextDelta):
                pieces.append(event.text)
                if not as_json:
                    _write(event.text)
            elif isinstance(event, TurnsDropped):
                notes.append(describe_dropped(event))
                print(f"edge: {notes[-1]}", file=sys.stderr)
            else:
                answered = event
    assert answered is not None
    if answered.reason == "context":
        notes.append(_CUT_OFF)
        print(f"\nedge: {_CUT_OFF}", file=sys.stderr)
    text = "".join(pieces)
    if as_json:
        print(json.dumps(_as_dict(conversation, answered, text, notes), ensure_ascii=False, indent=2))
    elif not text.endswith("\n"):
        _write("\n")
    return _STOPPED if answered.reason == "cancelled" else 0


def _write(text: str) -> None:
    sys.stdout.write(readable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def _as_dict(conversation: Conversation, answered: AnswerSummary, text: str, notes: list[str]) -> JsonObject:
    facts = conversation.session.facts
    return {
        "model": facts.name,
        "template": conversation.template.name,
        "thought": conversation.last_thought,
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
