"""Tensors: the outputs of any model by name, without interpretation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Mapping

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject
from runtimes.model_files.facts import ModelFacts
from runtimes.task import Agreement, Decoder, Result, Task

# Share of the expected output's range: a quantized model may be off by a few of its 255 steps.
_MAX_DIFFERENCE = 1 / 32


@dataclass(frozen=True, eq=False)  # comparing arrays does not give a bool
class Tensors(Result):
    """The outputs of one inference, in the model's order and its own dtypes."""

    arrays: Mapping[str, Array]

    def to_json(self) -> JsonObject:
        """Return {name: {"shape", "dtype", "min", "max", "mean"}} over finite values; null if there are none.

        "not_finite" counts NaN and infinity, if there are any.
        """
        return {name: summary(array) for name, array in self.arrays.items()}


@dataclass(frozen=True)
class AnyOutputs(Decoder[Tensors]):
    """Returns every output unchanged."""

    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> AnyOutputs:
        """Accept every model."""
        del model
        return cls()

    def decode(self, outputs: Mapping[str, Array]) -> Tensors:
        """Return the outputs by name."""
        return Tensors(dict(outputs))


class TensorsTask(Task[Tensors]):
    """Returns the outputs of a model whose task is not known."""

    id: ClassVar[str] = "tensors"
    rank: ClassVar[int] = 100  # the fallback when no other task recognizes the model
    decoders = (AnyOutputs,)

    def compare(self, expected: Tensors, actual: Tensors) -> Agreement:
        """Results agree with equal names, shapes, dtypes and integers, and floats within 1/32 of the output's range."""
        if set(expected.arrays) != set(actual.arrays):
            names = " and ".join(", ".join(sorted(one.arrays)) or "none" for one in (expected, actual))
            return Agreement(agrees=False, message=f"the outputs have different names: {names}")
        worst, message = 0.0, "all outputs agree"
        for name, wanted in expected.arrays.items():
            found = actual.arrays[name]
            if (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
                kinds = " and ".join(f"{one.dtype.name}{list(one.shape)}" for one in (wanted, found))
                return Agreement(agrees=False, message=f"'{name}' is {kinds}")
            off = _difference(wanted, found)
            if off > worst:
                worst, message = off, f"'{name}' differs by {off:.4g} of its range"
        return Agreement(worst <= _MAX_DIFFERENCE, {"relative_difference": worst}, message)


def summary(array: Array) -> JsonObject:
    """Convert one output for `Tensors.to_json`."""
    facts: JsonObject = {"shape": list(array.shape), "dtype": array.dtype.name}
    real = array.reshape(-1) if array.dtype.kind in "fiub" else np.empty(0)
    finite = real[np.isfinite(real)]
    if finite.size:
        facts.update(min=finite.min().item(), max=finite.max().item(), mean=float(finite.mean(dtype=np.float64)))
    else:
        facts.update(min=None, max=None, mean=None)
    if finite.size < real.size:
        facts["not_finite"] = int(real.size - finite.size)
    return facts


def _difference(wanted: Array, found: Array) -> float:
    """Return the largest difference as a share of the expected range; infinite if only one of two values is NaN."""
    if wanted.dtype.kind not in "fiu" or not wanted.size:
        return 0.0 if np.array_equal(wanted, found) else float("inf")
    one, other = wanted.astype(np.float64), found.astype(np.float64)
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return float("inf")
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    off, span = np.abs(one[finite] - other[finite]).max(), np.ptp(one[finite])
    scale = span if span > 0 else max(1.0, float(np.abs(one[finite]).max()))
    return float(off / scale)
