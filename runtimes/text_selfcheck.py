"""Does this language model, opened by this engine on this machine, score a stored text as its source did?"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from runtimes.arrays import Array
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.registry import text_runtime
from runtimes.selfcheck import judge
from runtimes.text import LoadOptions

# Arrays of selfcheck.npz. Inputs: `tokens` int32 [1, length] and `last`, how many of its positions are compared.
# Outputs: `scores` float32 [last, vocabulary], of the next token after each of these positions.
TOKENS, LAST, SCORES = "tokens", "last", "scores"
_REMAKE = "write the artifact again with `edge convert`"


def verify_text(artifact: Artifact, wanted: str | None) -> dict[str, Any]:
    """Answers {"passed", "metrics", "message", "runtime", "runtime_version"}; InputError without a self-check."""
    rule = artifact.manifest.selfcheck
    if rule is None:
        raise InputError(f"{artifact.model} carries no self-check", _REMAKE)
    inputs, expected = artifact.selfcheck()
    if set(inputs) != {TOKENS, LAST} or set(expected) != {SCORES} or inputs[TOKENS].ndim != 2 or not inputs[LAST].size:
        raise InputError(f"{artifact.path} holds a self-check that is none of a language model", _REMAKE)
    engine = text_runtime(str(artifact.model), wanted)
    tokens = [int(token) for token in inputs[TOKENS][0]]
    with closing(engine.open_text(str(artifact.model), LoadOptions(context=len(tokens) + 8, kv_type="f32"))) as session:
        given = scores_of(session.logits(tokens), int(inputs[LAST][0]))
    verdict = judge(rule, expected, {SCORES: given})
    return {
        "passed": verdict.passed,
        "metrics": dict(verdict.metrics),
        "message": verdict.message,
        "runtime": engine.id,
        "runtime_version": engine.version(),
    }


def scores_of(scores: Array, last: int) -> Array:
    """The last rows of scores [length, vocabulary]."""
    return scores[-max(last, 1) :]
