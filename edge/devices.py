"""This machine, what is plugged in, the engines installed and every known profile: the content of `edge devices`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from device_profiles import profiles
from edge.accelerators import known_accelerators
from edge.profiles import all_profiles
from runtimes import host, registry


def describe(root: Path = Path("/")) -> dict[str, Any]:
    """Everything that `edge devices` tells, ready for JSON.

    machine       as `runtimes.host.facts`
    conditions    as `runtimes.host.conditions`
    accelerators  [{id, name, present, found: [where], looked_for}]
    engines       [{id, formats, requires, installed, version, lacks, hint}]
    profiles      [{id, name, kind, here}]; `here`: this machine, or a part attached to it, is that device
    """
    machine = host.facts(root)
    return {
        "machine": machine,
        "conditions": host.conditions(root),
        "accelerators": [one.as_dict() for one in known_accelerators(machine)],
        "engines": [_engine(runtime_id) for runtime_id in registry.runtime_ids()],
        "profiles": _profiles(machine),
    }


def _engine(runtime_id: str) -> dict[str, Any]:
    status = registry.status(runtime_id)
    return {
        "id": status.id,
        "formats": list(status.formats),
        "requires": status.requires,
        "installed": status.installed,
        "version": status.version,
        "lacks": status.lacks,
        "hint": None if status.installed else registry.install_hint(status.id),
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
