"""A second engine's word: what will run on a device is also run by the engine of that device's age.

The pipeline proves a result with the engine that is here today. Where the device's own is older and reads the same
file in another way, a step hands over a witness (`converters.steps.Made`), and the result has to pass with both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from converters.proof import Proof, prove
from runtimes.arrays import Arrays
from runtimes.selfcheck import merge_worst


@dataclass(frozen=True)
class Testimony:
    """What the other engine answered: real outputs, float32 [n, *shape], in the order asked for; lines to read."""

    engine: str
    answers: Arrays
    notes: tuple[str, ...] = ()


class Witness(Protocol):
    """Runs the result on its engine."""

    def __call__(self, feeds: Arrays, outputs: Sequence[str]) -> Testimony:
        """The answers to `feeds` (as fed to the model, stacked [n, *shape] by input name) of its `outputs`."""


def both(proof: Proof, testimony: Testimony, precision: str, truth: Arrays) -> Proof:
    """The verdict of both engines: passed when both pass, the worse of each metric."""
    given = dict(zip(truth, testimony.answers.values(), strict=True))
    second = prove(precision, truth, given)
    metrics = merge_worst(proof.metrics, second.metrics) if second.metrics else proof.metrics
    failures = [] if proof.passed else [proof.message]
    if not second.passed:
        failures.append(f"on {testimony.engine}, {second.message}")
    return replace(proof, passed=not failures, metrics=metrics, message="; ".join(failures) or proof.message)
