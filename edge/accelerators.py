"""Which accelerators are attached, told from the raw ids of `runtimes.host.facts`; nothing is opened or loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A family of accelerators and the marks that show it; every mark is a shell pattern.

    `usb` matches `vendor:product`, `pci` matches `vendor:device class`, `nodes` device files, `board` the model
    in the device tree.
    """

    id: str
    name: str
    usb: tuple[str, ...] = ()
    pci: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    board: tuple[str, ...] = ()


# A Coral stick shows the first id until a program has loaded its firmware, the second from then on.
CORAL_USB = Kind("coral-usb", "Coral USB Accelerator (Edge TPU)", usb=("1a6e:089a", "18d1:9302"))
CORAL_PCIE = Kind("coral-m2", "Coral M.2 or Mini PCIe card (Edge TPU)", pci=("1ac1:089a *",), nodes=("/dev/apex_*",))
MOVIDIUS = Kind("movidius", "Movidius Myriad (Neural Compute Stick 1 and 2)", usb=("03e7:*",))
JETSON = Kind("jetson", "NVIDIA Jetson's GPU", board=("*Jetson*", "*jetson*"))
NVIDIA_GPU = Kind("nvidia-gpu", "NVIDIA GPU", pci=("10de:* 03*",), nodes=("/dev/nvidia[0-9]*",))
KINDS = (CORAL_USB, CORAL_PCIE, MOVIDIUS, JETSON, NVIDIA_GPU)


@dataclass(frozen=True)
class Accelerator:
    """One family as seen on one machine: `found` says where it is, and is empty where it is not attached."""

    id: str
    name: str
    looked_for: str
    found: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As machines read it."""
        present = bool(self.found)
        return {
            "id": self.id,
            "name": self.name,
            "present": present,
            "found": list(self.found),
            "looked_for": self.looked_for,
        }


def known_accelerators(machine: Mapping[str, Any]) -> list[Accelerator]:
    """Every family that is known, attached or not; `machine` is what `runtimes.host.facts` returns."""
    return [Accelerator(kind.id, kind.name, _marks(kind), tuple(_places(kind, machine))) for kind in KINDS]


def is_attached(kind: Kind, machine: Mapping[str, Any]) -> bool:
    """Whether the machine shows any mark of that family."""
    return next(_places(kind, machine), None) is not None


def usb_devices(kind: Kind, machine: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The USB devices of that family, as in `runtimes.host.facts`."""
    return [one for one in machine["accelerators"]["usb"] if _matches(one["id"], kind.usb)]


def pci_devices(kind: Kind, machine: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The PCI devices of that family, as in `runtimes.host.facts`."""
    return [one for one in machine["accelerators"]["pci"] if _matches(f"{one['id']} {one['class']}", kind.pci)]


def nodes(kind: Kind, machine: Mapping[str, Any]) -> list[str]:
    """The device files of that family that exist."""
    return [one for one in machine["accelerators"]["nodes"] if _matches(one, kind.nodes)]


def _places(kind: Kind, machine: Mapping[str, Any]) -> Iterator[str]:
    for device in usb_devices(kind, machine):
        speed = f", {device['speed_mbps']:g} Mbit/s" if device["speed_mbps"] else ""
        yield f"USB {device['id']} at port {device['port']}{speed}"
    for device in pci_devices(kind, machine):
        yield f"PCI {device['id']} at {device['address']}"
    yield from nodes(kind, machine)
    board = machine["board"]
    if kind.board and (_matches(board["model"] or "", kind.board) or board["jetson_l4t"]):
        release = f", Jetson Linux {board['jetson_l4t']}" if board["jetson_l4t"] else ""
        yield f"{board['model'] or 'Jetson'}{release}"
    if kind is NVIDIA_GPU:
        yield from machine["accelerators"]["nvidia_gpus"]


def _matches(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _marks(kind: Kind) -> str:
    """What the family is known by, for people."""
    pci = tuple(mark.split()[0] for mark in kind.pci)
    buses = {"USB": kind.usb, "PCI": pci, "": kind.nodes, "board": kind.board[:1]}
    return ", ".join(f"{bus} {' or '.join(marks)}".strip() for bus, marks in buses.items() if marks)
