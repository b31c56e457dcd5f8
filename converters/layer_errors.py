"""Find the layers that cause the loss of int8, by the noise that each adds to the values inside the network.

The noise of a tensor is the power of its error over the power of its variation. Feature maps are evaluated per channel:
with one scale for a whole map, a strong channel drowns the others, which an overall figure would hide. The noise of a
layer is that of its output beyond that of its noisiest input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from runtimes.arrays import Array, Arrays

SAMPLES = 8  # enough for a stable ranking; all values inside two networks are held in memory for each
_NAMED = 5  # in an error message
_MENTIONED_SHARE = 0.1  # share of the worst layer's noise below which a layer is not mentioned
_MAX_KEPT_SHARE = 0.5  # of all layers: beyond that, the result is no longer an int8 model


@dataclass(frozen=True)
class GraphNode:
    """An operation of the float network: the names of its input tensors and of its output tensor."""

    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """The noise that a layer adds.

    name: The name of its output.
    noise: 0 (none) to 1 (the output is lost).
    touching: All layers to keep in higher precision for that tensor to stay exact: those that write and read it, and
        those that a quantizer fuses with the writer.
    """

    name: str
    noise: float
    touching: tuple[str, ...]


def rank(
    nodes: Sequence[GraphNode], exact: Arrays, given: Arrays, channels: int, rounded: Set[str] | None = None
) -> list[LayerError]:
    """Rank the layers, worst first.

    nodes: In the order of computation.
    exact, given: The known tensors of the float and of the quantized network, [n, *shape], by the float network's
        names. An unknown tensor passes on the noise of its inputs.
    channels: The channel axis of four-dimensional shapes.
    rounded: The tensors that the quantized network rounds; None: all of them.
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
        layers.append(
            LayerError(name=node.output, noise=max(0.0, noise[node.output] - before), touching=(*together, *readers))
        )
    return sorted(layers, key=lambda layer: -layer.noise)


def growing_sets(layers: Sequence[LayerError]) -> Iterator[tuple[str, ...]]:
    """Yield growing sets of layers to keep: around the worst tensor, the worst two, four, and so on."""
    count = 1
    while count <= max(1, int(len(layers) * _MAX_KEPT_SHARE)) and layers:
        touched = dict.fromkeys(name for layer in layers[:count] for name in layer.touching)
        yield tuple(touched)
        count *= 2


def describe_layers(layers: Sequence[LayerError]) -> str:
    """Describe the worst layers: `conv1 (93 % noise), conv2 (40 % noise)`."""
    worst = [
        layer for layer in layers[:_NAMED] if layer.noise > 0 and layer.noise >= _MENTIONED_SHARE * layers[0].noise
    ]
    return ", ".join(f"{short_name(layer.name)} ({100 * layer.noise:.2g} % noise)" for layer in worst)


def short_name(name: str) -> str:
    """Return a layer's name without the names of layers that a converter merged into it."""
    return name.split(";")[0]


def stack_rows(rows: Sequence[Arrays]) -> Arrays:
    """Stack the tensors of single samples to float32 [n, *shape]; non-float tensors are dropped."""
    kept = [name for name, value in rows[0].items() if value.dtype.kind == "f"]
    return {name: np.stack([row[name] for row in rows]).astype(np.float32) for name in kept}


def _together(node: GraphNode, writers: Mapping[str, GraphNode], rounded: Set[str]) -> list[str]:
    """Return the node and its predecessors whose outputs are not rounded, such as a convolution before its ReLU."""
    found, waiting = [], [node]
    while waiting:
        one = waiting.pop()
        found.append(one.output)
        waiting += [writers[name] for name in one.inputs if name in writers and name not in rounded]
    return found


def _noise(exact: Array, given: Array, channels: int) -> float:
    """Return the mean over all varying channels of error over signal, each at most 1; 1 if the sizes differ."""
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
    """Reshape a feature map [n, 1, ...] to [channels, values]; anything else is one channel."""
    if stack.ndim != 5:
        return stack.reshape(1, -1).astype(np.float64)
    return np.moveaxis(stack, channels + 1, 0).reshape(stack.shape[channels + 1], -1).astype(np.float64)
