"""Routes are the shortest there are; what a device cannot do is refused before any work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from converters.source import Source, open_source
from converters.steps import find_steps, taken
from edge.plan import Wish, examined, find_route, make_plan
from runtimes.artifact import Artifact, Manifest
from runtimes.errors import EdgeError, InputError, RefusedError, UsageError


def source(model_format: str = "keras", precision: str = "fp32") -> Source:
    return Source(Artifact(Path(), Manifest("m", model_format, precision, f"m.{model_format}")), "0" * 64)


@dataclass(frozen=True)
class Fake:
    source: str
    target: str
    precisions: tuple[str, ...] = ("fp32",)
    requires: tuple[str, ...] = ()


def ids(route) -> list[str] | None:
    return None if route is None else [f"{step.source}_{step.target}" for step in route]


def test_the_shortest_route_wins():
    steps = [Fake("a", "b"), Fake("b", "c"), Fake("c", "d"), Fake("b", "d")]
    assert ids(find_route(source("a"), "d", "fp32", steps)) == ["a_b", "b_d"]


def test_only_the_last_step_takes_the_precision():
    steps = [Fake("a", "b", ("fp32", "int8")), Fake("b", "c", ("int8",)), Fake("b", "b", ("int8",))]
    assert ids(find_route(source("a"), "c", "int8", steps)) == ["a_b", "b_c"]
    assert ids(find_route(source("a"), "b", "int8", steps)) == ["a_b"]
    assert ids(find_route(source("b"), "b", "int8", steps)) == ["b_b"]
    assert find_route(source("a"), "c", "fp32", steps) is None


def test_the_movidius_stick_is_served_by_its_own_release_in_its_own_environment():
    plan = make_plan(source(), Wish("ncs2"))
    assert plan.steps == ("keras_to_onnx", "onnx_to_openvino")
    assert (plan.format, plan.precision, plan.opset, plan.release) == ("openvino", "fp16", 13, "2021.4")
    assert plan.environments == ("openvino_2021_4",)
    today = make_plan(source(), Wish(format="openvino", precision="fp16"))
    assert (today.release, today.environments) == (None, ())


def test_a_step_that_needs_an_environment_names_it():
    plan = make_plan(source("onnx"), Wish(format="tflite"))
    assert (plan.steps, plan.environments) == (("onnx_to_tflite",), ("onnx2tf",))
    assert make_plan(source(), Wish(format="tflite")).environments == ()


def test_cycles_end():
    assert find_route(source("a"), "z", "fp32", [Fake("a", "b"), Fake("b", "a")]) is None


@pytest.mark.parametrize("precision", ["int8", "w8"])
def test_a_quantised_source_is_packed_and_never_quantised_again(precision):
    steps = [Fake("a", "b", ("fp32", precision))]
    assert find_route(source("a", precision), "b", precision, steps) is None
    assert find_route(source("a", precision), "b", "fp32", steps) is None
    assert find_route(source("a", precision), "a", precision, steps) == ()
    plan = make_plan(source("tflite", precision), Wish(format="tflite"))
    assert (plan.steps, plan.precision) == ((), precision)
    with pytest.raises(UsageError) as caught:
        make_plan(source("tflite", precision), Wish(format="openvino"))
    assert "float model" in caught.value.hint


def test_what_is_there_already_is_packed():
    assert find_route(source("a", "fp32"), "a", "fp32", []) == ()
    assert find_route(source("a", "fp32"), "a", "fp16", []) is None


def test_a_bare_file_tells_its_precision_and_inputs(classifier):
    found = examined(open_source(classifier))
    assert (found.format, found.precision) == ("onnx", "fp32")
    assert found.artifact.manifest.inputs[0].shape == (1, 4, 4, 3)
    assert found.artifact.is_bare


@pytest.mark.parametrize(
    ("wish", "steps", "precision"),
    [
        (Wish(format="tflite"), ("keras_to_tflite",), "fp32"),
        (Wish(format="tflite", precision="int8"), ("keras_to_tflite",), "int8"),
        (Wish(format="onnx"), ("keras_to_onnx",), "fp32"),
        (Wish(format="openvino", precision="fp16"), ("keras_to_onnx", "onnx_to_openvino"), "fp16"),
        (Wish(device="raspberry-pi-4"), ("keras_to_tflite",), "int8"),
        (Wish(device="raspberry-pi-4", precision="fp32"), ("keras_to_tflite",), "fp32"),
        (Wish(device="raspberry-pi-4", format="onnx", precision="fp32"), ("keras_to_onnx",), "fp32"),
        (Wish(device="i7-7700k"), ("keras_to_onnx", "onnx_to_openvino"), "fp32"),
        (Wish(device="coral-usb"), ("keras_to_tflite", "tflite_to_edgetpu"), "int8"),
        (Wish(device="jetson-nano"), ("keras_to_onnx", "onnx_to_tensorrt"), "fp16"),
        (Wish(device="jetson-orin-nano"), ("keras_to_onnx", "onnx_to_tensorrt"), "int8"),
    ],
)
def test_the_routes_of_the_table(wish, steps, precision):
    plan = make_plan(source(), wish, has_calibration=True)
    assert (plan.steps, plan.precision, plan.device) == (steps, precision, wish.device)


def test_every_step_there_is_can_be_reached():
    for step in find_steps():
        for precision in step.precisions:
            wish = Wish(format=step.target, precision=precision)
            start = source(step.source, taken(step))
            assert make_plan(start, wish, has_calibration=True).precision == precision


@pytest.mark.parametrize(
    ("wish", "release", "opset"),
    [
        (Wish("jetson-nano"), "8.2.1", None),
        (Wish("jetson-xavier-nx"), "8.5.2", None),
        (Wish("jetson-agx-orin"), "10.3.0", None),
        (Wish("jetson-agx-orin", release="8.6"), "8.6.0", None),
        (Wish("jetson-agx-orin", opset=18), "10.3.0", 18),
        (Wish(format="tensorrt"), "10.3.0", None),
    ],
)
def test_each_board_has_its_release_of_tensorrt_which_has_its_own_opset(wish, release, opset):
    plan = make_plan(source(), wish, has_calibration=True)
    assert (plan.format, plan.release, plan.opset) == ("tensorrt", release, opset)


def test_the_old_runtime_is_asked_on_request_only():
    assert make_plan(source(), Wish("coral-usb"), has_calibration=True).environments == ()
    asked = make_plan(source(), Wish("coral-usb", old_runtime=True), has_calibration=True)
    assert (asked.format, asked.environments) == ("edgetpu", ("tflite_2_7",))


def test_what_was_made_for_one_machine_is_the_end_of_a_route():
    with pytest.raises(InputError, match="made for TensorRT"):
        make_plan(source("tensorrt"), Wish(format="onnx"))


def test_what_is_quantised_already_needs_no_calibration_data():
    plan = make_plan(source("tflite", "int8"), Wish("coral-usb", min_mapped=0.9))
    assert (plan.steps, plan.min_mapped) == (("tflite_to_edgetpu",), 0.9)
    assert find_route(source("tflite"), "edgetpu", "int8", find_steps()) is None


@pytest.mark.parametrize(
    ("wish", "kind", "message", "hint"),
    [
        (Wish("jetson-nano", "tensorrt", "int8"), RefusedError, "cannot take int8 in tensorrt", "what works: fp16"),
        (Wish("ncs2", None, "fp32"), RefusedError, "cannot take fp32 in openvino", "what works: fp16"),
        (Wish("ncs1"), RefusedError, "OpenVINO 2020.3 LTS is the last that supports Myriad 2", "2020.3 LTS"),
        (Wish("ncs1", None, "fp32"), RefusedError, "cannot take fp32 in openvino", "what works: fp16"),
        (Wish("coral-usb", "edgetpu", "fp32"), RefusedError, "cannot take fp32", "int8"),
        (Wish("coral-usb", "onnx"), RefusedError, "does not take onnx", "it takes: edgetpu"),
        (Wish("raspberry-pi-4", "tflite", "q4_0"), RefusedError, "does not run tflite in q4_0", "int8, fp32"),
        (Wish("jetson-nano", "onnx", "fp32", 17), RefusedError, "opset 13 or lower, not 17", "--opset 13"),
        (Wish("raspberry-pi-9"), UsageError, "raspberry-pi-9", "raspberry-pi"),
        (Wish(), UsageError, "no target", "--for DEVICE"),
        (Wish(format="gold"), UsageError, "nothing here leads from keras fp32 to gold fp32", "tflite fp32"),
        (Wish(format="onnx", precision="q4_0"), UsageError, "to onnx q4_0", "onnx fp32, onnx fp16, onnx w8"),
        (Wish(format="tflite", opset=13), UsageError, "--opset is ONNX's", "leave it out"),
        (Wish("jetson-nano", precision="int8"), RefusedError, "cannot take int8 in tensorrt", "what works: fp16"),
        (
            Wish("jetson-orin-nano", release="11.0", implicit=True),
            RefusedError,
            "takes no calibration cache",
            "--implicit",
        ),
        (Wish("jetson-nano", implicit=True), RefusedError, "cannot take int8", "what works: fp16"),
        (Wish("jetson-nano", None, "fp16", implicit=True), UsageError, "a way to int8, not to fp16", "int8"),
        (Wish("jetson-nano", "tensorrt", opset=17), RefusedError, "opset 13 or lower, not 17", "--opset 13"),
        (Wish("jetson-nano", release="8.6", opset=18), RefusedError, "8.6 takes ONNX opset 17 or lower", "--opset 17"),
        (Wish("jetson-nano", release="soon"), UsageError, "'soon' is no release of TensorRT", "dpkg"),
        (Wish(format="tflite", min_mapped=0.9), UsageError, "--min-mapped says nothing to tflite", "leave it out"),
        (Wish(format="tflite", release="8.2"), UsageError, "--tensorrt says nothing to tflite", "leave it out"),
    ],
)
def test_refusals_name_what_works(wish, kind, message, hint):
    with pytest.raises(EdgeError) as caught:
        make_plan(source(), wish, has_calibration=True)
    assert type(caught.value) is kind
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_what_no_data_could_help_is_refused_before_data_are_asked_for():
    with pytest.raises(RefusedError, match="takes no calibration cache"):
        make_plan(source(), Wish(format="tensorrt", release="11.0", implicit=True))


def test_an_opset_that_a_packed_model_does_not_have_is_not_ignored():
    with pytest.raises(UsageError, match="--opset 99 cannot be met"):
        make_plan(source("onnx"), Wish(format="onnx", opset=99))


def test_int8_without_calibration_data_is_refused():
    with pytest.raises(UsageError) as caught:
        make_plan(source(), Wish("raspberry-pi-4"))
    assert "tflite int8 needs calibration data" in caught.value.message
    assert caught.value.hint.endswith("--precision fp32")


@pytest.fixture
def without_compilers(monkeypatch):
    steps = tuple(step for step in find_steps() if step.target not in ("edgetpu", "tensorrt"))
    monkeypatch.setattr("edge.plan.find_steps", lambda: steps)


def test_a_format_that_nothing_writes_is_passed_over_aloud(without_compilers):
    plan = make_plan(source(), Wish("raspberry-pi-3b-plus+coral-usb"), has_calibration=True)
    assert (plan.format, plan.precision) == ("tflite", "int8")
    assert "edgetpu" in plan.notes[0]


def test_onnx_for_a_device_suits_everything_there_that_is_built_from_it(without_compilers):
    plan = make_plan(source(), Wish("jetson-nano"), has_calibration=True)
    assert (plan.format, plan.opset) == ("onnx", 13)
    assert "tensorrt" in plan.notes[0]


def test_a_source_that_no_step_takes_is_told_what_to_export():
    with pytest.raises(UsageError) as caught:
        make_plan(source("null"), Wish(format="tflite"))
    assert "a source that is keras, onnx" in caught.value.hint


def test_a_compiled_model_is_the_end_of_a_route():
    with pytest.raises(InputError) as caught:
        make_plan(source("edgetpu"), Wish(format="onnx"))
    assert "compiled from" in caught.value.hint
