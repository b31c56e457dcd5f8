"""Detect attached accelerators from the ids in `runtimes.host.facts`, without opening devices or loading libraries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypedDict

from runtimes.host.schema import MachineFacts, PciDevice, UsbDevice


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A family of accelerators, and the shell patterns that identify it.

    id: The family's id.
    name: Its name for people.
    usb: Patterns for `vendor:product`.
    pci: Patterns for `vendor:device class`.
    nodes: Patterns for device files.
    board: Patterns for the model in the device tree.
    """

    id: str
    name: str
    usb: tuple[str, ...] = ()
    pci: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    board: tuple[str, ...] = ()


# A Coral USB accelerator has the first id until a program has loaded its firmware, and the second afterwards.
CORAL_USB = Kind(id="coral-usb", name="Coral USB Accelerator (Edge TPU)", usb=("1a6e:089a", "18d1:9302"))
CORAL_PCIE = Kind(
    id="coral-m2", name="Coral M.2 or Mini PCIe card (Edge TPU)", pci=("1ac1:089a *",), nodes=("/dev/apex_*",)
)
MOVIDIUS = Kind(id="movidius", name="Movidius Myriad (Neural Compute Stick 1 and 2)", usb=("03e7:*",))
JETSON = Kind(id="jetson", name="NVIDIA Jetson's GPU", board=("*Jetson*", "*jetson*"))
NVIDIA_GPU = Kind(id="nvidia-gpu", name="NVIDIA GPU", pci=("10de:* 03*",), nodes=("/dev/nvidia[0-9]*",))
KINDS = (CORAL_USB, CORAL_PCIE, MOVIDIUS, JETSON, NVIDIA_GPU)


class AcceleratorReport(TypedDict):
    """A family in the output of `edge devices --json`."""

    id: str
    name: str
    present: bool
    found: list[str]
    looked_for: str


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A family on one machine.

    id: The family's id.
    name: Its name for people.
    looked_for: The ids and files that identify it, for people.
    found: Where it is attached; empty if it is not.
    """

    id: str
    name: str
    looked_for: str
    found: tuple[str, ...]

    def to_json(self) -> AcceleratorReport:
        """Return the JSON object of `edge devices --json`."""
        present = bool(self.found)
        return {
            "id": self.id,
            "name": self.name,
            "present": present,
            "found": list(self.found),
            "looked_for": self.looked_for,
        }


def known_accelerators(machine: MachineFacts) -> list[Accelerator]:
    """Return every known family, attached or not; `machine` is the result of `runtimes.host.facts`."""
    return [
        Accelerator(id=kind.id, name=kind.name, looked_for=_patterns(kind), found=tuple(_places(kind, machine)))
        for kind in KINDS
    ]


def is_attached(kind: Kind, machine: MachineFacts) -> bool:
    """Return whether an accelerator of that family is attached to the machine."""
    return next(_places(kind, machine), None) is not None


def usb_devices(kind: Kind, machine: MachineFacts) -> list[UsbDevice]:
    """Return the USB devices of that family, as in `runtimes.host.facts`."""
    return [one for one in machine["accelerators"]["usb"] if _matches(one["id"], kind.usb)]


def pci_devices(kind: Kind, machine: MachineFacts) -> list[PciDevice]:
    """Return the PCI devices of that family, as in `runtimes.host.facts`."""
    return [one for one in machine["accelerators"]["pci"] if _matches(f"{one['id']} {one['class']}", kind.pci)]


def nodes(kind: Kind, machine: MachineFacts) -> list[str]:
    """Return the existing device files of that family."""
    return [one for one in machine["accelerators"]["nodes"] if _matches(one, kind.nodes)]


def _places(kind: Kind, machine: MachineFacts) -> Iterator[str]:
    for device in usb_devices(kind, machine):
        speed = f", {device['speed_mbps']:g} Mbit/s" if device["speed_mbps"] else ""
        yield f"USB {device['id']} at port {device['port']}{speed}"
    for card in pci_devices(kind, machine):
        yield f"PCI {card['id']} at {card['address']}"
    yield from nodes(kind, machine)
    board = machine["board"]
    if kind.board and (_matches(board["model"] or "", kind.board) or board["jetson_l4t"]):
        release = f", Jetson Linux {board['jetson_l4t']}" if board["jetson_l4t"] else ""
        yield f"{board['model'] or 'Jetson'}{release}"
    if kind is NVIDIA_GPU:
        yield from machine["accelerators"]["nvidia_gpus"]


def _matches(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _patterns(kind: Kind) -> str:
    """Describe the patterns of a family for people."""
    pci = tuple(mark.split()[0] for mark in kind.pci)
    buses = {"USB": kind.usb, "PCI": pci, "": kind.nodes, "board": kind.board[:1]}
    return ", ".join(f"{bus} {' or '.join(marks)}".strip() for bus, marks in buses.items() if marks)
