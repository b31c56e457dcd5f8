"""`edge doctor --on` foresees what `edge deploy` would fail at; a board that has everything gets no such line."""

from __future__ import annotations

import json

import pytest

from edge.doctor import examine_board, snapshot_of_board
from runtimes.board.report import collect_report

JETSON = {"model": "NVIDIA Jetson Orin Nano Developer Kit", "jetson_l4t": "36.4.3"}
CORAL_CARD = {"id": "1ac1:089a", "class": "088000", "address": "0000:01:00.0"}


@pytest.fixture
def told():
    """A healthy board, as it describes itself."""
    report = json.loads(json.dumps(collect_report()))
    report["free_bytes"], report["home"], report["home_writable"] = 10 * 2**30, "/home/pi", True
    report["python"].update(version=[3, 11, 2], bits=64, has_pip=True, modules=["numpy"], glibc="glibc 2.36")
    return report


def found(report):
    return {one.what: one for one in examine_board(snapshot_of_board(report)) if one.level in ("error", "warning")}


def the_one(report, words):
    (one,) = [one for what, one in found(report).items() if words in what]
    return one


def test_a_board_that_has_all_is_not_doubted(told):
    foreseen = ("nothing can be written", "no pip", "glibc", "32-bit", "tensorrt", "are free")
    assert not [what for what in found(told) if any(words in what for words in foreseen)]


@pytest.mark.parametrize(
    ("change", "words", "fix"),
    [
        ({"home_writable": False}, "nothing can be written in the home folder /home/pi", "remount,rw"),
        ({"free_bytes": 100 * 2**20}, "only 100 MiB are free in the home folder", "another disk"),
    ],
)
def test_a_disk_that_does_not_take_an_engine_is_an_error(told, change, words, fix):
    one = the_one({**told, **change}, words)
    assert (one.level, fix in one.fix) == ("error", True)


@pytest.mark.parametrize(
    ("change", "words", "level", "fix"),
    [
        ({"has_pip": False}, "has no pip", "error", "python3-pip"),
        ({"glibc": None}, "is not glibc", "error", "Debian"),
        ({"bits": 32}, "Python 3.11 is a 32-bit program", "warning", "64-bit image"),
        ({"bits": 32, "version": [3, 13, 0]}, "Python 3.13 is a 32-bit program", "error", "Python 3.11 next to"),
    ],
)
def test_a_python_that_gets_no_engine_is_reported_with_the_way_out(told, change, words, level, fix):
    told["python"].update(change)
    one = the_one(told, words)
    assert one.level == level
    assert fix in one.fix


@pytest.mark.parametrize(
    ("modules", "words", "level"),
    [
        (["numpy"], "has no tensorrt", "error"),
        (["tensorrt"], "has tensorrt, but no numpy", "warning"),
        (["numpy", "tensorrt"], None, None),
    ],
)
def test_a_jetson_without_its_engine_is_reported(told, modules, words, level):
    told["machine"]["board"] = JETSON
    told["python"]["modules"] = modules
    if words is None:
        assert not [what for what in found(told) if "tensorrt" in what]
    else:
        assert the_one(told, words).level == level


def coral_on_a_pi_5(told, kernel, page_bytes):
    told["machine"]["accelerators"].update(pci=[CORAL_CARD], nodes=[])
    told["machine"]["board"] = {"model": "Raspberry Pi 5 Model B Rev 1.0", "jetson_l4t": None}
    told["machine"]["os"].update(kernel=kernel, page_bytes=page_bytes)
    return the_one(told, "a Coral card is in the slot")


def test_a_pi_5_with_pages_of_16_kib_says_which_kernel_drives_its_coral_card(told):
    one = coral_on_a_pi_5(told, "6.12.25+rpt-rpi-2712", 16384)
    assert "6.12.25+rpt-rpi-2712 has pages of 16 KiB" in one.what
    assert "kernel=kernel8.img" in one.fix
    assert "dtoverlay=pciex1-compat-pi5,no-mip" in one.fix
    assert "gasket-dkms" not in one.fix


def test_a_new_kernel_is_not_given_the_driver_that_does_not_compile_there(told):
    one = coral_on_a_pi_5(told, "6.12.25+rpt-rpi-v8", 4096)
    assert "apt-get install gasket-dkms" not in one.fix
    assert "feranick/gasket-driver" in one.fix
    assert "pciex1-compat-pi5,no-mip" in one.fix


def test_an_older_kernel_gets_googles_driver(told):
    told["machine"]["accelerators"].update(pci=[CORAL_CARD], nodes=[])
    told["machine"]["os"].update(kernel="5.15.0-100-generic", page_bytes=4096)
    assert the_one(told, "no /dev/apex_0").fix.startswith("sudo apt-get install gasket-dkms")
