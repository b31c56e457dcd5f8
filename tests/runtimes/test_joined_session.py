"""An output that a conversion split has the source's values again."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.artifact import Join, Manifest, TensorSpec
from runtimes.artifact.manifest import Quantization
from runtimes.errors import InputError
from runtimes.joined_session import JoinedSession
from runtimes.session import CheckedSession

BOXES = TensorSpec("boxes", "uint8", (1, 2, 4), Quantization((2.5,), (10,)))
SCORES = TensorSpec("scores", "uint8", (1, 2, 1), Quantization((1 / 256,), (0,)))
OTHER = TensorSpec("other", "float32", (1,))


class Parts(CheckedSession):
    def __init__(self):
        super().__init__([TensorSpec("x", "float32", (1,))], [SCORES, OTHER, BOXES])

    def _run(self, feeds):
        boxes, scores = np.arange(8, dtype=np.uint8).reshape(1, 2, 4), np.array([[[128], [64]]], np.uint8)
        return {"boxes": boxes, "scores": scores, "other": feeds["x"]}


def manifest(join) -> str:
    text = Manifest("m", "null", "int8", "model.null", join=(Join("out", 2, ("boxes", "scores")),)).to_json()
    return text.replace('"axis": 2', f'"axis": {join}')


def test_parts_are_dequantized_and_joined_in_order():
    with_parts = JoinedSession(Parts(), [Join("out", 2, ("boxes", "scores"))])
    assert [(spec.name, spec.dtype, spec.shape) for spec in with_parts.outputs] == [
        ("out", "float32", (1, 2, 5)),
        ("other", "float32", (1,)),
    ]
    answer = with_parts.run({"x": np.ones(1, np.float32)})
    assert list(answer) == ["out", "other"]
    assert answer["out"].tolist() == [[[-25, -22.5, -20, -17.5, 0.5], [-15, -12.5, -10, -7.5, 0.25]]]


def test_parts_in_another_order_are_another_answer():
    (first,) = JoinedSession(Parts(), [Join("out", 2, ("scores", "boxes"))]).run({"x": np.ones(1, np.float32)})["out"]
    assert first[0].tolist() == [0.5, -25, -22.5, -20, -17.5]


@pytest.mark.parametrize("join", [Join("out", 2, ("boxes", "elsewhere")), Join("out", 3, ("boxes", "scores"))])
def test_a_join_that_does_not_fit_is_refused(join):
    with pytest.raises(InputError, match="manifest joins"):
        JoinedSession(Parts(), [join])


def test_the_manifest_holds_the_join_and_refuses_a_broken_one():
    assert Manifest.from_json(manifest(2), "here").join == (Join("out", 2, ("boxes", "scores")),)
    with pytest.raises(InputError, match="axis"):
        Manifest.from_json(manifest(-1), "here")
