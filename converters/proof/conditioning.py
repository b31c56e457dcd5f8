"""Measure how far a source's answers move by the rounding of float32 alone, so that a float result is not blamed for
it.

Some networks amplify rounding: after the logarithm of a spectrum that is nearly zero, the last bit of an input moves an
answer in its fourth digit. No two engines agree there, nor does the source with itself when its inputs move by that
bit. (Basic Pitch, synthetic sounds: seven samples move by 2e-6 to 3e-5 and one by 1.7e-4; TensorFlow and LiteRT differ
by 3e-6 to 8e-5, and by 1e-3 in that one.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from converters.calibration.dataset import to_model_dtypes
from runtimes.arrays import Array, Arrays
from runtimes.session import Session
from runtimes.verification.selfcheck import answers

# The inputs are rounded once here, the values inside a network in every layer: factors of 2 to 6 were measured.
_LAYERS = 16
_MOST = 0.005  # of an output's span; a larger difference is never attributed to rounding
_TRIES = 2


def rounding_responses(session: Session, samples: Arrays, expected: Arrays) -> Arrays:
    """Return how far each answer of the source moves, {output: [n]}, when float inputs move by their last bit.

    Empty if no input is float. `expected` are its answers to `samples`, [n, *shape].
    """
    feeds = to_model_dtypes(session.inputs, samples)
    if not any(values.dtype.kind == "f" for values in feeds.values()):
        return {}
    largest = {name: np.zeros(len(values)) for name, values in expected.items()}
    for seed in range(_TRIES):
        moved = answers(session, _nudge(feeds, np.random.default_rng(seed)))
        for name, values in moved.items():
            if values.shape == expected[name].shape:
                change = np.abs(values.astype(np.float64) - expected[name]).reshape(len(values), -1).max(axis=1)
                largest[name] = np.maximum(largest[name], change)
    return largest


def beyond_rounding(expected: Arrays, given: Arrays, responses: Mapping[str, Array]) -> Arrays:
    """Return the result's answers without the differences that rounding explains, sample by sample."""
    return {
        name: _shrunk(expected[name], values, responses[name]) if name in responses else values
        for name, values in given.items()
    }


def describe_rounding(responses: Mapping[str, Array], names: Sequence[str]) -> str:
    """Return a note about the differences that are attributed to rounding."""
    name = max(names, key=lambda one: float(responses[one].max()))
    moved = f"the last bit of an input moves the source's own output '{name}' by up to {responses[name].max():.1e}"
    return f"{moved}: differences of {_LAYERS} times what it moves a sample by were attributed to rounding"


def _nudge(feeds: Arrays, generator: np.random.Generator) -> Arrays:
    """Return the inputs with every nonzero float value moved to its neighbor, up or down."""
    moved = {}
    for name, values in feeds.items():
        moved[name] = values
        if values.dtype.kind == "f":
            towards = np.where(generator.random(values.shape) < 0.5, -np.inf, np.inf).astype(values.dtype)
            moved[name] = np.where(values == 0, values, np.nextafter(values, towards))
    return moved


def _shrunk(expected: Array, given: Array, response: Array) -> Array:
    if expected.dtype.kind != "f" or expected.shape != given.shape or not np.isfinite(expected).all():
        return given
    allowed = np.minimum(_LAYERS * response, _MOST * float(np.ptp(expected)))
    difference = given.astype(np.float64) - expected
    rest = np.sign(difference) * np.maximum(np.abs(difference) - allowed.reshape(-1, *[1] * (given.ndim - 1)), 0)
    return np.asarray(expected + rest)
