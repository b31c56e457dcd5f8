"""Calibration samples from the user's own code: limited in number, each one checked, every failure an edge error."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.dataset import MAX_SAMPLES
from converters.calibration.generator import generate, is_reference
from runtimes.errors import InputError

CODE = """
import itertools
import neighbor
import numpy as np

def arrays():
    for number in range(12):
        yield np.full((1, 4), number, np.float32)

def as_tflite_wants_them():
    return ([sample] for sample in arrays())

def by_name():
    for number in range(12):
        yield {"ids": np.array([[number]]), "mask": [[1.0]]}

def endless():
    return (np.full(4, number) for number in itertools.count())

class Data:
    def __iter__(self):
        return arrays()

KEPT = [np.zeros(3), np.ones(3)]

def changing():
    yield np.zeros(3)
    yield np.zeros(4)

def failing():
    yield np.zeros(3)
    raise ValueError("the disk is on fire")

def leaving():
    raise SystemExit(3)
    yield

def with_arguments(count):
    yield count

def texts():
    yield "a.jpg"

def pairs():
    yield np.zeros(3), 1

def objects():
    yield np.array([object()])

def empty():
    yield {}

def nothing():
    return []

NUMBER = 3
"""


@pytest.fixture
def code(tmp_path):
    (tmp_path / "samples.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "neighbor.py").write_text("", encoding="utf-8")
    return f"{tmp_path / 'samples.py'}:"


@pytest.mark.parametrize("name", ["arrays", "as_tflite_wants_them", "Data"])
def test_samples_are_stacked(code, name):
    found = generate(code + name)
    assert (len(found), found.stopped) == (12, "")
    assert found.arrays["samples"].shape == (12, 1, 4)
    assert found.arrays["samples"][7].max() == 7
    assert found.digest == generate(f"{code}arrays").digest


def test_several_inputs_by_name(code):
    found = generate(f"{code}by_name").arrays
    assert {name: values.shape for name, values in found.items()} == {"ids": (12, 1, 1), "mask": (12, 1, 1)}


def test_an_object_that_is_no_function_will_do(code):
    assert generate(f"{code}KEPT").arrays["samples"].shape == (2, 3)


def test_no_more_is_asked_for_than_is_needed_or_fits(code):
    counted: list[int] = []
    found = generate(f"{code}endless", counted.append)
    assert (len(found), found.stopped, counted[-1]) == (MAX_SAMPLES, "more are not needed", MAX_SAMPLES)
    few = generate(f"{code}endless", largest=3 * 32 + 1)
    assert len(few) == 3
    assert "GiB" in few.stopped
    with pytest.raises(InputError, match="too large to keep"):
        generate(f"{code}endless", largest=31)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("changing", r"sample 2 of .*:changing is \{samples: float64\[4\]\}, the first \{samples: float64\[3\]\}"),
        ("failing", "failing failed: ValueError: the disk is on fire"),
        ("leaving", "leaving failed: SystemExit: 3"),
        ("with_arguments", "with_arguments failed: TypeError"),
        ("texts", "sample 1 of .*:texts is a str"),
        ("pairs", "sample 1 of .*:pairs is a tuple"),
        ("objects", "sample 1 of .*:objects holds object"),
        ("empty", "sample 1 of .*:empty is empty"),
        ("nothing", "nothing yields no sample"),
        ("NUMBER", "NUMBER failed: TypeError"),
        ("unknown", "unknown cannot be imported: .*unknown"),
    ],
)
def test_what_is_no_sample_is_named(code, name, words):
    with pytest.raises(InputError, match=words):
        generate(code + name)


def test_code_that_cannot_be_imported_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("import not_installed_anywhere\n", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be imported: No module named 'not_installed_anywhere'"):
        generate(f"{tmp_path / 'broken.py'}:samples")
    with pytest.raises(InputError, match=r"cannot be imported: .*gone\.py does not exist"):
        generate(f"{tmp_path / 'gone.py'}:samples")


@pytest.mark.parametrize("text", ["mine:samples", "a.b:c.d", "mine.py:samples", "/some/where/mine.py:Data.samples"])
def test_a_reference(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_reference(text)
    if "/" not in text:
        (tmp_path / text).mkdir()
        assert not is_reference(text)


@pytest.mark.parametrize("text", ["pictures", "inputs.npz", "C:\\pictures", "mine.py", "mine:", ":samples", "a:b:c"])
def test_no_reference(text):
    assert not is_reference(text)


def test_pictures_are_yielded_as_pixels(tmp_path):
    (tmp_path / "shots.py").write_text(
        "import numpy as np\ndef shots():\n    yield {'pixels': np.zeros((4, 6, 3), np.uint8)}\n", encoding="utf-8"
    )
    found = generate(f"{tmp_path / 'shots.py'}:shots").arrays
    assert found["pixels"].dtype == np.uint8
