"""`edge check MODEL.gguf --for DEVICE`: the memory that a model needs, before it is copied to the device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.cli import main
from edge.compatibility.language_model import parse_size
from runtimes.errors import UsageError

MODEL = str(Path(__file__).parents[2] / "runtimes" / "models" / "llama_cpp.gguf")


def test_a_model_that_fits_says_what_it_takes(capsys):
    assert main(["check", MODEL, "--for", "raspberry-pi-4", "--memory", "4GB"]) == 0
    out = capsys.readouterr().out
    assert "runs on the processor" in out
    assert "context of 512 tokens" in out


def test_a_model_that_does_not_is_refused_with_what_would(capsys):
    assert main(["check", MODEL, "--for", "raspberry-pi-4", "--memory", "460MB", "--json"]) == 5
    told = json.loads(capsys.readouterr().out)
    assert not told["runs"]
    assert told["memory"]["needed_bytes"] > 60e6
    assert "fits" in told["refusals"][0]["fix"]


def test_a_device_of_several_sizes_asks_which(capsys):
    assert main(["check", MODEL, "--for", "raspberry-pi-4"]) == 2
    assert "--memory 4GB" in capsys.readouterr().err


def test_the_size_of_memory_is_for_language_models(capsys):
    other = str(Path(MODEL).with_name("litert.tflite"))
    assert main(["check", other, "--for", "raspberry-pi-4", "--memory", "4GB"]) == 2
    assert "language models" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "expected"), [("4GB", 4 * 10**9), ("512MB", 512 * 10**6), ("1.5 gib", 1.5 * 10**9)])
def test_sizes(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["4", "x", "0GB", "-1GB", "4TB"])
def test_sizes_that_are_none(text):
    with pytest.raises(UsageError):
        parse_size(text)
