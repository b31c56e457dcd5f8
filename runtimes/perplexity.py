"""How well a language model foresees a text: perplexity with its error, as llama.cpp's llama-perplexity has it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Mapping

import numpy as np

from runtimes.arrays import Array
from runtimes.errors import InputError
from runtimes.registry import text_runtime
from runtimes.text import LoadOptions, TextSession

WINDOW = 512  # tokens that are read at a time; the second half of each is scored, so that every token has a context
FEWEST = 2 * WINDOW  # llama-perplexity's own limit

OnWindow = Callable[[int, int], None]  # how many are read, of how many


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error."""

    value: float
    error: float


def losses(session: TextSession, text: str, on_window: OnWindow = lambda _done, _total: None) -> Array:
    """Minus the logarithm of the probability of each scored token, float64 [windows × half a window].

    InputError for a text that is too short. The same text and tokenizer give the same tokens in the same places, so
    that two models can be compared token by token.
    """
    size = min(WINDOW, session.facts.context)
    tokens = session.tokenize(text, special=False, begin=True)
    count = len(tokens) // size
    if len(tokens) < min(FEWEST, 2 * size):
        hint = f"give a longer one: {min(FEWEST, 2 * size)} tokens or more"
        raise InputError(f"the text has {len(tokens)} tokens, too few for a perplexity", hint)
    found = []
    for index in range(count):
        window = tokens[index * size : (index + 1) * size]
        if session.facts.adds_bos and session.facts.bos is not None:
            window[0] = session.facts.bos
        found.append(_losses(session.logits(window)[size // 2 : -1], window[size // 2 + 1 :]))
        on_window(index + 1, count)
    return np.concatenate(found)


def perplexity(values: Array) -> Estimate:
    """exp of the mean loss; the error is that of the mean, carried through exp."""
    value = float(np.exp(values.mean()))
    return Estimate(value, value * _error(values))


def ratio(before: Array, after: Array) -> Estimate:
    """Perplexity after over perplexity before, from the differences token by token: much surer than either value."""
    value = float(np.exp((after - before).mean()))
    return Estimate(value, value * _error(after - before))


def compared(
    before: Path, after: Path, text: Path, wanted: str | None, report: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any]:
    """Both models' perplexity on a text file: {"tokens", "before", "after", "ratio"}; progress in percent."""
    try:
        content = text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{text} cannot be read as text: {error}", "give a UTF-8 file") from None
    found = []
    for index, model in enumerate((before, after)):

        def on_window(done: int, total: int, index: int = index) -> None:
            share = (index + done / total) / 2
            report({"doing": f"{done} of {total} windows", "done": int(100 * share), "total": 100})

        with closing(text_runtime(str(model), wanted).open_text(str(model), LoadOptions())) as session:
            found.append(losses(session, content, on_window))
    values = {"before": perplexity(found[0]), "after": perplexity(found[1]), "ratio": ratio(*found)}
    return {"tokens": len(found[0]), **{name: asdict(value) for name, value in values.items()}}


def _losses(scores: Array, wanted: list[int]) -> Array:
    real = scores.astype(np.float64)
    highest = real.max(axis=1, keepdims=True)
    total = np.log(np.exp(real - highest).sum(axis=1)) + highest[:, 0]
    found: Array = total - real[np.arange(len(wanted)), wanted]
    return found


def _error(values: Array) -> float:
    return float(values.std() / np.sqrt(max(1, len(values) - 1)))
