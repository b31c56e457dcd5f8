"""Routes are the shortest possible; what a device does not support is refused before any work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from converters.onnx_to_tensorrt import OnnxToTensorrt
from converters.options import ConvertOptions
from converters.registry import all_converters
from converters.sources.artifact import open_source
from converters.sources.source import OpenedSource
from converters.tflite_to_edgetpu import TfliteToEdgetpu
from edge.conversion.planning import ConversionRequest, find_route, plan_conversion, with_inspected_specs
from runtimes.artifact import Artifact, Manifest
from runtimes.errors import EdgeError, InputError, RefusedError, UsageError


def source(model_format: str = "keras", precision: str = "fp32") -> OpenedSource:
    return OpenedSource(
        artifact=Artifact(Path(), Manifest("m", model_format, precision, f"m.{model_format}")), sha256="0" * 64
    )


@dataclass(frozen=True)
class Fake:
    source: str
    target: str
    precisions: tuple[str, ...] = ("fp32",)
    requires: tuple[str, ...] = ()
    input_precision: str = "fp32"
    packs: bool = False
    reads_quantized: bool = False
    keeps_quantized: tuple[str, ...] = ()
    rank: int = 0
    isolated: tuple[str, ...] = ()
    Options = ConvertOptions

    def reads(self, precision: str) -> str:
        return precision if self.packs else self.input_precision

    def environments(self, _options: ConvertOptions) -> tuple[str, ...]:
        return self.isolated


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
    plan = plan_conversion(source(), ConversionRequest(device="ncs2"))
    assert plan.steps == ("keras_to_onnx", "onnx_to_openvino")
    assert (plan.format, plan.precision, plan.options.opset, plan.options.release) == ("openvino", "fp16", 13, "2021.4")
    assert plan.environments == ("openvino_2021_4",)
    today = plan_conversion(source(), ConversionRequest(format="openvino", precision="fp16"))
    assert (today.options.release, today.environments) == (None, ())


def test_a_step_that_needs_an_environment_names_it():
    plan = plan_conversion(source("onnx"), ConversionRequest(format="tflite"))
    assert (plan.steps, plan.environments) == (("onnx_to_tflite",), ("onnx2tf",))
    assert plan_conversion(source(), ConversionRequest(format="tflite")).environments == ()


def test_a_step_that_packs_follows_the_step_that_writes_the_precision():
    precisions = ("fp32", "int8")
    steps = [
        Fake("a", "b", precisions, isolated=("slow",)),
        Fake("a", "c", precisions),
        Fake("b", "z", precisions, packs=True),
        Fake("c", "z", ("int8",), packs=True, rank=1),
    ]
    assert ids(find_route(source("a"), "z", "int8", steps)) == ["a_c", "c_z"]  # no environment
    assert ids(find_route(source("a"), "z", "fp32", steps)) == ["a_b", "b_z"]  # c_z does not take it
    assert ids(find_route(source("b", "int8"), "z", "int8", steps)) == ["b_z"]
    steps[0] = Fake("a", "b", precisions)
    assert ids(find_route(source("a"), "z", "int8", steps)) == ["a_b", "b_z"]  # the lower rank
    assert find_route(source("b", "int8"), "z", "fp32", steps) is None


@pytest.mark.parametrize(
    ("model", "precision", "steps"),
    [
        ("keras", None, ("keras_to_tflite", "tflite_to_browser")),
        ("keras", "w8", ("keras_to_tflite", "tflite_to_browser")),
        ("tflite", "fp32", ("tflite_to_browser",)),
        ("onnx", "fp32", ("onnx_to_browser",)),
        ("onnx", "w8", ("onnx_to_onnx", "onnx_to_browser")),
        ("onnx", None, ("onnx_to_tflite", "tflite_to_browser")),
        ("pt2", "w8", ("pt2_to_onnx", "onnx_to_onnx", "onnx_to_browser")),
    ],
)
def test_in_a_browser_litert_runs_what_becomes_tflite_and_onnx_runtime_the_rest(model, precision, steps):
    plan = plan_conversion(source(model), ConversionRequest(device="browser", precision=precision), True)
    assert (plan.steps, plan.precision) == (steps, precision or "int8")


def test_cycles_end():
    assert find_route(source("a"), "z", "fp32", [Fake("a", "b"), Fake("b", "a")]) is None


@pytest.mark.parametrize("precision", ["int8", "w8"])
def test_a_quantized_source_is_packed_and_never_quantized_again(precision):
    steps = [Fake("a", "b", ("fp32", precision))]
    assert find_route(source("a", precision), "b", precision, steps) is None
    assert find_route(source("a", precision), "b", "fp32", steps) is None
    assert find_route(source("a", precision), "a", precision, steps) == ()
    plan = plan_conversion(source("tflite", precision), ConversionRequest(format="tflite"))
    assert (plan.steps, plan.precision) == ((), precision)
    with pytest.raises(UsageError) as caught:
        plan_conversion(source("tflite", precision), ConversionRequest(format="openvino", precision="fp32"))
    assert "float model" in caught.value.hint


def test_a_precision_that_only_the_source_has_is_not_called_the_users_wish():
    with pytest.raises(UsageError, match="cannot convert onnx w4 to openvino w4") as caught:
        plan_conversion(source("onnx", "w4"), ConversionRequest(format="openvino"))
    assert "start from the float model" in caught.value.hint


def test_a_step_that_reads_quantized_models_takes_them_in_their_own_precision_only():
    steps = [Fake("a", "b", ("fp32", "fp16", "int8"), reads_quantized=True)]
    assert find_route(source("a", "int8"), "b", "int8", steps) == (steps[0],)
    assert find_route(source("a", "int8"), "b", "fp16", steps) is None


@pytest.mark.parametrize("precision", ["int8", "w8"])
@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_a_quantized_source_keeps_its_precision_where_a_step_keeps_it(precision, target):
    plan = plan_conversion(source("tflite", precision), ConversionRequest(format=target))
    assert (plan.steps, plan.precision) == ((f"tflite_to_{target}",), precision)


def test_what_is_there_already_is_packed():
    assert find_route(source("a", "fp32"), "a", "fp32", []) == ()
    assert find_route(source("a", "fp32"), "a", "fp16", []) is None


def test_a_bare_file_tells_its_precision_and_inputs(classifier):
    found = with_inspected_specs(open_source(classifier))
    assert (found.format, found.precision) == ("onnx", "fp32")
    assert found.artifact.manifest.inputs[0].shape == (1, 4, 4, 3)
    assert found.artifact.is_bare


@pytest.mark.parametrize(
    ("wish", "steps", "precision"),
    [
        (ConversionRequest(format="tflite"), ("keras_to_tflite",), "fp32"),
        (ConversionRequest(format="tflite", precision="int8"), ("keras_to_tflite",), "int8"),
        (ConversionRequest(format="onnx"), ("keras_to_onnx",), "fp32"),
        (ConversionRequest(format="edgetpu"), ("keras_to_tflite", "tflite_to_edgetpu"), "int8"),
        (ConversionRequest(format="openvino", precision="fp16"), ("keras_to_onnx", "onnx_to_openvino"), "fp16"),
        (ConversionRequest(device="raspberry-pi-4"), ("keras_to_tflite",), "int8"),
        (ConversionRequest(device="raspberry-pi-4", precision="fp32"), ("keras_to_tflite",), "fp32"),
        (ConversionRequest(device="raspberry-pi-4", format="onnx", precision="fp32"), ("keras_to_onnx",), "fp32"),
        (ConversionRequest(device="i7-7700k"), ("keras_to_onnx", "onnx_to_openvino"), "fp32"),
        (ConversionRequest(device="coral-usb"), ("keras_to_tflite", "tflite_to_edgetpu"), "int8"),
        (ConversionRequest(device="jetson-nano"), ("keras_to_onnx", "onnx_to_tensorrt"), "fp16"),
        (ConversionRequest(device="jetson-orin-nano"), ("keras_to_onnx", "onnx_to_tensorrt"), "int8"),
    ],
)
def test_the_routes_of_the_table(wish, steps, precision):
    plan = plan_conversion(source(), wish, has_calibration=True)
    assert (plan.steps, plan.precision, plan.device) == (steps, precision, wish.device)


def test_a_model_without_float_weights_is_packed_and_never_sent_through_another_format():
    assert find_route(source("onnx", "unknown"), "onnx", "fp32", all_converters()) == ()
    steps = (Fake("onnx", "tflite"), Fake("tflite", "onnx"))
    assert find_route(source("onnx", "int4"), "onnx", "fp32", steps) is None


def test_every_step_there_is_can_be_reached():
    for step in all_converters():
        for precision in step.precisions:
            wish = ConversionRequest(format=step.target, precision=precision)
            start = source(step.source, step.reads(precision))
            assert plan_conversion(start, wish, has_calibration=True).precision == precision


@pytest.mark.parametrize(
    ("wish", "release", "opset"),
    [
        (ConversionRequest(device="jetson-nano"), "8.2.1", None),
        (ConversionRequest(device="jetson-xavier-nx"), "8.5.2", None),
        (ConversionRequest(device="jetson-agx-orin"), "10.3.0", None),
        (ConversionRequest(device="jetson-agx-orin", options=OnnxToTensorrt.Options(release="8.6")), "8.6.0", None),
        (ConversionRequest(device="jetson-agx-orin", options=ConvertOptions(opset=18)), "10.3.0", 18),
        (ConversionRequest(format="tensorrt"), "10.3.0", None),
    ],
)
def test_each_board_has_its_release_of_tensorrt_which_has_its_own_opset(wish, release, opset):
    plan = plan_conversion(source(), wish, has_calibration=True)
    assert (plan.format, plan.options.release, plan.options.opset) == ("tensorrt", release, opset)


def test_the_old_runtime_is_asked_on_request_only():
    assert plan_conversion(source(), ConversionRequest(device="coral-usb"), has_calibration=True).environments == ()
    asked = plan_conversion(
        source(),
        ConversionRequest(device="coral-usb", options=TfliteToEdgetpu.Options(old_runtime=True)),
        has_calibration=True,
    )
    assert (asked.format, asked.environments) == ("edgetpu", ("tflite_2_7",))


def test_what_was_made_for_one_machine_is_the_end_of_a_route():
    with pytest.raises(InputError, match="made for TensorRT"):
        plan_conversion(source("tensorrt"), ConversionRequest(format="onnx"))


def test_what_is_quantized_already_needs_no_calibration_data():
    plan = plan_conversion(
        source("tflite", "int8"), ConversionRequest(device="coral-usb", options=TfliteToEdgetpu.Options(min_mapped=0.9))
    )
    assert (plan.steps, plan.options.min_mapped) == (("tflite_to_edgetpu",), 0.9)
    route = find_route(source("tflite"), "edgetpu", "int8", all_converters())
    assert [step.id for step in route or ()] == ["tflite_to_tflite", "tflite_to_edgetpu"]


@pytest.mark.parametrize(
    ("wish", "kind", "message", "hint"),
    [
        (
            ConversionRequest(device="jetson-nano", format="tensorrt", precision="int8"),
            RefusedError,
            "cannot take int8 in tensorrt",
            "what works: fp16",
        ),
        (
            ConversionRequest(device="ncs2", precision="fp32"),
            RefusedError,
            "cannot take fp32 in openvino",
            "what works: fp16",
        ),
        (
            ConversionRequest(device="ncs1"),
            RefusedError,
            "OpenVINO 2020.3 LTS is the last that supports Myriad 2",
            "2020.3 LTS",
        ),
        (
            ConversionRequest(device="ncs1", precision="fp32"),
            RefusedError,
            "cannot take fp32 in openvino",
            "what works: fp16",
        ),
        (
            ConversionRequest(device="coral-usb", format="edgetpu", precision="fp32"),
            RefusedError,
            "cannot take fp32",
            "int8",
        ),
        (ConversionRequest(device="coral-usb", format="onnx"), RefusedError, "does not take onnx", "it takes: edgetpu"),
        (
            ConversionRequest(device="raspberry-pi-4", format="tflite", precision="q4_0"),
            RefusedError,
            "does not run tflite in q4_0",
            "int8, fp32",
        ),
        (
            ConversionRequest(device="jetson-nano", format="onnx", precision="fp32", options=ConvertOptions(opset=17)),
            RefusedError,
            "opset 13 or lower, not 17",
            "--opset 13",
        ),
        (ConversionRequest(device="raspberry-pi-9"), UsageError, "raspberry-pi-9", "raspberry-pi"),
        (ConversionRequest(), UsageError, "no target", "--for DEVICE"),
        (
            ConversionRequest(format="gold"),
            UsageError,
            "edge writes no format 'gold'",
            "openvino",
        ),
        (ConversionRequest(format="openvinoo"), UsageError, "no format 'openvinoo'", "did you mean openvino?"),
        (
            ConversionRequest(format="onnx", precision="itn8"),
            UsageError,
            "no precision 'itn8'",
            "did you mean int8?",
        ),
        (
            ConversionRequest(format="onnx", precision="q4_0"),
            UsageError,
            "to onnx q4_0",
            "onnx fp32, onnx fp16, onnx w8",
        ),
        (
            ConversionRequest(format="tflite", options=ConvertOptions(opset=13)),
            UsageError,
            "--opset needs a conversion through ONNX",
            "leave it out",
        ),
        (
            ConversionRequest(device="jetson-nano", precision="int8"),
            RefusedError,
            "cannot take int8 in tensorrt",
            "what works: fp16",
        ),
        (
            ConversionRequest(device="jetson-orin-nano", options=OnnxToTensorrt.Options(release="11.0", implicit=True)),
            RefusedError,
            "does not read calibration caches",
            "--implicit",
        ),
        (
            ConversionRequest(device="jetson-nano", options=OnnxToTensorrt.Options(implicit=True)),
            RefusedError,
            "cannot take int8",
            "what works: fp16",
        ),
        (
            ConversionRequest(device="jetson-nano", precision="fp16", options=OnnxToTensorrt.Options(implicit=True)),
            UsageError,
            "only for int8, not for fp16",
            "int8",
        ),
        (
            ConversionRequest(device="jetson-nano", format="tensorrt", options=ConvertOptions(opset=17)),
            RefusedError,
            "opset 13 or lower, not 17",
            "--opset 13",
        ),
        (
            ConversionRequest(device="jetson-nano", options=OnnxToTensorrt.Options(release="8.6", opset=18)),
            RefusedError,
            "8.6 takes ONNX opset 17 or lower",
            "--opset 17",
        ),
        (
            ConversionRequest(device="jetson-nano", options=OnnxToTensorrt.Options(release="soon")),
            UsageError,
            "'soon' is not a release of TensorRT",
            "dpkg",
        ),
        (
            ConversionRequest(format="tflite", options=TfliteToEdgetpu.Options(min_mapped=0.9)),
            UsageError,
            "--min-mapped does not apply to tflite",
            "leave it out",
        ),
        (
            ConversionRequest(format="tflite", options=OnnxToTensorrt.Options(release="8.2")),
            UsageError,
            "--tensorrt does not apply to tflite",
            "leave it out",
        ),
    ],
)
def test_refusals_name_what_works(wish, kind, message, hint):
    with pytest.raises(EdgeError) as caught:
        plan_conversion(source(), wish, has_calibration=True)
    assert type(caught.value) is kind
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_what_no_data_could_help_is_refused_before_data_are_asked_for():
    with pytest.raises(RefusedError, match="does not read calibration caches"):
        plan_conversion(
            source(),
            ConversionRequest(format="tensorrt", options=OnnxToTensorrt.Options(release="11.0", implicit=True)),
        )


def test_an_opset_that_a_packed_model_does_not_have_is_not_ignored():
    with pytest.raises(UsageError, match="--opset 99 would have no effect"):
        plan_conversion(source("onnx"), ConversionRequest(format="onnx", options=ConvertOptions(opset=99)))


def test_int8_without_calibration_data_is_refused():
    with pytest.raises(UsageError) as caught:
        plan_conversion(source(), ConversionRequest(device="raspberry-pi-4"))
    assert "tflite int8 needs calibration data" in caught.value.message
    assert caught.value.hint.endswith("--precision fp32")


@pytest.fixture
def without_compilers(monkeypatch):
    steps = tuple(step for step in all_converters() if step.target not in ("edgetpu", "tensorrt"))
    monkeypatch.setattr("edge.conversion.planning.all_converters", lambda: steps)


def test_a_format_that_nothing_writes_is_passed_over_aloud(without_compilers):
    plan = plan_conversion(source(), ConversionRequest(device="raspberry-pi-3b-plus+coral-usb"), has_calibration=True)
    assert (plan.format, plan.precision) == ("tflite", "int8")
    assert "edgetpu" in plan.notes[0]


def test_onnx_for_a_device_suits_everything_there_that_is_built_from_it(without_compilers):
    plan = plan_conversion(source(), ConversionRequest(device="jetson-nano"), has_calibration=True)
    assert (plan.format, plan.options.opset) == ("onnx", 13)
    assert "tensorrt" in plan.notes[0]


def test_a_source_that_no_step_takes_says_what_to_export():
    with pytest.raises(UsageError) as caught:
        plan_conversion(source("null"), ConversionRequest(format="tflite"))
    assert "a source in keras, onnx" in caught.value.hint


def test_a_compiled_model_is_the_end_of_a_route():
    with pytest.raises(InputError) as caught:
        plan_conversion(source("edgetpu"), ConversionRequest(format="onnx"))
    assert "compiled from" in caught.value.hint
