"""Check for accelerators that are attached but not usable."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edge.doctor.snapshot import Check, Finding, Snapshot
from edge.machine import accelerators
from edge.machine.accelerators import CORAL_PCIE, CORAL_USB, JETSON, MOVIDIUS, NVIDIA_GPU
from edge.remote.packages import GOOGLES_NEWEST_PYTHON, NEWER_LIBEDGETPU
from runtimes import registry
from runtimes.board.report import MYRIAD

_USB3_MBPS = 5000
_PI_5 = ("Raspberry Pi 5", "Raspberry Pi Compute Module 5", "Raspberry Pi 500")
_DRIVERS_PAGE_BYTES = 4096
# The first line starts the kernel with pages of 4 KiB, the others connect the slot, and its interrupts (MSI):
# github.com/raspberrypi/linux, pull request 6126 and issue 6799; github.com/geerlingguy/raspberry-pi-pcie-devices 44.
_PI_5_LINES = ("kernel=kernel8.img", "dtparam=pciex1", "dtoverlay=pciex1-compat-pi5,no-mip")
_GOOGLES_DRIVER = "sudo apt-get install gasket-dkms && sudo modprobe apex"
# Google's package of 2021 does not compile from Linux 6.4 on, whose class_create() takes one argument:
# github.com/google-coral/edgetpu, issue 785; github.com/google/gasket-driver, issue 12.
_TOO_NEW_FOR_GOOGLES = (6, 4)
_OWN_DRIVER = (
    "Google's gasket-dkms does not compile for this kernel: build a newer one (github.com/feranick/gasket-driver), "
    "then sudo modprobe apex"
)
_CORAL_READY = "18d1:9302"
_MYRIAD_2 = "03e7:2150"
_INTERPRETERS = ("ai-edge-litert", "tflite-runtime")
_LAST_FOR_GOOGLES = (2, 11)  # newer ones crash with Google's library: github.com/google-coral/edgetpu, issue 812


def coral_library(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for Google's driver library and an interpreter that calls it: a Coral needs both."""
    if not _has_coral(snapshot):
        return
    if not any(map(snapshot.find_library, ("edgetpu", "edgetpu.1"))):
        yield Finding(
            level="error",
            what="a Coral is attached, but the library libedgetpu is not installed",
            why="nothing runs on the Edge TPU without it",
            fix=_missing_library(snapshot),
        )
    elif not {"ai-edge-litert", "tflite-runtime", "pycoral"} & set(snapshot.packages):
        yield Finding(
            level="error",
            what="a Coral is attached, but no interpreter for TFLite is installed",
            why="libedgetpu is a plugin of such an interpreter",
            fix=registry.install_hint("litert"),
        )
    else:
        yield Finding(level="ok", what="a Coral is attached, with libedgetpu and an interpreter")


def _missing_library(snapshot: Snapshot) -> str:
    name, version = interpreter(snapshot)
    if name is not None and version is not None and is_newer_than_googles(name, version):
        return f"Google's build crashes with {name} {version}: {NEWER_LIBEDGETPU}"
    if name is None and snapshot.python.version[:2] > GOOGLES_NEWEST_PYTHON:
        return f"no interpreter for this Python fits Google's build: {NEWER_LIBEDGETPU}"
    return "sudo apt-get install libedgetpu1-std, from the package source that coral.ai names"


def coral_driver(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for the kernel modules gasket and apex, which create /dev/apex_0 for a PCIe or M.2 card."""
    card = accelerators.pci_devices(CORAL_PCIE, snapshot.machine)
    if not card:
        return
    kernel, pages = snapshot.machine["os"]["kernel"], snapshot.machine["os"]["page_bytes"]
    is_pi_5 = str(snapshot.machine["board"]["model"]).startswith(_PI_5)
    if pages is not None and pages > _DRIVERS_PAGE_BYTES:
        slot = card[0]["address"]
        yield Finding(
            level="error",
            what=f"a Coral card is in the slot {slot}, and the kernel {kernel} has pages of {pages // 1024} KiB",
            why="its driver works with pages of 4 KiB only",
            fix=f"add these lines to /boot/firmware/config.txt, then restart: {'; '.join(_PI_5_LINES)}"
            if is_pi_5
            else "start a kernel with pages of 4 KiB",
        )
    elif not accelerators.nodes(CORAL_PCIE, snapshot.machine):
        overlay = f"; in /boot/firmware/config.txt: {'; '.join(_PI_5_LINES)}" if is_pi_5 else ""
        yield Finding(
            level="error",
            what=f"a Coral card is in the slot {card[0]['address']}, but there is no /dev/apex_0",
            why=f"its modules (gasket, apex) are not loaded in the kernel {kernel}"
            + (", or get no interrupts without the overlay" if is_pi_5 else ""),
            fix=(_OWN_DRIVER if _release(kernel) >= _TOO_NEW_FOR_GOOGLES else _GOOGLES_DRIVER) + overlay,
        )


def _release(kernel: str | None) -> tuple[int, ...]:
    """`6.6.31+rpt-rpi-v8` → (6, 6)."""
    match = re.match(r"(\d+)\.(\d+)", kernel or "")
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def coral_speed(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the USB speed of a stick: over USB 2, inputs and weights beyond 8 MB transfer ten times slower."""
    for stick in accelerators.usb_devices(CORAL_USB, snapshot.machine):
        # Before its first use the stick is in its boot loader, whose speed is not that of the device.
        if stick["id"] != _CORAL_READY or stick["speed_mbps"] is None or stick["speed_mbps"] >= _USB3_MBPS:
            continue
        why = "its host interface then takes most of the time: MobileNetV2 needs 10 ms instead of 3"
        if _has_usb3(snapshot):
            fix = "plug it into a blue (USB 3) port, with a USB 3 cable and no hub between"
            yield Finding(
                level="warning", what=f"the Coral at port {stick['port']} runs at USB 2 speed", why=why, fix=fix
            )
        else:
            fix = "keep models below 8 MB, or use a board with USB 3"
            yield Finding(
                level="note", what="the Coral runs at USB 2 speed, the fastest that this machine has", why=why, fix=fix
            )


def permission(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the permissions of devices: they belong to root until a udev rule changes that."""
    for kind, name, vendors in ((CORAL_USB, "coral", "1a6e|18d1"), (MOVIDIUS, "movidius", "03e7")):
        nodes = [one["node"] for one in accelerators.usb_devices(kind, snapshot.machine)]
        for node in nodes:
            if node is not None and not snapshot.may_write(node):
                yield _forbidden(node, kind.name, _udev_rule(name, f'SUBSYSTEM=="usb", ATTRS{{idVendor}}=="{vendors}"'))
    for node in accelerators.nodes(CORAL_PCIE, snapshot.machine):
        if not snapshot.may_write(node):
            yield _forbidden(node, CORAL_PCIE.name, _udev_rule("apex", 'SUBSYSTEM=="apex"'))


def _forbidden(node: str, name: str, fix: str) -> Finding:
    why = "only root may use it, until a udev rule gives it to the group plugdev"
    return Finding(level="error", what=f"no permission to use {node}: {name}", why=why, fix=fix)


def _udev_rule(name: str, match: str) -> str:
    rule = f'{match}, MODE="0660", GROUP="plugdev"'
    return (
        f"echo '{rule}' | sudo tee /etc/udev/rules.d/70-edge-{name}.rules && sudo udevadm control --reload-rules && "
        "sudo usermod -aG plugdev $USER, then plug it in again and log in again"
    )


def movidius(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for an OpenVINO release that still supports Movidius sticks."""
    sticks = accelerators.usb_devices(MOVIDIUS, snapshot.machine)
    if not sticks:
        return
    if any(one["id"] == _MYRIAD_2 for one in sticks):
        yield Finding(
            level="error",
            what="a Neural Compute Stick 1 (Myriad 2) is attached, but no engine here supports it",
            why="OpenVINO's releases of 2020 were the last to support it, and they are not on PyPI",
            fix="install OpenVINO 2020.3 from Intel's archive, in a separate Python 3.6 or 3.7; or use an NCS 2",
        )
    elif _reaches_myriad(snapshot):
        yield Finding(level="ok", what="a Movidius stick is attached, with an OpenVINO that supports it")
    elif snapshot.myriad is not None:
        yield Finding(
            level="error",
            what="a Movidius stick is attached, but the OpenVINO that supports it is not set up in this shell",
            why="a program finds it only if its script was run before in the same shell",
            fix=f". {snapshot.myriad}, and run edge in the same shell",
        )
    else:
        version = snapshot.packages.version("openvino")
        yield Finding(
            level="error",
            what="a Movidius stick is attached, but "
            + (f"OpenVINO {version} does not support it" if version else "no OpenVINO that supports it is installed"),
            why="the plugin came with Intel's archives until 2022.3.1, not with PyPI's packages of 2022; "
            "edge does not support the interface of 2021.4",
            fix="unpack Intel's archive of OpenVINO 2022.3.1 or 2022.1 for this system to /opt/intel/openvino_2022, "
            "with the udev rule of its install_dependencies folder",
        )


def nvidia_driver(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for NVIDIA's own driver, without which a GPU displays pictures but cannot compute."""
    machine = snapshot.machine
    cards = accelerators.pci_devices(NVIDIA_GPU, machine)
    loaded = machine["accelerators"]["nvidia_gpus"] or accelerators.nodes(NVIDIA_GPU, machine)
    if cards and not loaded and not accelerators.is_attached(JETSON, machine):
        yield Finding(
            level="error",
            what=f"an NVIDIA GPU ({cards[0]['id']}) is in the slot {cards[0]['address']}, but its driver is not loaded",
            why="CUDA needs NVIDIA's own driver",
            fix="sudo apt-get install nvidia-driver (Ubuntu: sudo ubuntu-drivers install), then restart",
        )


def _has_coral(snapshot: Snapshot) -> bool:
    return any(accelerators.is_attached(kind, snapshot.machine) for kind in (CORAL_USB, CORAL_PCIE))


def _has_usb3(snapshot: Snapshot) -> bool:
    """Return whether any hub, including the computer's own, offers USB 3."""
    devices = snapshot.machine["accelerators"]["usb"]
    return any((one["speed_mbps"] or 0) >= _USB3_MBPS for one in devices)


def _reaches_myriad(snapshot: Snapshot) -> bool:
    """Return whether a worker finds the plugin.

    On a board, workers are started through the archive's script; here they inherit the environment of edge.
    """
    if snapshot.is_board:
        return snapshot.myriad is not None
    is_set_up = snapshot.myriad is not None and "INTEL_OPENVINO_DIR" in snapshot.environ
    return is_set_up or any(MYRIAD in name for name in snapshot.packages.file_names("openvino"))


def interpreter(snapshot: Snapshot) -> tuple[str | None, str | None]:
    """Return the package and version of the first TFLite interpreter that is installed."""
    name = next((name for name in _INTERPRETERS if name in snapshot.packages), None)
    return name, snapshot.packages.version(name) if name else None


def is_newer_than_googles(name: str, version: str) -> bool:
    """Return whether an interpreter crashes with Google's own build of libedgetpu."""
    return name == "ai-edge-litert" or tuple(map(int, re.findall(r"\d+", version)[:2])) > _LAST_FOR_GOOGLES


CHECKS: tuple[Check, ...] = (coral_library, coral_driver, coral_speed, permission, movidius, nvidia_driver)
