"""Weights for a module as training code saves them: bare, in a checkpoint, with prefixes of wrappers."""

from __future__ import annotations

import argparse
import datetime

import pytest

from converters.pytorch.weights import fill
from runtimes.errors import InputError

torch = pytest.importorskip("torch")
nn = torch.nn


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 2)))


def filled(tmp_path, content):
    """The answer of a network of other weights, filled from `content` as torch.save writes it."""
    torch.save(content, tmp_path / "weights.pth")
    module = network(seed=9)
    fill(module, tmp_path / "weights.pth", "nets:make")
    return module.eval()(torch.ones(2, 3))


def prefixed(prefix):
    return {prefix + name: value for name, value in network().state_dict().items()}


@pytest.mark.parametrize(
    "make",
    [
        lambda: network().state_dict(),
        lambda: {"state_dict": network().state_dict(), "epoch": 3, "best": 0.5},
        lambda: {"model": network().state_dict(), "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda: {"model_state_dict": network().state_dict(), "args": argparse.Namespace(lr=0.1)},
        lambda: {"model": {"state_dict": network().state_dict()}, "epoch": 1},
        lambda: {"model": "resnet18", "state_dict": network().state_dict()},
        lambda: {"params_ema": network().state_dict(), "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda: {"discriminator": nn.Sequential(nn.Linear(3, 4)).state_dict(), "generator": network().state_dict()},
        lambda: {"ema": {"module": prefixed("module.")}, "epoch": torch.ones(1)},
        lambda: {"state_dict": network().state_dict(), "state_dict_ema": network(1).state_dict()},
        lambda: nn.DataParallel(network()).state_dict(),
        lambda: prefixed("_orig_mod."),
        lambda: prefixed("module._orig_mod."),
        lambda: prefixed("_orig_mod.module."),
        lambda: {"state_dict": prefixed("model.")},
        lambda: {name.replace("2.", "2._orig_mod."): value for name, value in prefixed("module.").items()},
        lambda: {name: value for name, value in prefixed("module.").items() if "num_batches" not in name},
    ],
)
def test_weights_as_training_code_saves_them(tmp_path, make):
    torch.testing.assert_close(filled(tmp_path, make()), network().eval()(torch.ones(2, 3)), rtol=0, atol=0)


def test_a_part_that_is_called_module_keeps_its_name(tmp_path):
    def made(seed):
        torch.manual_seed(seed)
        return nn.ModuleDict({"module": nn.Linear(2, 2)})

    torch.save(made(0).state_dict(), tmp_path / "weights.pt")
    module = made(1)
    fill(module, tmp_path / "weights.pt", "nets:make")
    assert torch.equal(module["module"].weight, made(0)["module"].weight)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("0.weight"), r"1 missing \(0\.weight\)"),
        (lambda state: state.update({f"head.{place}": torch.ones(1) for place in range(5)}), r"5 unexpected \(head\.0"),
        (lambda state: state.update({"2.0.bias": torch.ones(7)}), r"size mismatch for 2\.0\.bias"),
    ],
)
def test_weights_of_another_network_are_named(tmp_path, change, words):
    state = dict(network().state_dict())
    change(state)
    with pytest.raises(InputError, match=words) as caught:
        filled(tmp_path, {"state_dict": {f"module.{name}": value for name, value in state.items()}})
    assert "nets:make" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.message.count(",") <= 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3, "optimizer": {"state": {}}}, "holds no state_dict; its keys are epoch, optimizer"),
        ({"optimizer": {"state": {0: {"step": torch.ones(1)}}}}, "holds no state_dict; its keys are optimizer"),
        (
            {name: {"state_dict": network(seed).state_dict()} for seed, name in enumerate("ab")},
            r"several networks that fit: a\.state_dict, b\.state_dict",
        ),
        ([1, 2], "holds no state_dict"),
        (network(), "is not unpickled"),
        ({"state_dict": {}, "when": datetime.date(2020, 1, 1)}, r"a datetime\.date in addition to tensors"),
    ],
)
def test_what_is_no_state_dict_is_reported(tmp_path, content, words):
    with pytest.raises(InputError, match=words) as caught:
        filled(tmp_path, content)
    assert "\n" not in caught.value.message
