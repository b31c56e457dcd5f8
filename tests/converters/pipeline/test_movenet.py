"""A real int8 pose network whose key points come from two ArgMax over heat maps: converted, and with planted faults."""

from __future__ import annotations

import csv

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
pytest.importorskip("openvino", reason="OpenVINO is not installed")

import edge
from converters.options import ConvertOptions
from converters.pipeline import convert as pipeline
from converters.pipeline.request import ConvertRequest
from converters.tflite.writer import operator_name, read_network, serialize, write_inline
from converters.tflite_to_openvino import TfliteToOpenvino
from edge.conversion.datasets import ConversionInputs
from runtimes.errors import ProofError
from tests.breadth.real_inputs import MODELS

pytestmark = pytest.mark.data
NAME = "movenet_single_pose_lightning_ptq"
HEAT_MAPS, OFFSETS = "kpt_heatmap_0/conv2d_5", "kpt_offset_0/conv2d_7"


@pytest.fixture(scope="module")
def pictures(data, tmp_path_factory):
    """Crops of the picture of a person."""
    model = next(one for one in MODELS if one.name == f"{NAME}.tflite")
    path = tmp_path_factory.mktemp("pictures") / "pictures.npz"
    np.savez(path, **model.make(data / "real", np.random.default_rng(1), 32))
    return path


@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_it_is_proven_and_finds_the_key_points(data, pictures, tmp_path, target):
    if target == "onnx":
        pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    source = data / "real" / f"{NAME}.tflite"
    inputs = ConversionInputs(calibration=pictures)
    made = edge.convert(source, tmp_path / "made", format=target, precision="int8", inputs=inputs)
    assert any("ARG_MAX chooses another index than in the source" in note for note in made.notes)
    assert edge.verify(made.artifact).passed
    pillow = pytest.importorskip("PIL.Image")
    with pillow.open(data / "real" / "squat.bmp") as picture:  # resized as in the program that made the reference
        pixels = np.asarray(picture.convert("RGB").resize((192, 192), pillow.Resampling.LANCZOS))[np.newaxis]
    with edge.open(made.artifact) as model:
        (points,) = model.run({model.inputs[0].name: pixels.astype(model.inputs[0].dtype)}).values()
    found = points.reshape(17, 3)[:, 1::-1]
    with (data / "real" / f"{NAME}_reference.csv").open(encoding="utf-8") as lines:
        wanted = np.array([(float(one["keypoint_x"]), float(one["keypoint_y"])) for one in csv.DictReader(lines)])
    assert np.abs(found - wanted).max() < 0.04


def tensors_of(graph, name):
    """The weights and the bias of a convolution, and the tensor that it reads."""
    operator = next(one for one in graph.operators if graph.tensors[one.inputs[-1]].name.decode().startswith(name))
    return [graph.tensors[place] for place in operator.inputs]


def exchange_heat_maps(network):
    _, *parts = tensors_of(network.subgraphs[0], HEAT_MAPS)
    for tensor in parts:
        rows = np.array(network.buffers[tensor.buffer].data).reshape(17, -1)
        rows[[5, 16]] = rows[[16, 5]]
        network.buffers[tensor.buffer].data = rows.reshape(-1)
        scales = tensor.quantization.scale.copy()
        scales[[5, 16]] = scales[[16, 5]]
        tensor.quantization.scale = scales


def shift_offsets(network):
    """Add 3 of 48 cells."""
    _, _, bias = tensors_of(network.subgraphs[0], OFFSETS)
    buffer = network.buffers[bias.buffer]
    steps = np.frombuffer(bytes(bytearray(buffer.data)), np.int32) + np.round(3 / bias.quantization.scale)
    buffer.data = np.frombuffer(steps.astype(np.int32).tobytes(), np.uint8)


def resize_from_corners(network):
    for operator in network.subgraphs[0].operators:
        if operator_name(network, operator) == "RESIZE_BILINEAR":
            operator.builtinOptions.halfPixelCenters = False
            operator.builtinOptions.alignCorners = True


@pytest.mark.parametrize("fault", [exchange_heat_maps, shift_offsets, resize_from_corners])
def test_a_fault_is_not_taken_for_rounding(data, pictures, tmp_path, monkeypatch, fault):
    plain = TfliteToOpenvino._with_own_scales

    def planted(self, model, out, options):
        copy = write_inline(model, tmp_path / model.name)
        network = read_network(copy)
        fault(network)
        copy.write_bytes(serialize(network))
        return plain(self, copy, out, options)

    monkeypatch.setattr(TfliteToOpenvino, "_with_own_scales", planted)
    (tmp_path / "out").mkdir()
    request = ConvertRequest(
        source=data / "real" / f"{NAME}.tflite",
        steps=("tflite_to_openvino",),
        format="openvino",
        options=ConvertOptions(precision="int8"),
        out=tmp_path / "out",
        scratch=tmp_path / "scratch",
        samples=pictures,
    )
    with pytest.raises(ProofError, match="with the source's choices at ARG_MAX"):
        pipeline.convert(request, lambda _: None)
