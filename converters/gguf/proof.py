"""Is the GGUF file the source? Token ids on texts of many languages, the greedy continuation, and every score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.gguf.model import LanguageModel
from converters.gguf.reference import source_scores
from runtimes.arrays import Array, Arrays
from runtimes.artifact import SelfCheck
from runtimes.errors import ProofError
from runtimes.metrics import compare, meets
from runtimes.text import LoadOptions, TextOptions, TextSession
from runtimes.text_selfcheck import LAST, SCORES, TOKENS, scores_of

LANGUAGES = Path(__file__).with_name("languages.txt")
CONTINUED = 64  # tokens
PROMPTS = ("Once upon a time", "The", "def main():", "1, 2, 3,")
_STORED = 8  # positions of the self-check
# The scores' signal over what differs, in dB. Measured on stories260K, 64 wide, which suffers most: fp32 63, fp16 59,
# q8_0 33, q4_0 12; 0 dB would leave nothing of the source. The 4-bit limits rest on this one model.
LIMITS = {"fp32": 40.0, "fp16": 40.0, "q8_0": 25.0, "q4_0": 8.0, "q4_k_m": 8.0}
# Where both continuations part, the source's two best scores may be this share of its scores' spread apart: rounding.
MARGIN = 0.01
EXACT = ("fp32", "fp16")


@dataclass(frozen=True)
class TextProof:
    """What was compared, and whether it holds; `inputs` and `outputs` are the self-check, `facts` the manifest's."""

    passed: bool
    message: str
    facts: dict[str, Any]
    inputs: Arrays
    outputs: Arrays
    rule: SelfCheck

    def error(self, kept: str) -> ProofError:
        """The error of a proof that failed."""
        hint = f"try --precision fp16; the result is kept in {kept}"
        return ProofError(f"the result does not answer as its source: {self.message}", hint)


def load_options(model: LanguageModel, adapters: dict[str, float] | None = None) -> LoadOptions:
    """As exact as the engine can: the cache in single precision, and room for one text."""
    return LoadOptions(context=min(512, model.network.usable_context), kv_type="f32", adapters=adapters or {})


def prove_text(model: LanguageModel, session: TextSession, precision: str) -> TextProof:
    """Hold `session`, the result, against its source. ProofError at once for other tokens: nothing else counts then."""
    texts = check_tokens(model, session)
    room = session.facts.context
    prompts = [tokens[: room // 2] for tokens in _prompts(model, session)]
    continued = [_continued(session, prompt, room) for prompt in prompts]
    expected, reference = source_scores(model, continued)
    given = [session.logits(tokens) for tokens in continued]
    partings = [
        _parting(tokens, scores, len(prompt))
        for tokens, scores, prompt in zip(continued, expected, prompts, strict=True)
    ]
    metrics = compare(np.concatenate(expected), np.concatenate(given))
    limit = LIMITS[precision]
    failures = (
        [] if meets("snr_db", metrics["snr_db"], limit) else [f"scores are {metrics['snr_db']:.1f} dB, not {limit:g}"]
    )
    if precision in EXACT:
        failures += [parting.text for parting in partings if parting and parting.margin > MARGIN]
    first = min((parting.place for parting in partings if parting), default=None)
    agreed = f"{CONTINUED} tokens" if first is None else f"the first {first} tokens"
    message = "; ".join(failures) or f"greedy equal for {agreed} of {len(continued)} texts"
    facts = {
        "passed": not failures,
        "metrics": {name: float(f"{value:.6g}") for name, value in metrics.items()},
        "limits": {"snr_db": limit, **({"margin": MARGIN} if precision in EXACT else {})},
        "samples": len(continued),
        "inputs": "texts",
        "reference": reference,
        "texts_tokenized": texts,
        "continued": CONTINUED,
        "partings": [parting.as_dict() for parting in partings if parting],
    }
    tokens = np.array(continued[0], np.int32)[None]
    outputs = {SCORES: np.ascontiguousarray(expected[0][-_STORED:], np.float32)}
    rule = SelfCheck("snr_db", _rule(scores_of(given[0], _STORED), outputs[SCORES], limit), "texts")
    return TextProof(not failures, message, facts, {TOKENS: tokens, LAST: np.array([_STORED], np.int32)}, outputs, rule)


def _rule(given: Array, expected: Array, limit: float) -> float:
    """What a device is held to: the precision's limit, or less where these few positions have less here already."""
    here = compare(expected, given)["snr_db"]
    return min(limit, float(np.floor(here - 3)))


def check_tokens(model: LanguageModel, session: TextSession) -> int:
    """How many texts have the same ids; ProofError for the first that has others."""
    whole = LANGUAGES.read_text(encoding="utf-8")
    texts = [*whole.splitlines(), whole]
    for text in texts:
        wanted, found = model.encode(text), session.tokenize(text, special=False)
        if wanted != found:
            raise ProofError(
                f"llama.cpp cuts {text[:40]!r} into other tokens than the source: {_difference(wanted, found)}",
                "the tokenizer is of a kind that llama.cpp does not read the same way; please report it",
            )
    return len(texts)


def _difference(wanted: Sequence[int], found: Sequence[int]) -> str:
    place = next((i for i, pair in enumerate(zip(wanted, found, strict=False)) if pair[0] != pair[1]), None)
    place = min(len(wanted), len(found)) if place is None else place
    return f"at {place}, {list(found[place : place + 4])} for {list(wanted[place : place + 4])}"


def _prompts(model: LanguageModel, session: TextSession) -> list[list[int]]:
    begin = [session.facts.bos] if session.facts.adds_bos and session.facts.bos is not None else []
    return [[*begin, *model.encode(text)] for text in PROMPTS]


def _continued(session: TextSession, prompt: list[int], room: int) -> list[int]:
    options = TextOptions(max_tokens=min(CONTINUED, room - len(prompt)), temperature=0.0, ignore_end=True)
    return [*prompt, *(token.id for token in session.generate(prompt, options) if token.id is not None)]


@dataclass(frozen=True)
class _Parting:
    """Where the source would have gone on with another token, and by what share of its scores' spread."""

    place: int
    margin: float
    text: str

    def as_dict(self) -> dict[str, float]:
        return {"token": self.place, "margin": float(f"{self.margin:.4g}")}


def _parting(tokens: list[int], expected: Array, prompt: int) -> _Parting | None:
    """The first token that the source would not have chosen after the same ones; None where it chose all of them."""
    for place in range(prompt, len(tokens)):
        scores = expected[place - 1]
        best = int(scores.argmax())
        if best != tokens[place]:
            margin = float(scores[best] - scores[tokens[place]]) / max(float(scores.std()), 1e-9)
            text = f"after {place - prompt} tokens the source goes on with {best}, not {tokens[place]}"
            return _Parting(place - prompt, margin, f"{text} (margin {margin:.3g} of the scores' spread)")
    return None
