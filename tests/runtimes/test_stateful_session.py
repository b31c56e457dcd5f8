"""A model that holds its states in the open answers like one that keeps them in variables."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.artifact import Artifact, Manifest, TensorSpec
from runtimes.errors import InputError
from runtimes.joined_session import open_like_source
from runtimes.session import CheckedSession, RunOptions
from runtimes.stateful_session import StatefulSession

X, STATE = TensorSpec("x", "float32", (1,)), TensorSpec("s", "float32", (1,))
SUM, NEXT = TensorSpec("y", "float32", (1,)), TensorSpec("s/next", "float32", (1,))


class Sums(CheckedSession):
    """Adds up its inputs."""

    def __init__(self):
        super().__init__((X, STATE), (NEXT, SUM))

    def _run(self, feeds):
        total = feeds["x"] + feeds["s"]
        return {"y": total, "s/next": total}


class Engine:
    def open(self, artifact, options):
        return Sums()


def answers(session, *values):
    return [float(session.run({"x": np.float32([value])})["y"][0]) for value in values]


def test_the_state_is_passed_on_and_no_input_or_output():
    session = StatefulSession(Sums(), {"s": "s/next"})
    assert (session.inputs, session.outputs) == ((X,), (SUM,))
    assert answers(session, 1, 2, 3) == [1, 3, 6]
    assert session.held["s"].tolist() == [6]


def test_a_new_session_begins_at_zero(tmp_path):
    manifest = Manifest("m", "null", "fp32", "model.null", states={"s": "s/next"})
    for _ in range(2):
        assert answers(open_like_source(Engine(), Artifact(tmp_path, manifest), RunOptions()), 1, 2) == [1, 3]


@pytest.mark.parametrize("states", [{"z": "s/next"}, {"s": "z"}])
def test_a_state_that_the_model_does_not_have_is_refused(states):
    with pytest.raises(InputError, match="no state 'z'"):
        StatefulSession(Sums(), states)


def test_the_manifest_holds_the_states():
    text = Manifest("m", "null", "fp32", "model.null", states={"s": "s/next"}).to_json()
    assert Manifest.from_json(text, "here").states == {"s": "s/next"}
    with pytest.raises(InputError, match="states"):
        Manifest.from_json(text.replace('"s/next"', "3"), "here")
