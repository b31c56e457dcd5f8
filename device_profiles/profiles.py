"""Boards, computers and accelerators as values, read from the TOML files beside this module.

A profile's id is its file's stem. Parts join with `+` into a setup: `raspberry-pi-3b-plus+coral-usb`.
Adding a device is adding a file; nothing here needs to change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from device_profiles.facts import (
    KINDS,
    Accelerator,
    Cpu,
    Format,
    Memory,
    Peak,
    Power,
    Price,
    Recognise,
    Refusal,
)
from device_profiles.reader import ProfileError, Table, read_toml, suggestion

_FOLDER = Path(__file__).parent


class UnknownProfile(ProfileError):  # noqa: N818 - read aloud: "unknown profile"
    """An id that no file here has, or parts that do not make one setup."""


@dataclass(frozen=True)
class Profile:
    """One device, or the parts of a setup joined. A fact that is not known, or has no source, is None or empty.

    In a setup `cpu` and `memory` are the host's and `accelerators` holds all of them; power, price and peak
    belong to single parts: read them from `parts`, which is empty for a single device.
    """

    id: str
    name: str
    kind: str
    year: int | None
    source: str
    cpu: Cpu | None
    accelerators: tuple[Accelerator, ...]
    memory: Memory | None
    formats: tuple[Format, ...]
    refuses: tuple[Refusal, ...]
    recognise: Recognise | None
    power: Power | None
    price: Price | None
    peak: Peak | None
    parts: tuple[Profile, ...] = ()

    def takes(self, format: str) -> Format | None:
        """What is known of `format` on this device; None where it does not take it."""
        return next((known for known in self.formats if known.format == format), None)

    def refusal(self, format: str, asked: str) -> Refusal | None:
        """The reason why `asked` (a precision, `dynamic-batch` or `newest-runtime`) cannot be had in `format`."""
        return next((one for one in self.refuses if one.format == format and asked in one.asked), None)


def profile_ids() -> list[str]:
    """The ids of all single devices, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


@cache
def load(profile_id: str) -> Profile:
    """The device called `profile_id`, or the setup of the parts that `+` joins there.

    Raises `UnknownProfile` for a name that is none, `ProfileError` for a file that is wrong.
    """
    parts = [_single(part.strip()) for part in profile_id.split("+")]
    return parts[0] if len(parts) == 1 else _join(parts)


def recognised(
    *,
    usb: Iterable[str] = (),
    pci: Iterable[str] = (),
    nodes: Iterable[str] = (),
    board: str = "",
    cpu: str = "",
    gpu: Iterable[str] = (),
) -> list[str]:
    """The ids of the devices that these facts show: ids as `1a6e:089a`, nodes as `/dev/apex_0`, names as read."""
    seen = {
        "usb": [one.lower() for one in usb],
        "pci": [one.lower() for one in pci],
        "nodes": list(nodes),
        "board": [board],
        "cpu": [cpu],
        "gpu": list(gpu),
    }
    return [known for known in profile_ids() if _shows(load(known).recognise, seen)]


def _shows(marks: Recognise | None, seen: dict[str, list[str]]) -> bool:
    return marks is not None and any(
        fnmatchcase(found, pattern)
        for kind, values in seen.items()
        for found in values
        for pattern in getattr(marks, kind)
    )


def _single(profile_id: str) -> Profile:
    known = profile_ids()
    if profile_id not in known:
        raise UnknownProfile(f"no device profile is called '{profile_id}'", suggestion(profile_id, known))
    return read_toml(_FOLDER / f"{profile_id}.toml", lambda table: _profile(profile_id, table))


def _join(parts: list[Profile]) -> Profile:
    """One setup of a host and its accelerators; what the accelerators take comes first."""
    hosts = [part for part in parts if part.kind != "accelerator"]
    others = [part for part in parts if part.kind == "accelerator"]
    if len(hosts) != 1 or len({part.id for part in parts}) != len(parts):
        raise UnknownProfile(
            f"'{'+'.join(part.id for part in parts)}' is not a setup",
            "join one board or computer and its accelerators, as in raspberry-pi-4+coral-usb",
        )
    ordered = [*others, *hosts]
    formats: dict[str, Format] = {}
    for known in (known for part in ordered for known in part.formats):
        formats.setdefault(known.format, known)
    return replace(
        hosts[0],
        id="+".join(part.id for part in (*hosts, *others)),
        name=" + ".join(part.name for part in (*hosts, *others)),
        accelerators=tuple(one for part in ordered for one in part.accelerators),
        formats=tuple(formats.values()),
        refuses=tuple(one for part in ordered for one in part.refuses),
        recognise=None,
        power=None,
        price=None,
        peak=None,
        parts=(*hosts, *others),
    )


def _profile(profile_id: str, table: Table) -> Profile:
    accelerator = table.group("accelerator", Accelerator.read)
    return Profile(
        id=profile_id,
        name=table.text("name"),
        kind=table.word("kind", KINDS),
        year=table.find("year", int),
        source=table.text("source"),
        cpu=table.group("cpu", Cpu.read),
        accelerators=() if accelerator is None else (accelerator,),
        memory=table.group("memory", Memory.read),
        formats=table.groups("formats", Format.read),
        refuses=table.groups("refuses", Refusal.read),
        recognise=table.group("recognise", Recognise.read),
        power=table.group("power", Power.read),
        price=table.group("price", Price.read),
        peak=table.group("peak", Peak.read),
    )
