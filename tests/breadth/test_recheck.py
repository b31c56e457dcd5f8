"""The matrix's own check detects wrong outputs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def _recheck() -> Any:
    spec = importlib.util.spec_from_file_location("recheck", Path(__file__).with_name("recheck.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("precision", "noise", "agrees"), [("fp32", 1e-5, True), ("fp32", 0.1, False)])
def test_float_answers_must_be_nearly_equal(precision: str, noise: float, agrees: bool) -> None:
    expected = np.array([[1.0, -2.0, 0.5]])
    assert _recheck().verdict(expected, expected + noise, precision)["agrees"] is agrees


def test_int8_answers_must_be_above_the_noise() -> None:
    expected = np.array([[1.0, -2.0, 0.5]])
    assert _recheck().verdict(expected, expected * 1.1, "int8")["agrees"] is True
    assert _recheck().verdict(expected, -expected, "int8")["agrees"] is False


def test_answers_that_are_no_numbers_are_wrong() -> None:
    expected = np.array([[1.0, -2.0, 0.5]])
    assert _recheck().verdict(expected, expected * np.nan, "int8")["agrees"] is False
