"""MobileNetV2 1.0/224 as data: its layers, their names in a weights file, shapes and strides.

Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SIZE = 224
FEATURES = 1280

# Expansion, output channels, repetitions, stride of the first repetition: table 2 of the paper.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution, or the dense layer at the end.

    `shape` is the weight's: [out, in, height, width], [channels, 1, height, width] for a depthwise convolution,
    [out, in] for the dense layer; the bias has `shape[0]` values. `keras` and `keras_norm` are the names of the
    layer and of its BatchNorm in Keras' own MobileNetV2.
    """

    name: str
    shape: tuple[int, ...]
    keras: str
    keras_norm: str = ""
    stride: int = 1
    relu6: bool = True

    @property
    def depthwise(self) -> bool:
        """Whether it is a depthwise convolution."""
        return self.name.endswith("depthwise")


@dataclass(frozen=True)
class Block:
    """An inverted residual.

    layers: Its layers in order.
    residual: Whether its input is added to its output.
    """

    layers: tuple[Layer, ...]
    residual: bool


STEM = Layer(name="stem", shape=(32, 3, 3, 3), keras="Conv1", keras_norm="bn_Conv1", stride=2)
HEAD = Layer(name="head", shape=(FEATURES, 320, 1, 1), keras="Conv_1", keras_norm="Conv_1_bn")


def classifier(classes: int) -> Layer:
    """Return the dense layer at the end."""
    return Layer(name="classifier", shape=(classes, FEATURES), keras="predictions", relu6=False)


def _block(index: int, inputs: int, expansion: int, outputs: int, stride: int) -> Block:
    wide, keras = inputs * expansion, f"block_{index}" if index else "expanded_conv"
    parts = (
        ("expand", (wide, inputs, 1, 1), 1, True),
        ("depthwise", (wide, 1, 3, 3), stride, True),
        ("project", (outputs, wide, 1, 1), 1, False),
    )
    layers = tuple(
        Layer(
            name=f"blocks.{index}.{part}",
            shape=shape,
            keras=f"{keras}_{part}",
            keras_norm=f"{keras}_{part}_BN",
            stride=step,
            relu6=relu6,
        )
        for part, shape, step, relu6 in parts
        if part != "expand" or expansion > 1
    )
    return Block(layers, residual=stride == 1 and inputs == outputs)


def _blocks() -> Iterator[Block]:
    index, inputs = 0, STEM.shape[0]
    for expansion, outputs, repetitions, first_stride in _STAGES:
        for repetition in range(repetitions):
            yield _block(index, inputs, expansion, outputs, first_stride if repetition == 0 else 1)
            index, inputs = index + 1, outputs


BLOCKS = tuple(_blocks())


def convolutions() -> tuple[Layer, ...]:
    """Return all convolutions, in the order of execution."""
    return (STEM, *(layer for block in BLOCKS for layer in block.layers), HEAD)


def tensor_shapes(classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a weights file: `<layer>.weight` and `<layer>.bias`, with BatchNorm folded into them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in (*convolutions(), classifier(classes)):
        shapes[f"{layer.name}.weight"] = layer.shape
        shapes[f"{layer.name}.bias"] = layer.shape[:1]
    return shapes
