"""Where an ArgMax chooses among nearly equal values, these are compared, and the rest with the source's choices."""

from __future__ import annotations

import re

import numpy as np
import pytest

from converters.base import ConversionOutput
from converters.calibration.dataset import Calibration
from converters.pipeline.choices import _beyond, verify_choices
from converters.pipeline.execute import as_artifact
from converters.pipeline.explanation import FailedProof
from converters.pipeline.reference import Reference
from converters.pipeline.verification import Samples, verify
from runtimes.artifact.self_check import OutputCheck, Part
from runtimes.registry import open_session
from runtimes.verification.selfcheck import answers

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
DRAW = np.random.default_rng(5)
POINTS, CELLS = 4, 60
INPUTS = DRAW.normal(size=(24, 1, 16)).astype(np.float32)
WEIGHTS = DRAW.normal(size=(16, POINTS * CELLS)).astype(np.float32)
TABLE = DRAW.normal(size=(CELLS, 2)).astype(np.float32)  # where each cell is
SHIFTS = DRAW.normal(size=(16, 2)).astype(np.float32) / 16


def network(path, weights, table=TABLE, shifts=SHIFTS, operator="ArgMax"):
    """Key points: the place of the best cell of each heat map, and a shift that the input decides."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    constants = {"weights": weights, "table": table, "shifts": shifts, "sizes": np.int64([1, POINTS, CELLS])}
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["flat"]),
        helper.make_node("Reshape", ["flat", "sizes"], ["heat"]),
        helper.make_node(operator, ["heat"], ["best"], axis=2, keepdims=0),
        helper.make_node("Gather", ["table", "best"], ["places"]),
        helper.make_node("MatMul", ["x", "shifts"], ["shift"]),
        helper.make_node("Add", ["places", "shift"], ["points"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pose",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 16])],
        [helper.make_tensor_value_info("points", onnx.TensorProto.FLOAT, [1, POINTS, 2])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with open_session(as_artifact(path, "onnx")) as session:
        return answers(session, {"x": INPUTS}), tuple(session.inputs), tuple(session.outputs)


def verdict(folder, **result):
    """Return the plain verdict on a result with 6 bits of weights, and the one with the source's choices."""
    rounded = np.round(WEIGHTS * 9) / 9
    truth, inputs, outputs = network(folder / "source.onnx", WEIGHTS)
    given, _, _ = network(folder / "result.onnx", **{"weights": rounded, **result})
    samples = Samples(Calibration({"x": INPUTS}), "arrays")
    reference = Reference(
        inputs=inputs,
        outputs=outputs,
        samples=samples,
        calibration=None,
        answers=truth,
        preprocess=None,
        labels=None,
        meaning=None,
        notes=(),
    )
    failed = FailedProof(
        reference=reference,
        output=ConversionOutput(model=folder / "result.onnx"),
        graphs=((folder / "source.onnx", "onnx"), (folder / "result.onnx", "onnx")),
        truth=truth,
        given=given,
        precision="int8",
        scratch=folder,
        worst=None,
    )
    return verify("int8", truth, given), verify_choices(failed, [OutputCheck("points", "values")])


def test_a_choice_among_nearly_equal_values_is_no_fault(tmp_path):
    plain, choices = verdict(tmp_path)
    assert not plain.passed
    assert choices.proof.passed, choices.proof.message
    assert 0.5 < choices.proof.choices["equal"] < 1
    assert choices.decide(plain) is choices.proof
    assert "ArgMax chooses another index than in the source" in choices.notes[0]
    assert 0 < choices.equal.sum() < len(INPUTS)


def swapped_heat_maps():
    maps = np.round(WEIGHTS * 9).reshape(16, POINTS, CELLS) / 9
    return maps[:, [1, 0, 2, 3]].reshape(16, -1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"weights": swapped_heat_maps()}, r"with the source's choices at ArgMax, output 'heat \(before ArgMax\)'"),
        ({"shifts": -SHIFTS}, "with the source's choices at ArgMax, output 'points'"),
        ({"table": TABLE + 0.5}, "with the source's choices at ArgMax, output 'points'"),
        ({"table": np.roll(TABLE, 1, axis=0)}, "with the source's choices at ArgMax, output 'points'"),
        ({"operator": "ArgMin"}, r"the result does not choose the best of 'heat' \(ArgMax\)"),
    ],
    ids=["heat maps exchanged", "shift turned", "shifted", "one cell off", "the worst cell"],
)
def test_a_fault_before_in_or_behind_the_choice_is_found(tmp_path, fault, message):
    plain, choices = verdict(tmp_path, **fault)
    assert not choices.proof.passed
    assert re.search(message, choices.decide(plain).message)
    assert choices.notes == ()


def test_a_difference_counts_where_it_is_more_than_twice_the_noise_of_the_source():
    check = OutputCheck("y", "values", (Part(1, 0, 2, 1.0), Part(1, 2, 3, 1.0)))
    truth, noise = np.zeros((40, 50, 3)), DRAW.normal(size=(40, 50, 3))
    given = 1.3 * DRAW.normal(size=(40, 50, 3))
    given[..., 2] *= 1.5
    found = _beyond({"y": truth}, {"y": given}, {"y": noise}, [check])["y"]
    assert (found[..., :2] == truth[..., :2]).all()
    assert (found[..., 2] == given[..., 2]).all()
    given = 1.1 * DRAW.normal(size=(40, 50, 3))
    given[:, :, 1] *= 2  # in one of two slices of a part, which has 2,000 values
    found = _beyond({"y": truth}, {"y": given}, {"y": noise}, [check])["y"]
    assert (found[..., :2] == given[..., :2]).all()
