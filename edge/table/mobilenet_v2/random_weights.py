"""Generate seeded random weights and pictures, for machines without trained weights.

The output of a deep network with plain random weights does not depend on its input, because the signal decays from
layer to layer. Here each convolution is normalized over one batch of generated pictures, as BatchNorm would do. Random
layers also amplify the rounding errors of int8 until they dominate. Weak branches, a positive mean before each ReLU6
and few likely classes keep the network about as robust as a trained one, so that its conversions can be proven.

The same seed gives the same bytes on every machine. The last bits of a matrix product depend on the number of threads,
so the signal is computed in float64, and weights derived from it are rounded (`_round`) far more coarsely.
"""

from __future__ import annotations

import numpy as np

from edge.table.mobilenet_v2.architecture import BLOCKS, FEATURES, HEAD, SIZE, STEM, Block, Layer, classifier
from runtimes.arrays import Array, Arrays

_BATCH = 8
_WAVES = 24
_BRANCH = 0.05  # standard deviation of what a residual block adds
_MEAN = 1.0  # before each ReLU6
_LIKELY = 4  # classes that compete; the others are e^8 times less likely
_SPREAD = 1.2  # standard deviation of the logits between pictures
_BITS = 12  # of the mantissa of a weight that is derived from the signal


def generated_picture(seed: int) -> Array:
    """Generate a picture of colored waves on a plain background, uint8 [224, 224, 3]; each seed gives another one."""
    generator = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.linspace(0, 1, SIZE), np.linspace(0, 1, SIZE), indexing="ij")
    picture = np.zeros((SIZE, SIZE, 3))
    for cycles in np.geomspace(0.5, SIZE / 4, _WAVES):  # fine waves are weaker than coarse ones, as in photographs
        angle, phase = generator.uniform(0, 2 * np.pi, 2)
        wave = np.sin(2 * np.pi * cycles * (np.cos(angle) * columns + np.sin(angle) * rows) + phase)
        picture += wave[..., np.newaxis] * generator.uniform(-1, 1, 3) / np.sqrt(cycles)
    contrast, color = generator.uniform(20, 100), generator.uniform(30, 225, 3)
    levels: Array = np.rint(color + contrast * picture / np.abs(picture).max()).clip(0, 255)
    return levels.astype(np.uint8)


def random_weights(seed: int, classes: int) -> Arrays:
    """Return the tensors of `architecture.tensor_shapes`, float32."""
    generator = np.random.default_rng(seed)
    pictures = np.stack([generated_picture(index) for index in range(_BATCH)])
    signal = (pictures.astype(np.float64) - 127.5) / 127.5
    weights: Arrays = {}
    signal = _layer(STEM, signal, weights, generator)
    for block in BLOCKS:
        signal = _block(block, signal, weights, generator)
    signal = _layer(HEAD, signal, weights, generator)
    _classifier(classes, signal.mean(axis=(1, 2)), weights, generator)
    return weights


def _block(block: Block, signal: Array, weights: Arrays, generator: np.random.Generator) -> Array:
    result = signal
    for layer in block.layers:
        branch_end = block.residual and layer is block.layers[-1]
        result = _layer(layer, result, weights, generator, _BRANCH if branch_end else 1.0)
    return np.add(signal, result) if block.residual else result


def _layer(
    layer: Layer, signal: Array, weights: Arrays, generator: np.random.Generator, deviation: float = 1.0
) -> Array:
    """Draw a layer's weights, scale them so that each output channel has this deviation over the batch, and run it."""
    weight = generator.standard_normal(layer.shape).astype(np.float32)
    result = _convolve(layer, weight, signal)
    factor = _round(deviation / (result.std(axis=(0, 1, 2)) + 1e-3))
    bias = _round((_MEAN if layer.relu6 else 0.0) - result.mean(axis=(0, 1, 2)) * factor)
    weights[f"{layer.name}.weight"] = weight * factor[:, np.newaxis, np.newaxis, np.newaxis]
    weights[f"{layer.name}.bias"] = bias
    normal: Array = result * factor + bias
    return np.clip(normal, 0, 6, out=normal) if layer.relu6 else normal


def _classifier(classes: int, features: Array, weights: Arrays, generator: np.random.Generator) -> None:
    weight = generator.standard_normal((classes, FEATURES)).astype(np.float32)
    center = features.mean(axis=0)
    weight *= _round(_SPREAD / ((features - center) @ weight.T).std())
    bias = _round(-(weight @ center))
    bias[generator.permutation(classes)[_LIKELY:]] -= 8
    weights[f"{classifier(classes).name}.weight"] = weight
    weights[f"{classifier(classes).name}.bias"] = bias


def _round(values: Array) -> Array:
    """Round `values` to float32 numbers with `_BITS` bits of mantissa."""
    mantissa, exponent = np.frexp(values)
    rounded: Array = np.ldexp(np.rint(mantissa * 2**_BITS) / 2**_BITS, exponent)
    return rounded.astype(np.float32)


def _convolve(layer: Layer, weight: Array, signal: Array) -> Array:
    """Convolve [batch, height, width, channels] with TensorFlow's SAME padding, one kernel tap at a time."""
    if layer.shape[-1] == 1:
        product: Array = signal @ weight[:, :, 0, 0].T
        return product
    size, step = signal.shape[1] // layer.stride, layer.stride
    before = 0 if step == 2 else 1  # an even size and stride 2 pad right and bottom only
    padded = np.pad(signal, ((0, 0), (before, 1), (before, 1), (0, 0)))
    total: Array = np.zeros((*signal.shape[:1], size, size, layer.shape[0]))
    for row, column in np.ndindex(3, 3):
        window = padded[:, row : row + step * size : step, column : column + step * size : step]
        tap = weight[:, :, row, column]
        total += window * tap[:, 0] if layer.depthwise else window @ tap.T
    return total
