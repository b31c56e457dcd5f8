"""Build MobileNetV2 in PyTorch, with TensorFlow's SAME padding as in `keras_model`, and save it with torch.export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.base import Requirement
from converters.library_calls import converting
from edge.table.mobilenet_v2.architecture import BLOCKS, FEATURES, HEAD, SIZE, STEM, Block, Layer, classifier
from runtimes.arrays import Arrays


def build_torch(weights: Arrays) -> Any:
    """Build a `torch.nn.Module` from float32 [batch, 3, 224, 224] to probabilities [batch, classes]."""
    Requirement("torch").check("PyTorch's MobileNetV2")
    from torch import nn

    dense = nn.Linear(FEATURES, len(weights["classifier.bias"]))
    _fill(dense, classifier(0), weights)
    parts = [*_convolution(STEM, weights), *(_block(block, weights) for block in BLOCKS), *_convolution(HEAD, weights)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense, nn.Softmax(dim=-1)).eval()


def write_torch(weights: Arrays, path: Path) -> Path:
    """Build the model and save it as `path` (`.pt2`, batch 1)."""
    with converting("MobileNetV2", "torch.export"):
        model = build_torch(weights)
        import torch

        program = torch.export.export(model, (torch.zeros(1, 3, SIZE, SIZE),))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # contains paths of this machine
        torch.export.save(program, path)
    return path


def _block(block: Block, weights: Arrays) -> Any:
    from torch import nn

    branch = nn.Sequential(*(part for layer in block.layers for part in _convolution(layer, weights)))
    if not block.residual:
        return branch

    class Residual(nn.Module):  # type: ignore[misc,unused-ignore] # a class of a library without types
        def __init__(self) -> None:
            super().__init__()
            self.branch = branch

        def forward(self, signal: Any) -> Any:
            return signal + self.branch(signal)

    return Residual()


def _convolution(layer: Layer, weights: Arrays) -> list[Any]:
    from torch import nn

    outputs, inputs, kernel, _ = layer.shape
    groups = outputs if layer.depthwise else 1
    # With an even size and stride 2, TensorFlow's SAME pads right and bottom only, which Conv2d does not support.
    is_asymmetric = layer.stride == 2
    padding = 0 if is_asymmetric else kernel // 2
    convolution = nn.Conv2d(inputs * groups, outputs, kernel, layer.stride, padding, groups=groups)
    _fill(convolution, layer, weights)
    before = [nn.ZeroPad2d((0, 1, 0, 1))] if is_asymmetric else []
    return [*before, convolution, *([nn.ReLU6()] if layer.relu6 else [])]


def _fill(module: Any, layer: Layer, weights: Arrays) -> None:
    import torch

    for name, parameter in module.named_parameters():
        parameter.data = torch.from_numpy(np.ascontiguousarray(weights[f"{layer.name}.{name}"])).clone()
        parameter.requires_grad = False
