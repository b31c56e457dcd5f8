"""Prove that a GGUF file computes like its source: compare token ids, greedy continuations and scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.gguf.chat_template import render_chat
from converters.gguf.model_parts import TextModel
from converters.gguf.token_check import check_tokens
from runtimes.arrays import Array, Arrays
from runtimes.artifact import SelfCheck
from runtimes.errors import ProofError
from runtimes.llm.selfcheck import LAST, SCORES, TOKENS, scores_of
from runtimes.llm.session import LoadOptions, TextOptions, TextSession
from runtimes.verification.metrics import compare, meets

if TYPE_CHECKING:
    from runtimes.artifact.json_fields import JsonObject

CONTINUED = 64  # tokens
PROMPTS = ("Once upon a time", "The", "def main():", "1, 2, 3,")
_STORED = 8  # positions of the self-check
# Limits of the scores' signal-to-noise ratio in dB. fp32: 119 to 134 for families with SiLU, and 63 to 69 for GELU,
# which ggml looks up in half precision. The others were measured on stories260K, which is only 64 wide and loses
# most: fp16 59, q8_0 33, q4_0 12; at 0 dB nothing of the source would be left. The 4-bit limits are based on this one
# model. bf16 has the 8 bits of q8_0, and its limit.
LIMITS = {"fp32": 50.0, "fp16": 40.0, "bf16": 25.0, "q8_0": 25.0, "q4_0": 8.0, "q4_k_m": 8.0}
# Where the continuations diverge, the source's two best scores may differ by this share of their spread: rounding.
MARGIN = 0.01
EXACT = ("fp32", "fp16")
_SELFCHECK_DB = 40.0  # lower, because devices compute with flash attention
# What a reference other than transformers on the source's own folder cannot detect.
UNSEEN = {
    "numpy": "the scores were compared with edge's own forward pass, which reads the configuration as the conversion "
    "does, so an error in reading it is not detected. Install the extra gguf-proof to compare with transformers",
    **dict.fromkeys(
        ("numpy for RWKV 6", "numpy for RWKV 7"),
        "the scores were compared with the published equations in numpy, because transformers does not have this model",
    ),
}


@dataclass(frozen=True, kw_only=True)
class TextProof:
    """The result of a proof.

    passed: Whether the result computes like its source.
    message: The reason, or a summary.
    exact: Whether nothing is rounded that could explain a difference.
    facts: The manifest's entry.
    inputs, outputs, rule: The self-check.
    notes: Notes for the user.
    """

    passed: bool
    message: str
    exact: bool
    facts: JsonObject
    inputs: Arrays
    outputs: Arrays
    rule: SelfCheck
    notes: tuple[str, ...] = ()

    def error(self, folder: str) -> ProofError:
        """Return the error of a failed proof; `folder` contains the result."""
        ignored = "llama.cpp ignores or changes a setting of this model's config.json"
        why = ignored if self.exact else "try --precision fp16"
        hint = f"{why}; the result is in {folder}"
        return ProofError(f"the result does not compute like its source: {self.message}", hint)


def load_options(model: TextModel, adapters: dict[str, float] | None = None) -> LoadOptions:
    """Return options for the most exact computation: a single-precision cache, and no flash attention.

    llama.cpp's flash attention on a CPU rounds to half precision: 54 dB instead of 120 without it.
    """
    exact = {"flash_attention": "off"}
    return LoadOptions(context=min(512, model.context), kv_type="f32", adapters=adapters or {}, settings=exact)


def prove_text(model: TextModel, session: TextSession, precision: str) -> TextProof:
    """Compare `session`, the result, with its source. Raises ProofError immediately if it tokenizes differently."""
    source = model.tokenizer
    chat = render_chat(source.template, model.name, source.bos, source.eos) if source.template else None
    checked = check_tokens(source, session, chat)
    notes = _check_template(model, session, chat)
    room = session.facts.context
    prompts = [tokens[: room // 2] for tokens in _prompts(model, session)]
    continued = [_continue(session, prompt, room) for prompt in prompts]
    expected, reference = model.scores(continued)
    # Some converters round the vocabulary up: the source has no scores for the additional tokens.
    given = [session.logits(tokens)[:, : expected[0].shape[1]] for tokens in continued]
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
    notes += [UNSEEN[reference]] if reference in UNSEEN else []
    notes += [f"tokens: {source.difference}"] if checked.different else []
    facts: JsonObject = {
        "passed": not failures,
        "metrics": {name: float(f"{value:.6g}") for name, value in metrics.items()},
        "limits": {"snr_db": limit, **({"margin": MARGIN} if precision in EXACT else {})},
        "samples": len(continued),
        "inputs": "texts",
        "reference": reference,
        "texts_tokenized": checked.texts,
        "tokens": checked.as_dict(),
        "continued": CONTINUED,
        "partings": [parting.as_dict() for parting in partings if parting],
    }
    tokens = np.array(continued[0], np.int32)[None]
    outputs = {SCORES: np.ascontiguousarray(expected[0][-_STORED:], np.float32)}
    rule = SelfCheck("snr_db", _rule(scores_of(given[0], _STORED), outputs[SCORES], limit), "texts")
    inputs = {TOKENS: tokens, LAST: np.array([_STORED], np.int32)}
    exact = precision in EXACT
    return TextProof(
        passed=not failures,
        message=message,
        exact=exact,
        facts=facts,
        inputs=inputs,
        outputs=outputs,
        rule=rule,
        notes=tuple(notes),
    )


def _check_template(model: TextModel, session: TextSession, chat: str | None) -> list[str]:
    """Raise ProofError if the result's chat template renders another chat; return a note if it has none."""
    if chat is None:
        return []
    template = session.facts.template
    if not template:
        return ["the result has no chat template: choose one when chatting (edge chat --template)"]
    if render_chat(template, model.name, model.tokenizer.bos, model.tokenizer.eos) != chat:
        what = "the chat template of the result renders chats differently from the source's"
        raise ProofError(what, "leave it out with --no-template, and choose one when chatting (edge chat --template)")
    return []


def _rule(given: Array, expected: Array, limit: float) -> float:
    """Return the limit for devices: that of the precision, or less if these few positions have less here already."""
    here = compare(expected, given)["snr_db"]
    return min(limit, _SELFCHECK_DB, float(np.floor(here - 3)))


def _prompts(model: TextModel, session: TextSession) -> list[list[int]]:
    begin = [session.facts.bos] if session.facts.adds_bos and session.facts.bos is not None else []
    return [[*begin, *model.tokenizer.encode(text)] for text in PROMPTS]


def _continue(session: TextSession, prompt: list[int], room: int) -> list[int]:
    options = TextOptions(max_tokens=min(CONTINUED, room - len(prompt)), temperature=0.0, ignore_end=True)
    return [*prompt, *(token.id for token in session.generate(prompt, options) if token.id is not None)]


@dataclass(frozen=True, kw_only=True)
class _Parting:
    """A position where the source would have continued differently, and the margin as a share of its scores' spread."""

    place: int
    margin: float
    text: str

    def as_dict(self) -> dict[str, float]:
        return {"token": self.place, "margin": float(f"{self.margin:.4g}")}


def _parting(tokens: list[int], expected: Array, prompt: int) -> _Parting | None:
    """Return the first token that the source would not have chosen after the same tokens; None if there is none."""
    for place in range(prompt, len(tokens)):
        scores = expected[place - 1]
        best = int(scores.argmax())
        if best != tokens[place]:
            margin = float(scores[best] - scores[tokens[place]]) / max(float(scores.std()), 1e-9)
            text = f"after {place - prompt} tokens the source continues with {best}, not {tokens[place]}"
            return _Parting(
                place=place - prompt, margin=margin, text=f"{text} (margin {margin:.3g} of the scores' spread)"
            )
    return None
