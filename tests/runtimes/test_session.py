"""What all sessions share: inputs are checked, one inference runs at a time, and a closed session stays closed."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from runtimes.artifact import TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.session import (
    CheckedSession,
    RunOptions,
    check_settings,
    concrete_shape,
    example_feeds,
    format_shape,
)

IMAGE = TensorSpec("image", "uint8", ("batch", 2, 2, 3))
LENGTH = TensorSpec("length", "int64", (1,))
TAKES = "the model takes uint8[batch, 2, 2, 3]"


class Counting(CheckedSession):
    def __init__(self):
        super().__init__([IMAGE, LENGTH], [], threads=2)
        self.inside = self.most = self.closings = 0

    def _run(self, feeds):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.001)
        self.inside -= 1
        return {}

    def _close(self):
        self.closings += 1


def feeds(**changes):
    whole = {"image": np.zeros((1, 2, 2, 3), np.uint8), "length": np.zeros(1, np.int64)}
    return {name: array for name, array in {**whole, **changes}.items() if array is not None}


@pytest.mark.parametrize("batch", [1, 7])
def test_feeds_that_fit_are_run(batch):
    assert Counting().run(feeds(image=np.zeros((batch, 2, 2, 3), np.uint8))) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "input 'image' is missing"),
        ({"other": np.zeros(1)}, "the model has no input 'other'"),
        (
            {"image": np.zeros((1, 2, 2, 3))},
            f"input 'image' is float64[1, 2, 2, 3]; {TAKES}",
        ),
        (
            {"image": np.zeros((1, 3, 2, 3), np.uint8)},
            f"input 'image' is uint8[1, 3, 2, 3]; {TAKES}",
        ),
        (
            {"image": np.zeros((2, 2, 3), np.uint8)},
            f"input 'image' is uint8[2, 2, 3]; {TAKES}",
        ),
        ({"length": np.zeros((), np.int64)}, "input 'length' is int64[]; the model takes int64[1]"),
    ],
)
def test_feeds_that_do_not_fit_are_refused_in_words(changes, message):
    with pytest.raises(InputError) as caught:
        Counting().run(feeds(**changes))
    assert caught.value.message == message
    assert caught.value.hint


def test_one_inference_at_a_time():
    session = Counting()
    threads = [threading.Thread(target=session.run, args=(feeds(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.most == 1


def test_closing_happens_once_and_for_good():
    with Counting() as session:
        session.run(feeds())
    session.close()
    assert session.closings == 1
    with pytest.raises(UsageError, match="the session is closed"):
        session.run(feeds())


def test_a_session_tells_its_threads():
    assert Counting().threads == 2


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(threads):
    with pytest.raises(UsageError, match=f"threads is {threads}"):
        RunOptions(threads=threads)


def test_example_feeds_fit_and_repeat():
    first, second = example_feeds([IMAGE, LENGTH]), example_feeds([IMAGE, LENGTH])
    Counting().run(first)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    assert set(first["length"]) <= {0, 1}
    other = example_feeds([IMAGE], seed=1)["image"]
    assert not np.array_equal(other, first["image"])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bool", "int8", "uint8", "int32", "int64"])
def test_example_feeds_have_the_dtype(dtype):
    feed = example_feeds([TensorSpec("x", dtype, (64, "n"))])["x"]
    assert (feed.dtype.name, feed.shape) == (dtype, (64, 1))
    assert len(np.unique(feed)) > 1


def test_shapes():
    assert concrete_shape(IMAGE) == (1, 2, 2, 3)
    assert concrete_shape(IMAGE, free=4) == (4, 2, 2, 3)
    assert format_shape(IMAGE.shape) == "[batch, 2, 2, 3]"


def test_an_unknown_setting_lists_the_known():
    check_settings({"a": "1"}, {"a": "what a does"}, "engine")
    with pytest.raises(UsageError, match="engine has no setting 'b'") as caught:
        check_settings({"b": "1"}, {"a": "what a does"}, "engine")
    assert caught.value.hint == "its settings: a (what a does)"
    with pytest.raises(UsageError) as caught:
        check_settings({"b": "1"}, {}, "engine")
    assert caught.value.hint == "its settings: none"
