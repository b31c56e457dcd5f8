"""Which layer adds the noise, on hand-made values."""

from __future__ import annotations

import numpy as np
import pytest

from converters.layer_errors import GraphNode, LayerError, describe_layers, growing_sets, rank, short_name, stack_rows

CHAIN = [GraphNode(("image", "w1"), "conv"), GraphNode(("conv",), "relu"), GraphNode(("relu", "w2"), "dense")]
SIGNAL = np.random.default_rng(0).normal(size=(16, 1, 3, 3, 4)).astype(np.float32)
NHWC = 3


def noisy(values, share, seed=1):
    """`values` with noise of `share` of their power."""
    noise = np.random.default_rng(seed).normal(size=values.shape) * values.std() * np.sqrt(share)
    return (values + noise).astype(np.float32)


def test_the_layer_that_adds_the_noise_is_blamed_and_not_those_that_hand_it_on():
    exact = {"conv": SIGNAL, "relu": SIGNAL, "dense": SIGNAL}
    bad = noisy(SIGNAL, 0.3)
    layers = rank(CHAIN, exact, {"conv": SIGNAL, "relu": bad, "dense": bad}, NHWC)
    assert layers[0].name == "relu"
    assert layers[0].noise == pytest.approx(0.3, abs=0.05)
    assert {layer.name: layer.noise for layer in layers[1:]} == {"conv": 0.0, "dense": 0.0}


def test_weak_channels_that_are_lost_are_seen_beside_a_strong_one():
    exact = SIGNAL * np.array([1000, 1, 1, 1], np.float32)
    given = exact.copy()
    given[..., 1:] = 0
    (layer,) = rank(CHAIN[:1], {"conv": exact}, {"conv": given}, NHWC)
    assert layer.noise > 0.7
    turned = [values.transpose(0, 1, 4, 2, 3) for values in (exact, given)]
    (same,) = rank(CHAIN[:1], {"conv": turned[0]}, {"conv": turned[1]}, 1)
    assert same.noise == pytest.approx(layer.noise)


def test_channels_that_never_change_count_for_nothing():
    exact = SIGNAL * np.array([1, 1, 1, 0], np.float32)
    (layer,) = rank(CHAIN[:1], {"conv": exact}, {"conv": exact + 1e-4}, NHWC)
    assert layer.noise < 1e-6
    (dead,) = rank(CHAIN[:1], {"conv": exact * 0}, {"conv": exact}, NHWC)
    assert dead.noise == 0


def test_what_is_not_a_feature_map_is_judged_as_a_whole():
    exact = SIGNAL.reshape(16, 1, 36) * np.array([1000] + [1] * 35, np.float32)
    given = exact.copy()
    given[..., 1:] = 0
    (layer,) = rank(CHAIN[:1], {"conv": exact}, {"conv": given}, NHWC)
    assert layer.noise < 1e-3


def test_an_output_of_another_size_is_lost():
    (layer,) = rank(CHAIN[:1], {"conv": SIGNAL}, {"conv": SIGNAL[:, :, :2]}, NHWC)
    assert layer.noise == 1


def test_a_tensor_that_is_not_known_hands_the_noise_on():
    bad = noisy(SIGNAL, 0.3)
    exact = {"conv": SIGNAL, "relu": SIGNAL, "dense": SIGNAL}
    layers = rank(CHAIN, exact, {"conv": bad, "dense": bad}, NHWC)
    assert [layer.name for layer in layers] == ["conv", "dense"]
    assert layers[1].noise == 0


def test_all_layers_around_a_tensor_have_to_be_kept():
    exact = dict.fromkeys(("conv", "relu", "dense"), SIGNAL)
    by_name = {layer.name: layer for layer in rank(CHAIN, exact, exact, NHWC)}
    assert by_name["conv"].touching == ("conv", "relu")
    assert by_name["dense"].touching == ("dense",)
    fused = {layer.name: layer for layer in rank(CHAIN, exact, exact, NHWC, rounded={"relu", "dense"})}
    assert fused["relu"].touching == ("relu", "conv", "dense")


def test_more_and_more_is_kept_up_to_half_of_the_layers():
    layers = [LayerError(name=name, noise=1.0, touching=(name,)) for name in "abcdefghij"]
    assert list(growing_sets(layers)) == [("a",), ("a", "b"), ("a", "b", "c", "d")]
    assert list(growing_sets(layers[:1])) == [("a",)]
    assert list(growing_sets([])) == []


def test_layers_in_words():
    layers = [
        LayerError(name="net/first/Relu;net/first/BiasAdd", noise=0.94, touching=()),
        LayerError(name="second", noise=0.2, touching=()),
        LayerError(name="third", noise=0.01, touching=()),
    ]
    assert describe_layers(layers) == "net/first/Relu (94 % noise), second (20 % noise)"
    assert describe_layers([LayerError(name="first", noise=0.0, touching=())]) == ""
    assert short_name("a;b") == "a"


def test_stacked_leaves_out_what_is_no_float():
    rows = [{"a": np.zeros((1, 2), np.float32), "b": np.zeros(3, np.int64)}] * 2
    assert {name: values.shape for name, values in stack_rows(rows).items()} == {"a": (2, 1, 2)}
