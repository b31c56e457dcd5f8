"""This machine, what is plugged in, the engines installed and every known profile: the content of `edge devices`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_profiles import profiles
from edge.accelerators import known_accelerators
from edge.profiles import all_profiles
from runtimes import host
from runtimes.tell import engines


def describe(root: Path = Path("/")) -> dict[str, Any]:
    """Everything that `edge devices` tells, ready for JSON.

    machine       as `runtimes.host.facts`
    conditions    as `runtimes.host.conditions`
    accelerators  [{id, name, present, found: [where], looked_for}]
    engines       [{id, formats, requires, installed, version, lacks, hint}]
    profiles      [{id, name, kind, here}]; `here`: this machine, or a part attached to it, is that device
    """
    return report({"machine": host.facts(root), "conditions": host.conditions(root), "engines": engines()})


def report(told: Mapping[str, Any]) -> dict[str, Any]:
    """The same of what `runtimes.tell` says, here or on a board."""
    return {
        "machine": told["machine"],
        "conditions": told["conditions"],
        "accelerators": [one.as_dict() for one in known_accelerators(told["machine"])],
        "engines": [{**one, "formats": list(one["formats"])} for one in told["engines"]],
        "profiles": _profiles(told["machine"]),
    }


def _profiles(machine: dict[str, Any]) -> list[dict[str, Any]]:
    raw = machine["accelerators"]
    here = profiles.recognised(
        usb=[device["id"] for device in raw["usb"]],
        pci=[device["id"] for device in raw["pci"]],
        nodes=raw["nodes"],
        board=machine["board"]["model"] or "",
        cpu=machine["cpu"]["model"] or "",
        gpu=raw["nvidia_gpus"],
    )
    return [{"id": one.id, "name": one.name, "kind": one.kind, "here": one.id in here} for one in all_profiles()]
