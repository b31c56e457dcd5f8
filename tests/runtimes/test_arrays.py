"""Untrusted array files: plain arrays are read, everything else is refused before it costs memory."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from runtimes.arrays import load_arrays
from runtimes.errors import InputError


def test_arrays_come_back(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), **{"input:y": np.ones((2, 2), np.float32)})
    arrays = load_arrays(tmp_path / "a.npz")
    assert sorted(arrays) == ["input:y", "x"]
    np.testing.assert_array_equal(arrays["x"], [0, 1, 2])


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"not a readable \.npz of plain arrays"):
        load_arrays(tmp_path / "a.npz")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(10**6, np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 10**4
    with pytest.raises(InputError, match="would unpack to"):
        load_arrays(tmp_path / "a.npz", largest=10**5)


def test_a_broken_file_is_refused_with_the_callers_hint(tmp_path):
    np.savez(tmp_path / "whole.npz", x=np.arange(1000))
    content = (tmp_path / "whole.npz").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(content)
        for position in generator.integers(0, len(content), 5):
            broken[position] = generator.integers(0, 256)
        (tmp_path / "a.npz").write_bytes(broken[: generator.integers(1, len(broken))])
        with pytest.raises(InputError) as caught:
            load_arrays(tmp_path / "a.npz", hint="ask again")
        assert caught.value.hint == "ask again"


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError):
        load_arrays(tmp_path / "a.npz")


def test_an_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", "not an array")
    with pytest.raises(InputError):
        load_arrays(tmp_path / "a.npz")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError):
        load_arrays(tmp_path / "absent.npz")
