"""Attached accelerators: each check reports its problem, and nothing without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.doctor import accelerators, examine
from edge.remote.packages import users_openvino
from edge.remote.probe import Probe
from runtimes.errors import RefusedError

ROOT_HUB_USB3 = {"id": "1d6b:0003", "speed": "5000", "port": "usb2", "bus": "2", "number": "1"}
CORAL_NEW = {"id": "1a6e:089a", "speed": "480", "port": "1-1", "bus": "1", "number": "4"}
CORAL_USB2 = {"id": "18d1:9302", "speed": "480", "port": "1-1", "bus": "1", "number": "4"}
CORAL_USB3 = {"id": "18d1:9302", "speed": "5000", "port": "2-1", "bus": "2", "number": "4"}
NCS1 = {"id": "03e7:2150", "speed": "480", "port": "1-2", "bus": "1", "number": "5"}
NCS2 = {"id": "03e7:2485", "speed": "480", "port": "1-2", "bus": "1", "number": "5"}
APEX = {"dev/apex_0": ""}


def usb(*devices):
    files = {}
    for device in devices:
        folder = f"sys/bus/usb/devices/{device['port']}"
        vendor, product = device["id"].split(":")
        files |= {f"{folder}/idVendor": vendor, f"{folder}/idProduct": product, f"{folder}/speed": device["speed"]}
        files |= {f"{folder}/busnum": device["bus"], f"{folder}/devnum": device["number"]}
    return files


def pci(number, kind):
    folder = "sys/bus/pci/devices/0000:01:00.0"
    vendor, device = number.split(":")
    return {f"{folder}/vendor": f"0x{vendor}", f"{folder}/device": f"0x{device}", f"{folder}/class": f"0x{kind}"}


def library(name):
    return "libedgetpu.so.1" if name == "edgetpu" else None


def test_nothing_attached_nothing_reported(snapshot):
    assert [one for check in accelerators.CHECKS for one in check(snapshot())] == []


@pytest.mark.parametrize("files", [usb(CORAL_NEW), usb(CORAL_USB3), APEX, pci("1ac1:089a", "0880ff")])
def test_a_coral_without_libedgetpu_is_an_error(snapshot, files):
    (found,) = accelerators.coral_library(snapshot(files))
    assert (found.level, "libedgetpu" in found.what) == ("error", True)
    assert "16.0tf2.17" in found.fix  # nothing that fits Google's build runs on this Python
    old = replace(snapshot(files), python=replace(snapshot().python, version=(3, 9, 2)))
    (found,) = accelerators.coral_library(old)
    assert found.fix.startswith("sudo apt-get install libedgetpu1-std")


@pytest.mark.parametrize(
    ("package", "version", "fix"),
    [("ai-edge-litert", "2.3.0", "16.0tf2.17"), ("tflite-runtime", "2.5.0.post1", "sudo apt-get install libedgetpu1")],
)
def test_a_coral_without_libedgetpu_is_sent_to_a_build_that_fits(snapshot, install, package, version, fix):
    (found,) = accelerators.coral_library(snapshot(usb(CORAL_NEW), packages=install(package, version)))
    assert fix in found.fix


def test_a_coral_with_libedgetpu_still_needs_an_interpreter(snapshot, install):
    bare = snapshot(usb(CORAL_NEW), find_library=library)
    (found,) = accelerators.coral_library(bare)
    assert (found.level, found.fix) == ("error", "pip install 'edgeproof[litert]'")
    complete = snapshot(usb(CORAL_NEW), find_library=library, packages=install("ai-edge-litert", "2.3.0"))
    assert [one.level for one in accelerators.coral_library(complete)] == ["ok"]


def test_a_coral_card_without_its_kernel_module_is_an_error(snapshot):
    card = pci("1ac1:089a", "0880ff")
    machine = snapshot(card)
    machine.machine["os"]["kernel"] = "5.15.0-100-generic"
    (found,) = accelerators.coral_driver(machine)
    assert found.fix == "sudo apt-get install gasket-dkms && sudo modprobe apex"
    assert list(accelerators.coral_driver(snapshot({**card, **APEX}))) == []


def test_a_coral_at_usb_2_is_sent_to_usb_3_where_there_is_one(snapshot):
    (found,) = accelerators.coral_speed(snapshot(usb(ROOT_HUB_USB3, CORAL_USB2)))
    assert (found.level, "blue" in found.fix) == ("warning", True)


def test_a_coral_at_usb_2_is_only_noted_where_there_is_nothing_faster(snapshot):
    assert [one.level for one in accelerators.coral_speed(snapshot(usb(CORAL_USB2)))] == ["note"]


def test_a_coral_at_usb_3_is_fine(snapshot):
    assert list(accelerators.coral_speed(snapshot(usb(ROOT_HUB_USB3, CORAL_USB3)))) == []


def test_a_coral_that_waits_for_its_first_use_is_not_judged_by_its_speed(snapshot):
    assert list(accelerators.coral_speed(snapshot(usb(ROOT_HUB_USB3, CORAL_NEW)))) == []


@pytest.mark.parametrize(
    ("files", "node", "rule"),
    [
        (usb(CORAL_USB3), "/dev/bus/usb/002/004", 'ATTRS{idVendor}=="1a6e|18d1"'),
        (usb(NCS2), "/dev/bus/usb/001/005", 'ATTRS{idVendor}=="03e7"'),
        (APEX, "/dev/apex_0", 'SUBSYSTEM=="apex"'),
    ],
)
def test_a_stick_that_only_root_may_use_needs_a_udev_rule(snapshot, files, node, rule):
    (found,) = accelerators.permission(snapshot(files, may_write=lambda asked: asked != node))
    assert (found.level, node in found.what, rule in found.fix) == ("error", True, True)
    assert list(accelerators.permission(snapshot(files, may_write=lambda asked: True))) == []


def test_an_ncs2_has_no_engine_without_openvino(snapshot):
    (found,) = accelerators.movidius(snapshot(usb(NCS2)))
    assert (found.level, "no OpenVINO that supports it" in found.what) == ("error", True)
    assert "pip install" not in found.fix


def test_the_mend_is_what_a_measurement_on_a_board_asks_for(snapshot):
    (found,) = accelerators.movidius(snapshot(usb(NCS2)))
    with pytest.raises(RefusedError) as refused:
        users_openvino(
            Probe(
                machine="aarch64",
                home="/home/pi",
                model=None,
                jetson=None,
                pythons=(),
                trtexec=None,
                free_bytes=None,
                have=frozenset(),
            ),
            "pi",
        )
    for part in ("unpack Intel's archive of OpenVINO 2022.3.1 or 2022.1", "/opt/intel/openvino_2022", "the udev rule"):
        assert part in found.fix
        assert part in refused.value.hint


@pytest.mark.parametrize(
    ("version", "library"), [("2026.4.1", "libopenvino_intel_cpu_plugin.so"), ("2021.4.2", "libmyriadPlugin.so")]
)
def test_an_ncs2_has_no_engine_in_what_pypi_has(snapshot, install, version, library):
    packages = install("openvino", version, **{f"openvino__libs__{library}": ""})
    (found,) = accelerators.movidius(snapshot(usb(NCS2), packages=packages))
    assert (found.level, f"OpenVINO {version} does not support it" in found.what) == ("error", True)


def test_an_ncs2_is_fine_with_an_openvino_that_was_built_with_its_plugin(snapshot, install):
    packages = install("openvino", "2022.3.1", **{"openvino__libs__libopenvino_intel_myriad_plugin.so": ""})
    assert [one.level for one in accelerators.movidius(snapshot(usb(NCS2), packages=packages))] == ["ok"]


def test_an_ncs2_is_fine_with_intels_archive_once_that_is_set_up(snapshot):
    script = "/opt/intel/openvino_2022/setupvars.sh"
    (found,) = accelerators.movidius(snapshot(usb(NCS2), myriad=script))
    assert (found.level, f". {script}" in found.fix) == ("error", True)
    set_up = snapshot(usb(NCS2), myriad=script, environ={"INTEL_OPENVINO_DIR": "/opt/intel/openvino_2022"})
    on_a_board = snapshot(usb(NCS2), myriad=script, is_board=True)  # a measurement there sets it up
    for one in (set_up, on_a_board):
        assert [finding.level for finding in accelerators.movidius(one)] == ["ok"]


def test_an_ncs1_ended_with_2020(snapshot, install):
    packages = install("openvino", "2021.4.2", **{"openvino__libs__libmyriadPlugin.so": ""})
    (found,) = accelerators.movidius(snapshot(usb(NCS1), packages=packages))
    assert (found.level, "2020" in found.why) == ("error", True)


def test_a_gpu_without_nvidias_driver_is_an_error(snapshot):
    card = pci("10de:1b80", "030000")
    (found,) = accelerators.nvidia_driver(snapshot(card))
    assert (found.level, "10de:1b80" in found.what) == ("error", True)
    driver = {"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t NVIDIA GeForce GTX 1080\n"}
    assert list(accelerators.nvidia_driver(snapshot({**card, **driver}))) == []


def test_nvidias_sound_and_usb_controllers_are_no_gpu(snapshot):
    assert list(accelerators.nvidia_driver(snapshot(pci("10de:10f0", "040300")))) == []


def test_the_worst_findings_come_last(snapshot):
    levels = [one.level for one in examine(snapshot(usb(CORAL_USB2), find_library=lambda name: None))]
    order = ["ok", "note", "warning", "error"]
    assert levels == sorted(levels, key=order.index)
    assert levels[-1] == "error"
