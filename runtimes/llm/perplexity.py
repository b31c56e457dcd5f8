"""Compare two language models on a text as llama.cpp's llama-perplexity does: perplexity, and KL divergence."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO, Callable

import numpy as np

from runtimes.arrays import Array
from runtimes.errors import InputError
from runtimes.jobs import Report
from runtimes.llm.session import LoadOptions, TextSession
from runtimes.quantization_jobs import PerplexityAnswer, UncertainValue
from runtimes.registry import text_engine

WINDOW = 512  # tokens evaluated at a time; only the second half is scored, so that every scored token has context
FEWEST = 2 * WINDOW  # llama-perplexity's own limit

_ROWS = 64  # positions whose scores are compared at a time
_MAX_SPOOL_BYTES = 2**30  # of the first model's scores, which the second's are compared with

OnWindow = Callable[[int, int], None]  # windows done, windows in total
OnScores = Callable[[Array], None]  # the scores of the scored tokens of a window, float32 [tokens, vocabulary]


def losses(
    session: TextSession,
    text: str,
    on_window: OnWindow = lambda _done, _total: None,
    on_scores: OnScores = lambda _scores: None,
) -> Array:
    """Return the negative log probability of each scored token, float64 [windows × half a window].

    The same text and tokenizer give the same tokens at the same positions, so two models can be compared token by
    token. Raises InputError for a text that is too short.
    """
    size = min(WINDOW, session.facts.context)
    tokens = session.tokenize(text, special=False, begin=True)
    count = len(tokens) // size
    if len(tokens) < min(FEWEST, 2 * size):
        hint = f"use a text of at least {min(FEWEST, 2 * size)} tokens"
        raise InputError(f"the text has {len(tokens)} tokens, too few for a perplexity", hint)
    parts = []
    for index in range(count):
        window = tokens[index * size : (index + 1) * size]
        if session.facts.adds_bos and session.facts.bos is not None:
            window[0] = session.facts.bos
        scores = session.logits(window)[size // 2 : -1]
        on_scores(scores)
        parts.append(_losses(scores, window[size // 2 + 1 :]))
        on_window(index + 1, count)
    return np.concatenate(parts)


def perplexity(values: Array) -> UncertainValue:
    """Return the exponential of the mean loss, with the propagated standard error of the mean."""
    value = float(np.exp(values.mean()))
    return UncertainValue(value, value * _error(values))


def ratio(before: Array, after: Array) -> UncertainValue:
    """Return the ratio of the perplexities, from the differences per token: its error is much smaller than theirs."""
    value = float(np.exp((after - before).mean()))
    return UncertainValue(value, value * _error(after - before))


def compare_perplexity(before: Path, after: Path, text: Path, wanted: str | None, report: Report) -> PerplexityAnswer:
    """Compute the perplexity of both models on a text file, and report progress in percent."""
    try:
        content = text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{text} cannot be read as text: {error}", "use a UTF-8 file") from None
    by_model = []
    with tempfile.TemporaryFile(prefix="edge-scores-") as spool:
        divergence = _Divergence(spool)
        for index, model in enumerate((before, after)):

            def on_window(done: int, total: int, index: int = index) -> None:
                share = (index + done / total) / 2
                report({"doing": f"{done} of {total} windows", "done": int(100 * share), "total": 100})

            with text_engine(str(model), wanted).open_text(str(model), LoadOptions()) as session:
                by_model.append(losses(session, content, on_window, divergence.compare if index else divergence.keep))
    kl, same = divergence.values()
    return PerplexityAnswer(
        tokens=len(by_model[0]),
        before=perplexity(by_model[0]),
        after=perplexity(by_model[1]),
        ratio=ratio(*by_model),
        kl_divergence=UncertainValue(float(kl.mean()), _error(kl)),
        kl_tokens=len(kl),
        same_top=float(same.mean()),
    )


class _Divergence:
    """The KL divergence of the second model's distributions from the first's, whose scores are in a file meanwhile.

    The file has at most 1 GiB, and half of the free space: in a long text, only the first windows are compared.
    """

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._room = min(_MAX_SPOOL_BYTES, shutil.disk_usage(tempfile.gettempdir()).free // 2)
        self._kept = self._compared = 0  # windows
        self._kl: list[Array] = []
        self._same: list[Array] = []

    def keep(self, scores: Array) -> None:
        """Keep a window of the first model, if there is room."""
        if self._kept and self._spool.tell() + scores.nbytes > self._room:
            self._room = 0  # no later one either
            return
        self._spool.write(np.ascontiguousarray(scores, np.float32).tobytes())
        self._kept += 1

    def compare(self, scores: Array) -> None:
        """Compare the same window of the second model."""
        if self._compared == self._kept:
            return
        if not self._compared:
            self._spool.seek(0)
        self._compared += 1
        for start in range(0, len(scores), _ROWS):
            given = scores[start : start + _ROWS]
            expected = np.frombuffer(self._spool.read(4 * given.size), np.float32).reshape(given.shape)
            before, after = _log_probabilities(expected), _log_probabilities(given)
            self._kl.append((np.exp(before) * (before - after)).sum(axis=1))
            self._same.append(expected.argmax(axis=1) == given.argmax(axis=1))

    def values(self) -> tuple[Array, Array]:
        """Return the divergence of each compared token, and whether both models' best tokens are the same."""
        return np.concatenate(self._kl), np.concatenate(self._same)


def _log_probabilities(scores: Array) -> Array:
    real = scores.astype(np.float64)
    real -= real.max(axis=1, keepdims=True)
    values: Array = real - np.log(np.exp(real).sum(axis=1, keepdims=True))
    return values


def _losses(scores: Array, tokens: list[int]) -> Array:
    real = scores.astype(np.float64)
    highest = real.max(axis=1, keepdims=True)
    total = np.log(np.exp(real - highest).sum(axis=1)) + highest[:, 0]
    values: Array = total - real[np.arange(len(tokens)), tokens]
    return values


def _error(values: Array) -> float:
    return float(values.std() / np.sqrt(max(1, len(values) - 1)))
