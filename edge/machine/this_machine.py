"""Describe this machine, its accelerators, the installed engines and all device profiles, as in `edge devices`.

Errors of the profile loader are converted to errors of this project.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from device_profiles import profiles, published
from device_profiles.profiles import Profile, UnknownProfileError
from device_profiles.published import PublishedRow
from device_profiles.reader import ProfileError
from edge.machine.accelerators import AcceleratorReport, known_accelerators
from runtimes import host
from runtimes.artifact.json_fields import JsonObject, to_json
from runtimes.board.report import EngineReport, engines
from runtimes.errors import InputError, UsageError
from runtimes.host.schema import Conditions, MachineFacts


class ProfileReport(TypedDict):
    """A device profile; `here` is whether this machine, or an accelerator attached to it, is that device."""

    id: str
    name: str
    kind: str
    here: bool


@dataclass(frozen=True, kw_only=True)
class DevicesReport:
    """A machine, its accelerators and engines, and the known device profiles.

    machine: The result of `runtimes.host.facts`.
    conditions: The result of `runtimes.host.conditions`.
    accelerators: Each known accelerator, and where it was found.
    engines: Each known engine, and whether it is installed.
    profiles: Each known device, and whether it is this machine.
    """

    machine: MachineFacts
    conditions: Conditions
    accelerators: Sequence[AcceleratorReport]
    engines: Sequence[EngineReport]
    profiles: Sequence[ProfileReport]

    def to_json(self) -> JsonObject:
        """Return the object that `edge devices --json` prints."""
        return to_json(self)


def describe(root: Path = Path("/")) -> DevicesReport:
    """Describe this machine."""
    return report(host.facts(root), host.conditions(root), engines())


def report(machine: MachineFacts, conditions: Conditions, engine_reports: Sequence[EngineReport]) -> DevicesReport:
    """Describe a machine from the output of `runtimes.board.report`, on this machine or on a board."""
    return DevicesReport(
        machine=machine,
        conditions=conditions,
        accelerators=[one.to_json() for one in known_accelerators(machine)],
        engines=engine_reports,
        profiles=_profiles(machine),
    )


def _profiles(machine: MachineFacts) -> list[ProfileReport]:
    raw = machine["accelerators"]
    here = profiles.recognize_devices(
        usb=[device["id"] for device in raw["usb"]],
        pci=[device["id"] for device in raw["pci"]],
        nodes=raw["nodes"],
        board=machine["board"]["model"] or "",
        cpu=machine["cpu"]["model"] or "",
        gpu=raw["nvidia_gpus"],
    )
    return [{"id": one.id, "name": one.name, "kind": one.kind, "here": one.id in here} for one in all_profiles()]


def load_profile(device: str) -> Profile:
    """Load the profile of a device, or of several joined with `+`.

    Raises UsageError, with similar names, for an unknown device, and InputError for an invalid profile file.
    """
    with _translate_errors():
        return profiles.load(device)


def published_row(setup: str) -> PublishedRow:
    """Find a row of the published table by its id or setup. Raises UsageError for an unknown one."""
    with _translate_errors():
        return published.published_row(setup)


def all_profiles() -> list[Profile]:
    """Load the profile of every device. Raises InputError for an invalid profile file."""
    with _translate_errors():
        return [profiles.load(profile_id) for profile_id in profiles.profile_ids()]


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except UnknownProfileError as error:
        raise UsageError(error.message, error.hint) from None
    except ProfileError as error:
        raise InputError(error.message, error.hint) from None
