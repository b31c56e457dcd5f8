"""USB, PCI, device nodes, GPUs and energy counters, read from folders of files copied from real machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes import host

USB = "sys/bus/usb/devices"
RAPL = "sys/class/powercap"


def write(root: Path, files: dict) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_usb_devices_are_listed_without_their_interfaces(tmp_path: Path) -> None:
    stick = {"idVendor": "18d1\n", "idProduct": "9302\n", "speed": "5000\n", "busnum": "2\n", "devnum": "3\n"}
    files = {f"{USB}/2-1/{name}": text for name, text in stick.items()}
    write(tmp_path, {**files, f"{USB}/2-1:1.0/bInterfaceClass": "ff"})
    assert host.facts(tmp_path)["accelerators"]["usb"] == [
        {"id": "18d1:9302", "product": None, "speed_mbps": 5000.0, "port": "2-1", "node": "/dev/bus/usb/002/003"}
    ]


def test_a_usb_device_without_speed_or_number_is_still_listed(tmp_path: Path) -> None:
    write(tmp_path, {f"{USB}/1-1/idVendor": "03e7", f"{USB}/1-1/idProduct": "2485", f"{USB}/1-1/product": "Movidius"})
    (found,) = host.facts(tmp_path)["accelerators"]["usb"]
    assert found == {"id": "03e7:2485", "product": "Movidius", "speed_mbps": None, "port": "1-1", "node": None}


def test_pci_devices_are_listed(tmp_path: Path) -> None:
    folder = "sys/bus/pci/devices/0000:01:00.0"
    write(tmp_path, {f"{folder}/vendor": "0x1ac1\n", f"{folder}/device": "0x089a\n", f"{folder}/class": "0x0880ff\n"})
    assert host.facts(tmp_path)["accelerators"]["pci"] == [
        {"id": "1ac1:089a", "class": "0880ff", "address": "0000:01:00.0"}
    ]


def test_device_nodes_are_listed(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(("dev/apex_0", "dev/dri/renderD128", "dev/nvidia0", "dev/nvidiactl", "dev/sda"), ""))
    assert host.facts(tmp_path)["accelerators"]["nodes"] == ["/dev/apex_0", "/dev/nvidia0", "/dev/dri/renderD128"]


def test_an_nvidia_gpu_is_named_by_its_driver(tmp_path: Path) -> None:
    text = "Model: \t\t NVIDIA GeForce GTX 1080\nIRQ:   \t\t 130\n"
    write(tmp_path, {"proc/driver/nvidia/gpus/0000:01:00.0/information": text})
    assert host.facts(tmp_path)["accelerators"]["nvidia_gpus"] == ["NVIDIA GeForce GTX 1080"]


def test_nvidia_smi_names_the_gpu_where_the_driver_shows_no_files(tmp_path: Path) -> None:
    write(tmp_path, {"usr/bin/nvidia-smi": "#!/bin/sh\necho NVIDIA H200\necho NVIDIA H200\n"})
    (tmp_path / "usr/bin/nvidia-smi").chmod(0o755)
    assert host.facts(tmp_path)["accelerators"]["nvidia_gpus"] == ["NVIDIA H200", "NVIDIA H200"]


@pytest.fixture
def two_packages(tmp_path: Path) -> Path:
    for number, name, counter in ((0, "package-0", 5_000_000), (1, "package-1", 900_000)):
        zone = f"{RAPL}/intel-rapl:{number}"
        write(
            tmp_path,
            {f"{zone}/name": name, f"{zone}/energy_uj": str(counter), f"{zone}/max_energy_range_uj": "1000000"},
        )
    write(tmp_path, {f"{RAPL}/intel-rapl:0:0/name": "core", f"{RAPL}/intel-rapl:0:0/energy_uj": "1"})
    return write(tmp_path, {f"{RAPL}/intel-rapl:2/name": "psys", f"{RAPL}/intel-rapl:2/energy_uj": "1"})


def test_energy_sums_the_packages_and_survives_a_counter_that_wraps(two_packages: Path) -> None:
    before = host.read_energy(two_packages)
    write(two_packages, {f"{RAPL}/intel-rapl:0/energy_uj": "6500000", f"{RAPL}/intel-rapl:1/energy_uj": "400000"})
    after = host.read_energy(two_packages)
    assert host.joules_between(before, after) == pytest.approx(1.5 + 0.5)
    assert host.facts(two_packages)["energy"] == {"source": "rapl", "readable": True, "reason": None, "rails": []}


def test_no_energy_passes_between_equal_readings(two_packages: Path) -> None:
    reading = host.read_energy(two_packages)
    assert host.joules_between(reading, reading) == 0.0


def test_energy_is_unknown_without_counters(tmp_path: Path, two_packages: Path) -> None:
    empty = tmp_path / "empty"
    assert host.read_energy(empty) is None
    assert host.joules_between(None, host.read_energy(two_packages)) is None
    energy = host.facts(empty)["energy"]
    assert (energy["source"], energy["readable"]) == (None, False)
    assert "no energy counters" in energy["reason"]


def test_energy_that_only_root_may_read_says_so(two_packages: Path) -> None:
    # A folder in the file's place is as unreadable as a file without permission, and holds for root too.
    counter = two_packages / RAPL / "intel-rapl:0/energy_uj"
    counter.unlink()
    counter.mkdir()
    assert host.read_energy(two_packages) is None
    assert "root only" in host.facts(two_packages)["energy"]["reason"]


def test_readings_of_different_packages_do_not_compare(two_packages: Path) -> None:
    before = host.read_energy(two_packages)
    (two_packages / RAPL / "intel-rapl:1/name").unlink()
    assert host.joules_between(before, host.read_energy(two_packages)) is None
