"""Verify a language model on this machine: compare its scores of a stored text with those of its source."""

from __future__ import annotations

from runtimes.arrays import Array
from runtimes.artifact import Artifact
from runtimes.artifact.manifest import REWRITE
from runtimes.errors import InputError
from runtimes.jobs import VerifyAnswer
from runtimes.llm.session import LoadOptions
from runtimes.registry import text_engine
from runtimes.verification.selfcheck import judge

# Arrays of selfcheck.npz. Inputs: `tokens` int32 [1, length] and `last`, how many of its positions are compared.
# Outputs: `scores` float32 [last, vocabulary], of the next token after each of these positions.
TOKENS, LAST, SCORES = "tokens", "last", "scores"


def verify_text(artifact: Artifact, wanted: str | None) -> VerifyAnswer:
    """Score the stored text with this engine, and compare. Raises InputError if there is no self-check."""
    rule = artifact.manifest.selfcheck
    if rule is None:
        raise InputError(f"{artifact.model} has no self-check", REWRITE)
    inputs, expected = artifact.selfcheck()
    if set(inputs) != {TOKENS, LAST} or set(expected) != {SCORES} or inputs[TOKENS].ndim != 2 or not inputs[LAST].size:
        raise InputError(f"the self-check of {artifact.path} is not one of a language model", REWRITE)
    engine = text_engine(str(artifact.model), wanted)
    tokens = [int(token) for token in inputs[TOKENS][0]]
    with engine.open_text(str(artifact.model), LoadOptions(context=len(tokens) + 8, kv_type="f32")) as session:
        scores = scores_of(session.logits(tokens), int(inputs[LAST][0]))
    verdict = judge(rule, expected, {SCORES: scores})
    return VerifyAnswer(
        passed=verdict.passed,
        metrics=verdict.metrics,
        message=verdict.message,
        runtime=engine.id,
        runtime_version=engine.version(),
    )


def scores_of(scores: Array, last: int) -> Array:
    """Return the last rows of scores [length, vocabulary]."""
    return scores[-max(last, 1) :]
