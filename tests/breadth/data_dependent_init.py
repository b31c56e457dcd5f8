"""Data-dependent initialization: random weights that leave a network about as robust as a trained one.

A network with plain random weights is chaotic: layer by layer it amplifies every difference, the rounding of int8
included, until nothing of the signal is left, which says nothing about a converter. So the weights are initialized
layer by layer on one batch, in the same way for every library:

- The weights of a layer are multiplied by the covariance of its inputs, as each step of training moves them along the
  inputs: rounding errors vary in all directions, and such weights ignore most of them.
- Each output channel of a convolution, a dense layer or a BatchNorm gets the same deviation and a positive mean over
  the batch: no channel dominates, and the ReLU after it clips some values, not most.
- Factors that start a residual branch at almost nothing are set to a share that counts, and the learned tokens and
  positions of an encoder are as strong as its patches.

The outputs differ from picture to picture, and the float network is the same for all targets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_DEVIATION, _MEAN = 1.0, 1.0  # of each channel over the batch
_BRANCH = 0.2  # the value of a learned factor of a residual branch
_EMBEDDED = ("cls_token", "class_token", "distillation_token", "position_embeddings", "pos_embedding")
_ROWS = 2000  # of a layer's inputs, from which their covariance is estimated
_LEAST = 1e-5  # the deviation below which a channel counts as constant


def initialize_keras(model: Any, batch: np.ndarray) -> None:
    """Initialize a `keras.Model` on `batch`, [n, height, width, 3]."""
    watched = []
    for layer in model.layers:
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.full(layer.gamma.shape, _BRANCH, np.float32))
        elif (scale_layer := _keras_scaling(layer)) is not None:
            layer.call = scale_layer(layer, layer.call)
            watched.append(layer)
    model(batch, training=False)
    for layer in watched:
        del layer.call  # restores the method of the class


def initialize_torch(model: Any, *feeds: Any, **named: Any) -> None:
    """Initialize a `torch.nn.Module` in evaluation mode on a batch of its inputs."""
    import torch

    norms = [part for part in model.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    for part in norms:
        part.train()
        part.momentum = 1.0
        torch.nn.init.constant_(part.weight, _DEVIATION)
        torch.nn.init.constant_(part.bias, _MEAN)
    for name, parameter in model.named_parameters():
        if "layer_scale" in name or "lambda_" in name:
            parameter.data.fill_(_BRANCH)
        elif name.endswith(_EMBEDDED):
            torch.nn.init.normal_(parameter, std=_DEVIATION)
    weighted = [part for part in model.modules() if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear))]
    for part in weighted:
        if not part.weight.any():  # like the head of ViT before training, with which all answers would be the same
            torch.nn.init.normal_(part.weight)
    hooks = [part.register_forward_hook(_torch_weighted) for part in weighted]
    with torch.no_grad():
        model(*feeds, **named)
    for hook in hooks:
        hook.remove()
    model.eval()


def _keras_scaling(layer: Any) -> Callable[..., Any] | None:
    import keras

    if isinstance(layer, keras.layers.BatchNormalization):
        return _keras_norm
    if isinstance(layer, keras.layers.SeparableConv2D):
        return _keras_separable
    return _keras_weighted if getattr(layer, "kernel", None) is not None else None


def _keras_norm(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    def scaled(inputs: Any, **_: Any) -> Any:
        momentum, layer.momentum = layer.momentum, 0.0
        layer.beta.assign(np.full(layer.beta.shape, _MEAN, np.float32))
        if layer.scale:
            layer.gamma.assign(np.full(layer.gamma.shape, _DEVIATION, np.float32))
        call(inputs, training=True)
        layer.momentum = momentum
        return call(inputs, training=False)

    return scaled


def _keras_weighted(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    import keras

    def scaled(inputs: Any, **_: Any) -> Any:
        kernel = np.asarray(layer.kernel)
        if not _is_depthwise(layer):
            kernel = _aligned(kernel, np.asarray(inputs))
        layer.kernel.assign(kernel)
        activation, layer.activation = layer.activation, keras.activations.linear
        factor, shift = _factors(np.asarray(call(inputs)))
        layer.activation = activation
        layer.kernel.assign(kernel * factor.reshape(kernel.shape[2:] if _is_depthwise(layer) else (-1,)))
        if layer.bias is not None:
            layer.bias.assign(shift)
        return call(inputs)

    return scaled


def _keras_separable(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    import keras

    def scaled(inputs: Any, **_: Any) -> Any:
        kernel = np.asarray(layer.depthwise_kernel)
        inner = keras.ops.depthwise_conv(inputs, kernel, layer.strides, layer.padding)
        layer.depthwise_kernel.assign(kernel * _factors(np.asarray(inner))[0].reshape(kernel.shape[2:]))
        inner = keras.ops.depthwise_conv(inputs, layer.depthwise_kernel, layer.strides, layer.padding)
        layer.pointwise_kernel.assign(_aligned(np.asarray(layer.pointwise_kernel), np.asarray(inner)))
        factor, _ = _factors(np.asarray(call(inputs)))
        layer.pointwise_kernel.assign(np.asarray(layer.pointwise_kernel) * factor)
        return call(inputs)

    return scaled


def _is_depthwise(layer: Any) -> bool:
    return type(layer).__name__ == "DepthwiseConv2D"


def _torch_weighted(layer: Any, given: tuple[Any, ...], _: Any) -> Any:
    """Scale the layer's weights, and return its new outputs for the same inputs."""
    import torch

    is_map = layer.weight.ndim == 4
    if layer.weight.shape[1] > 1:
        rows = np.moveaxis(given[0].numpy(), 1, -1) if is_map else given[0].numpy()
        kernel = _aligned(np.moveaxis(layer.weight.numpy(), (0, 1), (-1, -2)), rows)
        layer.weight.data = torch.from_numpy(np.ascontiguousarray(np.moveaxis(kernel, (-1, -2), (0, 1))))
    if layer.bias is not None:
        layer.bias.data.zero_()
    plain = layer.forward(*given).numpy()
    factor, shift = _factors(np.moveaxis(plain, 1, -1) if layer.weight.ndim == 4 else plain)
    layer.weight.data *= torch.from_numpy(factor).reshape(-1, *[1] * (layer.weight.ndim - 1))
    if layer.bias is not None:
        layer.bias.data = torch.from_numpy(shift)
    return layer.forward(*given)


def _aligned(kernel: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Multiply a kernel [..., channels, outputs] by the covariance of a layer's inputs [..., groups * channels]."""
    rows = given.reshape(-1, kernel.shape[-2])
    rows = rows[:: len(rows) // _ROWS + 1]
    rows = rows - rows.mean(axis=0)
    turned = np.einsum(
        "rc,...ro->...co", rows, np.einsum("rc,...co->...ro", rows, kernel, optimize=True), optimize=True
    )
    return np.asarray(turned / max(np.abs(turned).max(), 1e-30), np.float32)


def _factors(plain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the factor of the weights and the bias of each channel, the last axis of `plain`."""
    rows = plain.reshape(-1, plain.shape[-1]).astype(np.float64)
    factor = _DEVIATION / np.maximum(rows.std(axis=0), _LEAST)
    return factor.astype(np.float32), (_MEAN - rows.mean(axis=0) * factor).astype(np.float32)
