"""Raw ids of USB and PCI devices and device nodes. `edge` decides which of them are accelerators."""

from __future__ import annotations

import re
from pathlib import Path

from runtimes.host.files import entries, program_output, read_int, read_text
from runtimes.host.schema import AcceleratorFacts, PciDevice, UsbDevice

_NODES = ("apex_*", "nvidia[0-9]*", "nvhost-gpu", "dri/renderD*", "accel/accel*")


def accelerator_facts(root: Path) -> AcceleratorFacts:
    """Return the `accelerators` part of `runtimes.host.facts`."""
    return {
        "usb": usb_devices(root),
        "pci": pci_devices(root),
        "nodes": [f"/dev/{found.relative_to(root / 'dev').as_posix()}" for found in _nodes(root)],
        "nvidia_gpus": nvidia_gpus(root),
    }


def usb_devices(root: Path = Path("/")) -> list[UsbDevice]:
    """Every USB device and hub: its `vendor:product` id, name, speed in Mbit/s, port and device node."""
    found: list[UsbDevice] = []
    for device in entries(root / "sys/bus/usb/devices", "*"):
        vendor, product = read_text(device / "idVendor"), read_text(device / "idProduct")
        if vendor and product:  # interfaces such as `1-1:1.0` have no ids
            found.append(
                {
                    "id": f"{vendor}:{product}",
                    "product": read_text(device / "product"),
                    "speed_mbps": _speed(device),
                    "port": device.name,
                    "node": _usb_node(device),
                }
            )
    return found


def pci_devices(root: Path = Path("/")) -> list[PciDevice]:
    """Every PCI device: its `vendor:device` id, class (six hexadecimal digits) and address."""
    found: list[PciDevice] = []
    for device in entries(root / "sys/bus/pci/devices", "*"):
        vendor, number = _hexadecimal(device / "vendor"), _hexadecimal(device / "device")
        if vendor and number:
            found.append({"id": f"{vendor}:{number}", "class": _hexadecimal(device / "class"), "address": device.name})
    return found


def nvidia_gpus(root: Path = Path("/")) -> list[str]:
    """The names of the NVIDIA GPUs whose driver is loaded."""
    texts = (read_text(path) or "" for path in entries(root / "proc/driver/nvidia/gpus", "*/information"))
    named = [
        match.group(1) for text in texts for match in re.finditer(r"^Model:\s*(.+?)\s*$", text, flags=re.MULTILINE)
    ]
    if named:
        return named
    listed = program_output(root, "nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or ""
    return [line.strip() for line in listed.splitlines() if line.strip()]


def _nodes(root: Path) -> list[Path]:
    return [found for pattern in _NODES for found in entries(root / "dev", pattern)]


def _speed(device: Path) -> float | None:
    try:
        return float(read_text(device / "speed") or "")  # 1.5, 12, 480, 5000, 10000
    except ValueError:
        return None


def _usb_node(device: Path) -> str | None:
    bus, number = read_int(device / "busnum"), read_int(device / "devnum")
    return f"/dev/bus/usb/{bus:03d}/{number:03d}" if bus is not None and number is not None else None


def _hexadecimal(path: Path) -> str | None:
    text = read_text(path)
    return text[2:] if text and text.startswith("0x") else text
