"""Format the measurements of answers as text."""

from __future__ import annotations

from collections.abc import Sequence

from edge.chat.conversation import AnswerSummary
from runtimes.llm.session import LlmFacts

_METER = 10  # characters


def format_line(answered: AnswerSummary) -> str:
    """Format the line after an answer: tokens, speed, time to the first token, and how full the context is."""
    parts = [
        _tokens(answered.tokens),
        f"{answered.rate:.1f} tok/s",
        f"first after {_seconds(answered.first_s)}",
        f"context {format_meter(answered.used, answered.context)}",
    ]
    return " · ".join(parts)


def format_meter(used: int, context: int) -> str:
    """Format how full the context is: "████░░░░░░ 812/2048"."""
    filled = min(_METER, -(-_METER * used // max(context, 1)))
    return f"{'█' * filled}{'░' * (_METER - filled)} {used}/{context}"


def as_lines(facts: LlmFacts, answers: Sequence[AnswerSummary], used: int) -> list[str]:
    """Summarize the chat: the model, and the measurements of its answers so far."""
    lines = [
        f"model     {facts.name}, {facts.architecture} {facts.quantization}".rstrip(),
        f"threads   {facts.threads or '?'} for answers, {facts.batch_threads or '?'} for prompts",
        f"context   {format_meter(used, facts.context)}"
        + (f", trained for {facts.trained_context}" if facts.trained_context else ""),
    ]
    if not answers:
        return [*lines, "answers   none yet"]
    last, total_tokens = answers[-1], sum(answer.tokens for answer in answers)
    seconds = sum(answer.generate_s for answer in answers)
    return [
        *lines,
        f"answers   {len(answers)}, {total_tokens} tokens"
        + (f", {total_tokens / seconds:.1f} tok/s" if seconds else ""),
        f"last      {_tokens(last.new_tokens)} read in {_seconds(last.prompt_s)} ({last.reused_tokens} cached), "
        f"first token after {_seconds(last.first_s)}, {_tokens(last.tokens)}, {last.rate:.1f} tok/s, "
        f"seed {last.seed}, ended: {last.reason}",
    ]


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count} tokens"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
