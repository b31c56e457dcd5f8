"""Fixed batches, time-first models, scalars, rank 0 to 6, and made-up inputs that could be real, through the pipeline.

The judge is numpy, on inputs of the test's own, and never the proof.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge
from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.request import ConvertRequest
from runtimes.artifact import Artifact
from runtimes.errors import ProofError
from runtimes.registry import open_session
from runtimes.verification.selfcheck import check

RNG = np.random.default_rng(11)
WIDE = RNG.standard_normal((6, 4)).astype(np.float32)
NARROW = RNG.standard_normal((6, 3)).astype(np.float32)
STEPS = {"onnx": ("onnx_to_onnx", "fp16"), "openvino": ("onnx_to_openvino", "fp32")}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model of ONNX nodes, and what it computes in numpy."""

    nodes: list[tuple[str, list[str], str, dict[str, Any]]]
    inputs: dict[str, tuple[Any, ...]]
    outputs: tuple[Any, ...]
    numpy: Any
    constants: dict[str, Any] = field(default_factory=dict)
    draw: Any = RNG.standard_normal

    def write(self, path: Path, swapped: bool = False) -> Path:
        onnx = pytest.importorskip("onnx")
        helper, kind = onnx.helper, onnx.TensorProto.FLOAT
        turn = dict(zip(self.inputs, reversed(self.inputs), strict=True)) if swapped else {}
        graph = helper.make_graph(
            [helper.make_node(op, [turn.get(i, i) for i in ins], [out], **more) for op, ins, out, more in self.nodes],
            "g",
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in self.inputs.items()],
            [helper.make_tensor_value_info("y", kind, self.outputs)],
            [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        path.write_bytes(model.SerializeToString(deterministic=True))
        return path

    def feeds(self) -> dict[str, Any]:
        return {name: np.asarray(self.draw(shape), np.float32) for name, shape in self.inputs.items()}


def _deep(rank: int) -> Case:
    shape = (2, 3, 2, 2, 3, 2)[:rank]
    return Case(nodes=[("Tanh", ["x"], "y", {})], inputs={"x": shape}, outputs=shape, numpy=lambda f: np.tanh(f["x"]))


BATCHES = {"x": (3, 6)}
CASES = {
    "two inputs of one shape": Case(
        nodes=[("Sub", ["before", "after"], "d", {}), ("MatMul", ["d", "w"], "y", {})],
        inputs={"before": (1, 6), "after": (1, 6)},
        outputs=(1, 3),
        constants={"w": NARROW},
        numpy=lambda f: (f["before"] - f["after"]) @ NARROW,
    ),
    "fixed batch": Case(
        nodes=[("MatMul", ["x", "w"], "y", {})],
        inputs=BATCHES,
        outputs=(3, 3),
        constants={"w": NARROW},
        numpy=lambda f: f["x"] @ NARROW,
    ),
    "scalar input": Case(
        nodes=[("MatMul", ["x", "w"], "m", {}), ("Mul", ["m", "t"], "y", {})],
        inputs={"x": (1, 6), "t": ()},
        outputs=(1, 4),
        constants={"w": WIDE},
        numpy=lambda f: f["x"] @ WIDE * f["t"],
    ),
    "scalar output": Case(
        nodes=[("MatMul", ["x", "w"], "m", {}), ("ReduceSum", ["m"], "y", {"keepdims": 0})],
        inputs={"x": (1, 6)},
        outputs=(),
        constants={"w": WIDE},
        numpy=lambda f: (f["x"] @ WIDE).sum(),
    ),
    "logarithm": Case(
        nodes=[("Log", ["x"], "l", {}), ("MatMul", ["l", "w"], "y", {})],
        inputs={"x": (1, 6)},
        outputs=(1, 3),
        constants={"w": NARROW},
        numpy=lambda f: np.log(f["x"]) @ NARROW,
        draw=lambda shape: RNG.uniform(0.2, 3, shape),
    ),
    "time first": Case(
        nodes=[("MatMul", ["x", "w"], "m", {}), ("ReduceMax", ["m"], "y", {"axes": [0], "keepdims": 0})],
        inputs={"x": (20, 6)},
        outputs=(4,),
        constants={"w": WIDE},
        numpy=lambda f: (f["x"] @ WIDE).max(axis=0),
    ),
    **{f"rank {rank}": _deep(rank) for rank in range(7)},
}


@pytest.fixture
def request_for(tmp_path):
    def make(source: Path, target: str) -> ConvertRequest:
        step, precision = STEPS[target]
        out = tmp_path / "out"
        out.mkdir()
        return ConvertRequest(
            source=source,
            steps=(step,),
            format=target,
            options=ConvertOptions(precision=precision),
            out=out,
            scratch=tmp_path / "scratch",
        )

    return make


@pytest.mark.parametrize("target", STEPS)
@pytest.mark.parametrize("name", CASES)
def test_a_model_of_any_shape_is_converted_verified_and_right(name, target, request_for, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip(target if target == "openvino" else "onnx")
    case = CASES[name]
    request = request_for(case.write(tmp_path / "model.onnx"), target)
    result = convert(request, lambda _: None)
    assert result.proof["passed"]
    artifact = Artifact.open(request.out)
    with open_session(artifact) as session:
        assert check(artifact, session).passed
        for _ in range(3):
            feeds = case.feeds()
            answer = session.run(feeds)["y"]
            expected = case.numpy(feeds)
            assert answer.shape == np.shape(expected)
            assert np.allclose(answer, expected, rtol=0, atol=0.02 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("name", ["two inputs of one shape", "fixed batch", "scalar input", "scalar output", "rank 0"])
def test_it_runs_and_is_measured_from_outside(name, request_for, tmp_path):
    pytest.importorskip("onnxruntime")
    case = CASES[name]
    request = request_for(case.write(tmp_path / "model.onnx"), "onnx")
    convert(request, lambda _: None)
    feeds = case.feeds()
    with edge.open(request.out) as model:
        answer = model.run(feeds)["y"]
    assert answer.shape == np.shape(case.numpy(feeds))
    assert np.allclose(answer, case.numpy(feeds), rtol=0, atol=0.02 * max(1.0, np.abs(case.numpy(feeds)).max()))
    np.savez(tmp_path / "inputs.npz", **{key: np.stack([value] * 2) for key, value in feeds.items()})
    first, second = edge.run(request.out, [tmp_path / "inputs.npz"])
    for one in (first, second):
        assert one.task == "tensors"
        assert np.allclose(one.result.arrays["y"], answer)
    (row,) = edge.bench(request.out, edge.BenchOptions(protocol="published", runs=3, rounds=1)).rows
    assert row.is_ok


def test_swapped_inputs_of_one_shape_are_seen_and_the_error_tells_of_made_up_inputs(request_for, step, tmp_path):
    case = CASES["two inputs of one shape"]
    step.result = case.write(tmp_path / "swapped.onnx", swapped=True)
    with pytest.raises(ProofError, match="output 'y' is too far") as refusal:
        convert(request_for(case.write(tmp_path / "model.onnx"), "onnx"), lambda _: None)
    assert "synthetic: pass real ones with --calibration" in refusal.value.hint


def test_the_same_model_unswapped_passes(request_for, step, tmp_path):
    case = CASES["two inputs of one shape"]
    assert convert(request_for(case.write(tmp_path / "model.onnx"), "onnx"), lambda _: None).proof["passed"]


def test_other_made_up_values_than_usual_are_reported(request_for, step, tmp_path):
    result = convert(request_for(CASES["logarithm"].write(tmp_path / "model.onnx"), "onnx"), lambda _: None)
    (note,) = result.notes
    assert "positive values were used; pass real ones with --calibration" in note
    assert result.proof["range"][0] > 0


def test_a_source_that_draws_random_numbers_is_refused_by_node(request_for, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"], name="sample"),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, floats, [1, 6]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ProofError, match=r"draws random numbers: node 'sample' \(RandomNormalLike\)"):
        convert(request_for(tmp_path / "model.onnx", "onnx"), lambda _: None)
