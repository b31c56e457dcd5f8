"""Which layers lose what int8 costs? The noise that each adds, read from the values inside both networks.

The noise of a tensor is the power of its error over the power of what changes in it. Feature maps are judged channel
by channel: where one scale serves a whole map, a strong channel drowns the others, which a figure for all of it
together would not show. A layer is to blame for the noise in its output beyond the worst of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from runtimes.arrays import Array, Arrays

if TYPE_CHECKING:
    from converters.calibration import Calibration
    from converters.steps import StepOptions

SAMPLES = 8  # the order of the layers has settled by then; all values inside two networks are held for each
_NAMED = 5  # in an error message
_TOLD = 0.1  # of the worst layer's noise: what adds less is not worth a word
_MOST_KEPT = 0.5  # of all layers: beyond, the result is no int8 model any more


@dataclass(frozen=True)
class Node:
    """One operation of the float network: the names of the tensors that it reads, and of the one that it writes."""

    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Layer:
    """What one layer adds: `noise` 0 (nothing) to 1 (its output is lost).

    `name` is its output's. `touching` are all layers that have to be kept in higher precision for that tensor to stay
    exact: those that write and read it, and those that a quantiser takes together with the one that writes it.
    """

    name: str
    noise: float
    touching: tuple[str, ...]


@runtime_checkable
class KeepsLayers(Protocol):
    """A step that tells which layers lose what, and leaves those in `StepOptions.keep` in higher precision."""

    def layer_errors(self, model: Path, result: Path, options: StepOptions, samples: Calibration) -> list[Layer]:
        """What each layer of `model` adds in the quantised `result`, the worst first; samples as to calibrate with."""


def rank(
    nodes: Sequence[Node], exact: Arrays, given: Arrays, channels: int, rounded: Set[str] | None = None
) -> list[Layer]:
    """The layers, the worst first; `nodes` in the order of computation.

    `exact` and `given` hold the tensors of the float and of the quantised network by the float one's names,
    [n, *shape], as far as they are known; a tensor that is not known hands the noise of its inputs on. `channels` is
    the axis of `shape` that counts channels where it has four. `rounded` are the tensors that the quantised network
    rounds; None: all of them.
    """
    noise: dict[str, float] = {}
    writers = {node.output: node for node in nodes}
    layers = []
    for node in nodes:
        before = max((noise.get(name, 0.0) for name in node.inputs), default=0.0)
        if node.output not in exact or node.output not in given:
            noise[node.output] = before
            continue
        noise[node.output] = _noise(exact[node.output], given[node.output], channels)
        readers = [other.output for other in nodes if node.output in other.inputs]
        together = _together(node, writers, set(writers) if rounded is None else rounded)
        layers.append(Layer(node.output, max(0.0, noise[node.output] - before), (*together, *readers)))
    return sorted(layers, key=lambda layer: -layer.noise)


def growing(layers: Sequence[Layer]) -> Iterator[tuple[str, ...]]:
    """Layers to keep, more in each round: around the worst tensor, the worst two, four, and so on."""
    count = 1
    while count <= max(1, int(len(layers) * _MOST_KEPT)) and layers:
        touched = dict.fromkeys(name for layer in layers[:count] for name in layer.touching)
        yield tuple(touched)
        count *= 2


def named(layers: Sequence[Layer]) -> str:
    """The worst layers in words: `conv1 (93 % noise), conv2 (40 % noise)`."""
    worst = [layer for layer in layers[:_NAMED] if layer.noise > 0 and layer.noise >= _TOLD * layers[0].noise]
    return ", ".join(f"{short(layer.name)} ({100 * layer.noise:.2g} % noise)" for layer in worst)


def short(name: str) -> str:
    """A layer's name without those of the layers that a converter merged into it."""
    return name.split(";")[0]


def stacked(rows: Sequence[Arrays]) -> Arrays:
    """Tensors of one sample each as tensors of all, float32 [n, *shape]; those that are no floats are left out."""
    kept = [name for name, value in rows[0].items() if value.dtype.kind == "f"]
    return {name: np.stack([row[name] for row in rows]).astype(np.float32) for name in kept}


def _together(node: Node, writers: Mapping[str, Node], rounded: Set[str]) -> list[str]:
    """The node and those before it whose outputs are not rounded, as of a convolution before its ReLU."""
    found, waiting = [], [node]
    while waiting:
        one = waiting.pop()
        found.append(one.output)
        waiting += [writers[name] for name in one.inputs if name in writers and name not in rounded]
    return found


def _noise(exact: Array, given: Array, channels: int) -> float:
    """The mean over the channels that change at all of error over signal, each at most 1; lost where sizes differ."""
    if exact.size != given.size:
        return 1.0
    expected, values = _by_channel(exact, channels), _by_channel(given.reshape(exact.shape), channels)
    signal = expected.var(axis=1)
    alive = signal > 0
    if not alive.any():
        return 0.0
    error = np.square(values - expected).mean(axis=1)
    return float(np.minimum(error[alive] / signal[alive], 1.0).mean())


def _by_channel(stack: Array, channels: int) -> Array:
    """[channels, values] of a feature map [n, 1, ...]; anything else is one channel."""
    if stack.ndim != 5:
        return stack.reshape(1, -1).astype(np.float64)
    return np.moveaxis(stack, channels + 1, 0).reshape(stack.shape[channels + 1], -1).astype(np.float64)
