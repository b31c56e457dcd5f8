"""Weights that follow a TFLite file's FlatBuffer are moved into it, and the answers stay the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.options import ConvertOptions
from converters.tflite.reader import read_tflite
from converters.tflite.writer import write_inline
from runtimes.errors import InputError

pytest.importorskip("ai_edge_litert")
MODELS = Path(__file__).parents[2] / "runtimes" / "models"


@pytest.fixture
def inside() -> Path:
    return MODELS / "quantized.tflite"


@pytest.fixture
def outside(inside, moved_outside, tmp_path) -> Path:
    return moved_outside(inside, tmp_path / "outside.tflite")


def answers(model: Path) -> list[np.ndarray]:
    """Of LiteRT to seeded inputs."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model))
    interpreter.allocate_tensors()
    generator, found = np.random.default_rng(0), []
    for _ in range(8):
        for given in interpreter.get_input_details():
            interpreter.set_tensor(given["index"], generator.integers(0, 256, given["shape"]).astype(given["dtype"]))
        interpreter.invoke()
        found += [interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()]
    return found


def constants(model: Path) -> list[tuple[str, bytes, bool]]:
    return [(one.spec.name, bytes(one.data.view), one.is_outside) for one in read_tflite(model).graphs[0].tensors]


def test_the_same_weights_are_read_wherever_they_stand(inside, outside):
    there = constants(outside)
    assert [one[:2] for one in there] == [one[:2] for one in constants(inside)]
    assert [is_outside for _, data, is_outside in there if data] == [True] * sum(bool(data) for _, data, _ in there)


@pytest.mark.parametrize("name", ["quantized.tflite", "litert.tflite"])
def test_put_inside_it_answers_the_same_bit_by_bit(tmp_path, moved_outside, name):
    outside = moved_outside(MODELS / name, tmp_path / "outside.tflite")
    found = write_inline(outside, tmp_path / "found.tflite")
    assert constants(found) == constants(MODELS / name)
    for mine, theirs in zip(answers(found), answers(outside), strict=True):
        assert np.array_equal(mine, theirs)
    assert write_inline(outside, tmp_path / "again.tflite").read_bytes() == found.read_bytes()


@pytest.mark.data
def test_data_start_at_multiples_of_16_bytes(data, moved_outside, tmp_path):
    inside = data / "edgetpu" / "mobilenet_v1_0.25_128_quant.tflite"
    found = write_inline(moved_outside(inside, tmp_path / "outside.tflite"), tmp_path / "found.tflite")
    content = found.read_bytes()
    places = [content.find(values) for _, values, _ in constants(found) if len(values) >= 256]
    assert places
    assert not any(place % 16 for place in places)


def test_a_file_that_was_cut_off_is_broken(outside, tmp_path):
    (tmp_path / "cut.tflite").write_bytes(outside.read_bytes()[:-32])
    with pytest.raises(InputError, match=r"truncated|points outside"):
        write_inline(tmp_path / "cut.tflite", tmp_path / "found.tflite")


@pytest.mark.data
def test_for_the_edge_tpu_weights_are_put_inside(data, moved_outside, tmp_path, monkeypatch):
    from converters.tflite_to_edgetpu import TfliteToEdgetpu

    monkeypatch.setenv("PATH", "/nowhere")
    inside = data / "edgetpu" / "mobilenet_v1_0.25_128_quant.tflite"
    outside, out = moved_outside(inside, tmp_path / "outside.tflite"), tmp_path / "out"
    out.mkdir()
    made = TfliteToEdgetpu().convert(outside, out, ConvertOptions(precision="int8", scratch=str(tmp_path)), None)
    assert made.notes[0] == "weights outside the FlatBuffer were moved into it"
    assert constants(made.model) == constants(inside)
    assert all(np.array_equal(*pair) for pair in zip(answers(made.model), answers(outside), strict=True))
    made = TfliteToEdgetpu().convert(inside, out, ConvertOptions(precision="int8", scratch=str(tmp_path)), None)
    assert made.model.read_bytes() == inside.read_bytes()


@pytest.mark.data
def test_int8_operators_get_the_versions_that_int8_asks_for(data, moved_outside, tmp_path):
    outside = moved_outside(data / "edgetpu" / "keras_lstm_mnist_ptq.tflite", tmp_path / "outside.tflite")
    operators = read_tflite(write_inline(outside, tmp_path / "found.tflite")).graphs[0].operators
    found = {(one.name, one.version) for one in operators}
    assert ("FULLY_CONNECTED", 4) in found
    assert ("SOFTMAX", 2) in found
    assert ("RESHAPE", 1) in found
