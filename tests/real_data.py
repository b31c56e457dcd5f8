"""Real models, pictures and weights: the folder that the environment variable EDGE_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with real models, pictures and weights."""
    return real_data()


def real_data(name: str | Path = "") -> Path:
    """Return the path of `name` in EDGE_DATA, or that folder itself; skip the test where EDGE_DATA is not set.

    Where it is set, a missing file is a failure: no test disappears from a machine that is said to have the data.
    """
    folder = os.environ.get("EDGE_DATA")
    if not folder:
        pytest.skip(f"needs {name or 'real models and pictures'}: set EDGE_DATA to the folder that has it")
    path = Path(folder) / name
    assert path.exists(), f"{path} does not exist, although EDGE_DATA is set"
    return path
