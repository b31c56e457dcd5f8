"""The networks of the matrix: one of every family in the libraries, and none loses its signal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def here() -> Iterator[None]:
    """Make the scripts of this folder importable by their names, as they import each other."""
    sys.path.insert(0, str(Path(__file__).parent))
    yield
    sys.path.pop(0)


def test_every_family_of_keras_is_listed(here: None) -> None:
    pytest.importorskip("keras")
    import networks

    families = networks.keras_families()
    assert {name for name, members in families.items() if not members & set(networks.KERAS)} == set()
    assert set(networks.KERAS) <= set().union(*families.values())


@pytest.mark.skipif("BREADTH_SITE" not in os.environ, reason="BREADTH_SITE names no folder with torchvision")
def test_the_smallest_network_of_every_family_of_torchvision_is_listed(here: None) -> None:
    import networks

    families = networks.torchvision_families()
    assert {min(members, key=lambda name: members[name]) for members in families.values()} <= set(networks.TORCHVISION)
    assert set(networks.TORCHVISION) <= {name for members in families.values() for name in members}


def _torch() -> tuple[Any, Any]:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers: list[Any] = [torch.nn.Conv2d(3, 16, 3, padding=1, bias=False), torch.nn.BatchNorm2d(16), torch.nn.ReLU()]
    for _ in range(20):
        layers += [torch.nn.Conv2d(16, 16, 3, padding=1), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 10))
    return model.eval(), lambda batch: model(torch.from_numpy(batch.transpose(0, 3, 1, 2))).detach().numpy()


def _keras() -> tuple[Any, Any]:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    made = keras.layers
    layers = [made.Conv2D(16, 3, padding="same", use_bias=False), made.BatchNormalization(), made.ReLU()]
    layers += [made.SeparableConv2D(16, 3, padding="same", use_bias=False)]
    for _ in range(20):
        layers += [made.Conv2D(16, 3, padding="same", activation="relu")]
    model = keras.Sequential([keras.Input((16, 16, 3)), *layers, made.GlobalAveragePooling2D(), made.Dense(10)])
    return model, lambda batch: np.asarray(model(batch))


@pytest.mark.parametrize("make", [_torch, _keras])
def test_initialized_networks_distinguish_pictures_and_tolerate_noise(here: None, make: Any) -> None:
    import data_dependent_init
    import networks

    model, answer = make()
    shown = networks.pictures(20, 16, 1)
    if make is _torch:
        import torch

        data_dependent_init.initialize_torch(model, torch.from_numpy(shown.transpose(0, 3, 1, 2)))
    else:
        data_dependent_init.initialize_keras(model, shown)
    fresh = networks.pictures(8, 16, 2)
    noise = np.random.default_rng(0).normal(0, 0.01, fresh.shape).astype(np.float32)
    answers = answer(fresh)
    signal = np.square(answers - answers.mean(axis=0)).mean()
    assert signal > 0.1
    assert 10 * np.log10(signal / np.square(answer(fresh + noise) - answers).mean()) > 30
