"""`edge devices`: real boards as folders of files, and this machine."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli import devices
from edge.machine.accelerators import CORAL_USB, JETSON, MOVIDIUS, is_attached, known_accelerators
from edge.machine.this_machine import describe
from runtimes import host

PI_WITH_CORAL = {
    "proc/device-tree/model": "Raspberry Pi 3 Model B Plus Rev 1.3\0",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n",
    "proc/meminfo": "MemTotal: 945512 kB\nMemAvailable: 612000 kB\nSwapTotal: 102396 kB\n",
    "sys/bus/usb/devices/1-1.2/idVendor": "1a6e\n",
    "sys/bus/usb/devices/1-1.2/idProduct": "089a\n",
    "sys/bus/usb/devices/1-1.2/speed": "480\n",
}


@pytest.fixture
def board(tmp_path: Path):
    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_a_pi_with_a_coral_is_recognized(board):
    report = describe(board(PI_WITH_CORAL)).to_json()
    here = [one["id"] for one in report["profiles"] if one["here"]]
    assert here == ["coral-usb", "raspberry-pi-3b-plus"]
    coral = next(one for one in report["accelerators"] if one["id"] == "coral-usb")
    assert coral["present"] is True
    assert coral["found"] == ["USB 1a6e:089a at port 1-1.2, 480 Mbit/s"]


def test_the_report_keeps_its_keys(board):
    report = json.loads(json.dumps(describe(board(PI_WITH_CORAL)).to_json()))
    assert set(report) == {"machine", "conditions", "accelerators", "engines", "profiles"}
    assert set(report["accelerators"][0]) == {"id", "name", "present", "found", "looked_for"}
    assert set(report["engines"][0]) == {"id", "formats", "requires", "installed", "version", "lacks", "hint"}
    assert set(report["profiles"][0]) == {"id", "name", "kind", "here"}


def test_a_missing_engine_names_its_extra(board, monkeypatch):
    monkeypatch.setattr("runtimes.registry.is_installed", lambda adapter: False)
    engines = describe(board({})).engines
    engines = [one for one in engines if one["requires"]]
    assert engines
    assert all(one["installed"] is False and one["version"] is None for one in engines)
    assert all(one["hint"].endswith(f"pip install 'edgeproof[{one['id'].replace('_', '-')}]'") for one in engines)


@pytest.mark.parametrize(
    ("files", "present"),
    [
        ({}, []),
        ({"sys/bus/usb/devices/2-1/idVendor": "18d1", "sys/bus/usb/devices/2-1/idProduct": "9302"}, ["coral-usb"]),
        ({"sys/bus/usb/devices/2-1/idVendor": "18d1", "sys/bus/usb/devices/2-1/idProduct": "4ee7"}, []),
        ({"dev/apex_0": ""}, ["coral-m2"]),
        ({"sys/bus/usb/devices/1-1/idVendor": "03e7", "sys/bus/usb/devices/1-1/idProduct": "f63b"}, ["movidius"]),
        ({"proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0"}, ["jetson"]),
        ({"etc/nv_tegra_release": "# R28 (release), REVISION: 2.1, GCID: 1"}, ["jetson"]),
        ({"proc/driver/nvidia/gpus/0/information": "Model: NVIDIA H200\n"}, ["nvidia-gpu"]),
        (
            {
                "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de",
                "sys/bus/pci/devices/0000:01:00.0/device": "0x1b80",
                "sys/bus/pci/devices/0000:01:00.0/class": "0x030000",
            },
            ["nvidia-gpu"],
        ),
    ],
)
def test_accelerators_are_recognized_by_their_marks(board, files, present):
    found = known_accelerators(host.facts(board(files)))
    assert [one.id for one in found if one.found] == present
    assert all(one.looked_for for one in found)


def test_only_what_is_attached_is_attached(board):
    machine = host.facts(board(PI_WITH_CORAL))
    assert is_attached(CORAL_USB, machine)
    assert not is_attached(MOVIDIUS, machine)
    assert not is_attached(JETSON, machine)


def test_the_text_groups_and_aligns(board):
    lines = devices.as_text(describe(board(PI_WITH_CORAL))).splitlines()
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles == [
        "This machine",
        "Accelerators (* attached)",
        "Engines (* installed)",
        "Profiles, for --for (* here)",
    ]
    assert "  processor    Cortex-A53" in lines[1]
    assert "  board        Raspberry Pi 3 Model B Plus Rev 1.3" in lines
    assert "  memory       0.9 GiB, 0.6 GiB available, swap 0.1 GiB" in lines
    assert any(line.startswith("  *  Coral USB Accelerator (Edge TPU) ") for line in lines)
    assert any(line.endswith("not attached (USB 03e7:*)") for line in lines)
    assert any(line.startswith("  *  raspberry-pi-3b-plus ") for line in lines)
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"sys/class/thermal/thermal_zone0/temp": "48312", "sys/class/thermal/thermal_zone0/type": "cpu"},
            "48 °C (cpu)",
        ),
        ({"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3"}, "throttling   3 times since boot"),
        ({"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave"}, "governor     powersave"),
        (
            {
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000",
                "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1400000",
            },
            "clock        600 MHz now, 1400 MHz at most",
        ),
        ({"proc/cpuinfo": "processor\t: 0\nflags\t\t: sse4_1 avx2\n"}, "int8         no VNNI"),
        ({"proc/cpuinfo": "processor\t: 0\nflags\t\t: avx2 avx_vnni\n"}, "int8         dot product in one instruction"),
    ],
)
def test_what_can_be_read_is_printed(board, files, words):
    assert words in devices.as_text(describe(board({**PI_WITH_CORAL, **files})))


def test_a_machine_that_tells_nothing_is_described_all_the_same(board):
    text = devices.as_text(describe(board({})))
    assert "memory       not known, not known available, swap none" in text
    assert "temperature  not readable here" in text


def test_this_machine_as_json(capsys):
    assert devices.run(argparse.Namespace(json=True, on=None)) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["cpu"]["logical_cores"] >= 1


def test_it_runs_in_an_empty_folder(tmp_path):
    done = subprocess.run([sys.executable, "-m", "edge", "devices"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("This machine\n")


@pytest.mark.parametrize("command", ["devices", "doctor"])
def test_their_help_loads_neither_numpy_nor_an_engine(command):
    code = (
        "import sys\nfrom edge.cli import main\n"
        f"try:\n    main([{command!r}, '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stderr
    assert "--json" in done.stdout
    assert not [
        name for name in ("numpy", "onnxruntime", "torch", "openvino", "device_profiles") if f"'{name}'" in loaded
    ]
