"""A model gives the same answers on a board and here: int8 on LiteRT bit for bit, others within a bound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge.inference.images import find_pictures, load_all
from runtimes.arrays import load_arrays
from runtimes.artifact.manifest import Preprocess
from runtimes.jobs import EngineOptions, RunJob
from tests.boards.copying import send
from tests.boards.stand import Board

STRETCHED = Preprocess("stretch", 224, (224, 224), "bilinear", "NHWC", "RGB", (0.0,) * 3, (1.0,) * 3)
# Both take uint8 pixels. Within, one is int8 with a scale for each channel, the other uint8 with one a tensor.
INT8 = "tf2_mobilenet_v2_1.0_224_ptq.tflite"
UINT8 = "mobilenet_v2_1.0_224_quant.tflite"
# XNNPACK rounds a channel's int8 sums in the same way everywhere, uint8 sums in another on ARM (its "rndnu" kernels)
# than on x86 ("fp32"). Measured with LiteRT 2.3.0: equal to the bit on three of the four pictures; on the fourth 5 of
# 1001 values differ, by 7 of 256 at most. On one machine LiteRT's own sets of kernels differ by up to 14, for int8 too.
UINT8_STEPS, UINT8_SHARE = 8, 0.01
# Of the range of the outputs. Both sides add the same float32 products, in another order.
FP32_BOUND = 1e-5


@pytest.fixture(scope="module")
def pictures(data: Path) -> np.ndarray:
    """Decoded and resized here, as for every board: uint8 [n, 224, 224, 3]."""
    return load_all(find_pictures(data / "images")[:2], STRETCHED)


@pytest.mark.data
def test_int8_is_equal_to_the_bit(data: Path, pictures: np.ndarray, pi: Board, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    here, there = both(data / "mobilenet_v2" / INT8, pictures[:, np.newaxis], pi, tmp_path)
    assert len(here) == len(pictures)
    assert np.ptp(here) > 0
    np.testing.assert_array_equal(here, there)


@pytest.mark.data
def test_uint8_has_the_same_first_and_differs_by_rounding(
    data: Path, pictures: np.ndarray, pi: Board, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    here, there = both(data / "mobilenet_v2" / UINT8, pictures[:, np.newaxis], pi, tmp_path)
    assert here.dtype == there.dtype == np.uint8
    np.testing.assert_array_equal(here.argmax(-1), there.argmax(-1))
    steps = np.abs(here.astype(int) - there)
    assert steps.max() <= UINT8_STEPS
    assert (steps > 0).mean() <= UINT8_SHARE


def test_fp32_onnx_differs_by_rounding_alone(pi: Board, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    inputs = np.random.default_rng(7).normal(size=(2, 1, 3, 64, 64)).astype(np.float32)
    here, there = both(convolutions(tmp_path / "convolutions.onnx"), inputs, pi, tmp_path)
    assert np.ptp(here) > 0
    assert np.abs(here - there).max() <= FP32_BOUND * np.ptp(here)


def both(model: Path, inputs: np.ndarray, board: Board, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of one `runtimes.worker` here and of one there, raw, for the same files."""
    from edge.workers.process import run_job

    np.savez(folder / "inputs.npz", input=inputs)
    inputs, outputs = str(folder / "inputs.npz"), str(folder / "here.npz")
    job = RunJob(str(model), inputs, outputs, options=EngineOptions(threads=1))
    run_job(job, timeout_s=100)

    send(board, "runtimes")
    for file in (model, folder / "inputs.npz"):
        shutil.copy(file, board.home)
    there = job.with_files(artifact=model.name, inputs="inputs.npz", outputs="there.npz").to_json()
    done = board.ssh("python3 -m runtimes.worker", input=json.dumps(there) + "\n")
    answer = json.loads(done.stdout.splitlines()[-1])
    assert "error" not in answer, answer
    return only(folder / "here.npz"), only(board.home / "there.npz")


def only(path: Path) -> np.ndarray:
    """The one array of a file."""
    (array,) = load_arrays(path).values()
    return array


def convolutions(path: Path) -> Path:
    """A small convolutional network in fp32: full, depthwise and pointwise, as MobileNets are made of."""
    onnx = pytest.importorskip("onnx")
    helper, float32, draw = onnx.helper, onnx.TensorProto.FLOAT, np.random.default_rng(5)
    shapes = {"full": (16, 3, 3, 3), "depth": (16, 1, 3, 3), "point": (32, 16, 1, 1), "dense": (32, 10)}
    weights = [
        onnx.numpy_helper.from_array(draw.normal(0, 0.3, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    padded = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    nodes = [
        helper.make_node("Conv", ["image", "full"], ["a"], strides=[2, 2], **padded),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "depth"], ["c"], group=16, **padded),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "point"], ["e"], kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("MatMul", ["g", "dense"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", float32, [1, 3, 64, 64])
    logits = helper.make_tensor_value_info("logits", float32, [1, 10])
    graph = helper.make_graph(nodes, "convolutions", [image], [logits], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path
