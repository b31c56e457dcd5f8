"""Soak test: the answer to an input stays the same at later inferences, and after other inputs in between.

Browser engines have failed in exactly this way: correct at the first inference, wrong from the second on
(https://github.com/google-ai-edge/LiteRT/issues/8065). The growth of memory is measured where Linux' /proc and POSIX's
`sysconf` tell it.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact, TensorSpec
from runtimes.session import Session
from runtimes.verification.selfcheck import check_samples, sample_feeds

FEWEST = 3  # inferences, however slow the model is
MAX_S = 0.2  # without `--soak`
_SAMPLES = 4  # different inputs that take turns
_WARM = 100  # inferences after which memory should not grow
_ROUNDING = 1e-5  # of the largest value: several threads may sum in another order
_HALF_ROUNDING = 2e-3  # the same where values have the 11 bits of fp16
_PAGE_BYTES = 4096 if not hasattr(os, "sysconf") else os.sysconf("SC_PAGE_SIZE")

Row = Mapping[str, Array]


@dataclass(frozen=True)
class Soak:
    """What repeated inferences showed.

    inferences: How many were run.
    difference: The first inference that answered differently, as a sentence; "" if there is none.
    memory_growth_bytes: Growth of the process from the 100th inference to the last; None for fewer, or if unknown.
    """

    inferences: int
    difference: str = ""
    memory_growth_bytes: int | None = None


def soak(session: Session, inputs: Arrays, *, count: int = 0, seconds: float = MAX_S, is_half: bool = False) -> Soak:
    """Run a fresh session of a model without state on the samples [n, ...] in turn, and compare repeated answers.

    count: The number of inferences; 0 runs for `seconds`, and `FEWEST` at least.
    is_half: Whether values may be computed in fp16, by other threads each time.
    """
    rows = _rows(session, inputs)
    end = time.monotonic() + seconds
    first: dict[int, Row] = {}
    at: dict[int, int] = {}
    memory: list[int | None] = []
    done = 0
    for place in _turns(len(rows)):
        answer = session.run(rows[place])
        done += 1
        if place not in first:
            first[place], at[place] = answer, done
        difference = _difference(session.outputs, first[place], answer, is_half)
        if difference:
            return Soak(done, f"inference {done} differs from inference {at[place]} on the same input: {difference}")
        if done == _WARM:
            memory.append(_resident())
        if done >= (count or FEWEST) and (count or time.monotonic() >= end):
            break
    return Soak(done, "", _growth(memory) if done > _WARM else None)


def soak_sequence(
    reopen: Callable[[], Session], inputs: Arrays, *, count: int = 0, seconds: float = MAX_S, is_half: bool = False
) -> Soak:
    """Run a model with a state on the samples in order, again from a reset state each time, and compare the answers.

    `reopen` opens a session, the only reset that all engines have.
    """
    end = time.monotonic() + seconds
    first: list[Row] = []
    done = 0
    while done < max(count, 2 * FEWEST) or (not count and time.monotonic() < end):
        with closing(reopen()) as session:
            for place, row in enumerate(_rows(session, inputs)):
                answer = session.run(row)
                done += 1
                if place == len(first):
                    first.append(answer)
                difference = _difference(session.outputs, first[place], answer, is_half)
                if difference:
                    return Soak(done, f"inference {place + 1} after a reset differs from that before it: {difference}")
    return Soak(done)


def soak_artifact(artifact: Artifact, session: Session, reopen: Callable[[], Session], count: int = 0) -> Soak:
    """Run the fresh `session` of an artifact on its stored inputs; `reopen` is for a model with a state."""
    rule = artifact.manifest.selfcheck
    if rule is None:
        return Soak(0)
    inputs, outputs = artifact.selfcheck()
    check_samples(artifact, inputs, outputs)
    is_half = artifact.manifest.precision == "fp16"
    if rule.stateful:
        return soak_sequence(reopen, inputs, count=count, is_half=is_half)
    return soak(session, inputs, count=count, is_half=is_half)


def _turns(samples: int) -> Iterator[int]:
    """Yield the first sample twice, then in turn with the others."""
    others = range(1, min(samples, _SAMPLES))
    return chain((0, 0), cycle([place for other in others for place in (other, 0)] or [0]))


def _rows(session: Session, inputs: Arrays) -> Sequence[Row]:
    return sample_feeds(session, {name: values[:_SAMPLES] for name, values in inputs.items()})


def _difference(outputs: Sequence[TensorSpec], first: Row, again: Row, is_half: bool) -> str:
    """Describe the first output that differs by more than rounding; "" if none does."""
    for spec in outputs:
        before, now = np.asarray(first[spec.name]), np.asarray(again[spec.name])
        if before.shape != now.shape:
            return f"output '{spec.name}' has the shape {list(now.shape)}, not {list(before.shape)}"
        if before is now or np.array_equal(before, now):
            continue
        real, other = before.astype(np.float64), now.astype(np.float64)
        if not np.array_equal(np.isfinite(real), np.isfinite(other)):
            return f"output '{spec.name}' holds values that are not finite"
        apart = np.abs(np.where(np.isfinite(real), other - real, 0.0)).max(initial=0.0)
        if apart > _tolerance(spec, before, is_half):
            return f"output '{spec.name}' by {apart:.3g}"
    return ""


def _tolerance(spec: TensorSpec, values: Array, is_half: bool) -> float:
    if values.dtype.kind != "f":
        return 1.0 if spec.quantization is not None else 0.0
    share = _HALF_ROUNDING if is_half or values.dtype.itemsize == 2 else _ROUNDING
    finite = values[np.isfinite(values)]
    return share * max(1e-6, float(np.abs(finite).max(initial=0.0)))


def _resident() -> int | None:
    """Return the process's resident memory in bytes; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except OSError:
        return None


def _growth(memory: Sequence[int | None]) -> int | None:
    now = _resident()
    return now - memory[0] if memory and memory[0] is not None and now is not None else None
