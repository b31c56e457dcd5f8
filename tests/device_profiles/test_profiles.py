from pathlib import Path
from typing import Any

import pytest

import device_profiles
from device_profiles import facts
from device_profiles.profiles import (
    ProfileError,
    UnknownProfileError,
    load,
    profile_ids,
    read_profile,
    recognize_devices,
)
from device_profiles.testing import ProfileContract
from runtimes.model_files.detect import FORMATS

FOLDER = Path(device_profiles.__file__).parent
REQUIRED = {
    "i7-4870hq",
    "i7-7700k",
    "gtx-1080",
    "raspberry-pi-3b-plus",
    "jetson-nano",
    "coral-usb",
    "ncs1",
    "ncs2",
}


def test_an_id_is_a_file_stem_and_every_file_has_one() -> None:
    assert profile_ids() == sorted(path.stem for path in FOLDER.glob("*.toml"))
    assert set(profile_ids()) >= REQUIRED


class TestProfiles(ProfileContract):
    folder = FOLDER


@pytest.mark.parametrize(
    ("profile_id", "format", "asked", "instead"),
    [
        ("jetson-nano", "tensorrt", "int8", "fp16"),
        ("jetson-tx2", "tensorrt", "int8", "fp16"),
        ("ncs2", "openvino", "fp32", "fp16"),
        ("ncs2", "openvino", "newest-runtime", "OpenVINO 2022.3.1"),
        ("ncs1", "openvino", "newest-runtime", "OpenVINO 2020.3 LTS"),
        ("coral-usb", "edgetpu", "dynamic-batch", "batch 1"),
        ("coral-usb", "edgetpu", "fp32", "int8"),
        ("gtx-1080", "tensorrt", "fp16", "fp32"),
    ],
)
def test_a_refusal_names_what_works(profile_id: str, format: str, asked: str, instead: str) -> None:
    refusal = load(profile_id).refusal(format, asked)
    assert refusal is not None
    assert refusal.instead.startswith(instead)


def test_what_works_is_not_refused() -> None:
    assert load("jetson-nano").refusal("tensorrt", "fp16") is None
    assert load("jetson-nano").refusal("onnx", "int8") is None


def test_the_edge_tpu_takes_compiled_static_int8_only() -> None:
    coral = load("coral-usb")
    (edgetpu,) = coral.formats
    assert (edgetpu.format, edgetpu.precisions, edgetpu.static_shapes) == ("edgetpu", ("int8",), True)
    assert coral.accelerators[0].on_chip_bytes == 8 * 2**20


def test_a_format_that_a_device_does_not_take_is_none() -> None:
    assert load("coral-usb").takes("onnx") is None


def test_parts_join_into_a_setup_that_prefers_the_accelerator() -> None:
    setup = load("raspberry-pi-3b-plus+coral-usb")
    host, coral = load("raspberry-pi-3b-plus"), load("coral-usb")
    assert setup.name == "Raspberry Pi 3 Model B+ + Coral USB Accelerator"
    assert setup.parts == (host, coral)
    assert (setup.cpu, setup.memory, setup.kind) == (host.cpu, host.memory, "board")
    assert setup.accelerators == coral.accelerators
    assert setup.formats == (*coral.formats, *host.formats)
    assert setup.refuses == (*coral.refuses, *host.refuses)
    assert (setup.power, setup.price, setup.peak, setup.recognize) == (None, None, None, None)


def test_the_order_of_parts_does_not_matter() -> None:
    assert load("coral-usb + raspberry-pi-3b-plus") == load("raspberry-pi-3b-plus+coral-usb")


def test_where_both_take_a_format_the_accelerator_decides() -> None:
    setup = load("i7-7700k+ncs2")
    assert [known.format for known in setup.formats].count("openvino") == 1
    assert setup.takes("openvino") == load("ncs2").takes("openvino")
    refusal = setup.refusal("openvino", "int8")
    assert refusal is not None
    assert refusal.instead == "fp16"


def test_a_built_in_accelerator_comes_after_the_stick() -> None:
    setup = load("jetson-nano+coral-usb")
    assert [known.format for known in setup.formats] == ["edgetpu", "tensorrt", "onnx", "tflite", "keras"]
    assert [one.name for one in setup.accelerators] == ["Google Edge TPU", "Maxwell GPU, 128 cores, 921 MHz"]


@pytest.mark.parametrize(
    ("unknown", "message", "hint"),
    [
        ("jetson-nan", "no device profile is called 'jetson-nan'", "did you mean jetson-nano"),
        ("Coral-USB", "no device profile is called 'Coral-USB'", "did you mean coral-usb"),
        ("toaster", "no device profile is called 'toaster'", "one of: browser, coral-dev-board, "),
        ("", "no device profile is called ''", "one of: "),
        ("jetson-nano+coral", "no device profile is called 'coral'", "did you mean coral-"),
        ("../profiles", "no device profile is called '../profiles'", "one of: "),
        ("coral-usb+ncs2", "'coral-usb+ncs2' is not a setup", "join one board or computer"),
        ("jetson-nano+i7-7700k", "'jetson-nano+i7-7700k' is not a setup", "join one board or computer"),
        ("i7-7700k+ncs2+ncs2", "'i7-7700k+ncs2+ncs2' is not a setup", "join one board or computer"),
    ],
)
def test_a_name_that_does_not_exist_is_answered_with_near_ones(unknown: str, message: str, hint: str) -> None:
    with pytest.raises(UnknownProfileError) as raised:
        load(unknown)
    assert isinstance(raised.value, ProfileError)
    assert raised.value.message == message
    assert raised.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"usb": ["1d6b:0002", "1a6e:089a"]}, ["coral-usb"]),
        ({"usb": ["18D1:9302"]}, ["coral-usb"]),
        ({"usb": ["03e7:2150"]}, ["ncs1"]),
        ({"usb": ["03e7:2485"]}, ["ncs2"]),
        ({"pci": ["1ac1:089a"]}, ["coral-m2"]),
        ({"nodes": ["/dev/apex_0"]}, ["coral-m2"]),
        ({"board": "Raspberry Pi 3 Model B Plus Rev 1.3"}, ["raspberry-pi-3b-plus"]),
        ({"board": "Raspberry Pi 3 Model B Rev 1.2"}, []),
        ({"board": "NVIDIA Jetson Nano Developer Kit"}, ["jetson-nano"]),
        ({"board": "NVIDIA Orin Nano Developer Kit"}, ["jetson-orin-nano"]),
        ({"cpu": "Intel(R) Core(TM) i7-7700K CPU @ 4.20GHz"}, ["i7-7700k"]),
        ({"gpu": ["NVIDIA GeForce GTX 1080"]}, ["gtx-1080"]),
        ({"gpu": ["NVIDIA GeForce GTX 1080 Ti"]}, []),
        ({"board": "Raspberry Pi 5 Model B Rev 1.0", "usb": ["1a6e:089a"]}, ["coral-usb", "raspberry-pi-5"]),
        ({}, []),
    ],
)
def test_devices_are_recognized_by_what_they_show(facts: dict[str, Any], expected: list[str]) -> None:
    assert recognize_devices(**facts) == expected


def test_a_profile_with_the_older_spelling_is_read(tmp_path: Path) -> None:
    text = (FOLDER / "coral-usb.toml").read_text(encoding="utf-8")
    assert text.count("[recognize]") == 1
    (tmp_path / "coral-usb.toml").write_text(text.replace("[recognize]", "[recognise]"), encoding="utf-8")
    assert read_profile(tmp_path / "coral-usb.toml") == load("coral-usb")


def test_the_formats_of_profiles_are_those_that_runtimes_know() -> None:
    not_for_devices = {"savedmodel", "pt2", "null", "llama-server"}
    folders = {"browser"}  # a folder around a model in one of the other formats
    assert set(FORMATS) | folders == set(facts.FORMATS) | not_for_devices
    assert not_for_devices.isdisjoint(facts.FORMATS)
