"""Profiles of boards, computers and accelerators, read from the TOML files next to this module and in extensions.

A profile's id is its file's stem. `+` joins parts to a setup: `raspberry-pi-3b-plus+coral-usb`. To add a device, add a
file; nothing here needs to change.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from device_profiles.facts import (
    KINDS,
    Accelerator,
    Cpu,
    FormatSupport,
    Memory,
    Peak,
    Power,
    Price,
    Recognition,
    Refusal,
)
from device_profiles.reader import ProfileError, TomlTable, read_toml, suggestion

_LOG = logging.getLogger(__name__)
EXTENSIONS = "edge.devices"  # the group of entry points, each of which names a package: its TOML files are devices
_FOLDER = Path(__file__).parent


class UnknownProfileError(ProfileError):
    """An unknown id, or parts that do not form a setup."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A device, or a setup of several. A fact that is unknown or has no source is None or empty.

    In a setup, `cpu` and `memory` are the host's, and `accelerators` lists all of them. Power, price and peak belong to
    the single parts: read them from `parts`, which is empty for a single device.
    """

    id: str
    name: str
    kind: str
    year: int | None
    source: str
    cpu: Cpu | None
    accelerators: tuple[Accelerator, ...]
    memory: Memory | None
    formats: tuple[FormatSupport, ...]
    refuses: tuple[Refusal, ...]
    recognize: Recognition | None
    power: Power | None
    price: Price | None
    peak: Peak | None
    parts: tuple[Profile, ...] = ()

    def takes(self, format: str) -> FormatSupport | None:
        """Return the facts about `format` on this device; None if the device does not support it."""
        return next((known for known in self.formats if known.format == format), None)

    def refusal(self, format: str, asked: str) -> Refusal | None:
        """Return why `asked` (a precision, `dynamic-batch` or `newest-runtime`) is not available in `format`."""
        return next((one for one in self.refuses if one.format == format and asked in one.asked), None)


def profile_ids() -> list[str]:
    """Return the ids of all single devices, including extensions', sorted."""
    return sorted(_files())


@cache
def _files() -> dict[str, Path]:
    built_in = {path.stem: path for path in _FOLDER.glob("*.toml")}
    added: dict[str, Path] = {}
    for package, path in extension_files():
        try:
            if path.stem in built_in or path.stem in added:
                raise ProfileError("there is a device of that name already")
            read_profile(path)
        except ProfileError as error:
            _LOG.warning("edge: the device profile %s of the package %s is left out: %s", path.name, package, error)
        else:
            added[path.stem] = path
    return {**built_in, **added}


@cache
def load(profile_id: str) -> Profile:
    """Load a device, or a setup of the parts that `+` joins in `profile_id`.

    Raises `UnknownProfileError` for an unknown id, `ProfileError` for an invalid file.
    """
    parts = [_single(part.strip()) for part in profile_id.split("+")]
    return parts[0] if len(parts) == 1 else _join(parts)


def recognize_devices(
    *,
    usb: Iterable[str] = (),
    pci: Iterable[str] = (),
    nodes: Iterable[str] = (),
    board: str = "",
    cpu: str = "",
    gpu: Iterable[str] = (),
) -> list[str]:
    """Return the ids of the devices that match: ids as `1a6e:089a`, nodes as `/dev/apex_0`, names as read."""
    seen = {
        "usb": [one.lower() for one in usb],
        "pci": [one.lower() for one in pci],
        "nodes": list(nodes),
        "board": [board],
        "cpu": [cpu],
        "gpu": list(gpu),
    }
    return [known for known in profile_ids() if _shows(load(known).recognize, seen)]


def _shows(marks: Recognition | None, seen: dict[str, list[str]]) -> bool:
    return marks is not None and any(
        fnmatchcase(found, pattern)
        for kind, values in seen.items()
        for found in values
        for pattern in getattr(marks, kind)
    )


def _single(profile_id: str) -> Profile:
    known = profile_ids()
    if profile_id not in known:
        raise UnknownProfileError(f"no device profile is called '{profile_id}'", suggestion(profile_id, known))
    return read_profile(_files()[profile_id])


def read_profile(path: Path) -> Profile:
    """Read the device in a TOML file; its id is the file's stem. Raises `ProfileError` for an invalid file."""
    return read_toml(path, lambda table: _profile(path.stem, table))


def _join(parts: list[Profile]) -> Profile:
    """Join a host and its accelerators to a setup; the accelerators' formats come first."""
    hosts = [part for part in parts if part.kind != "accelerator"]
    others = [part for part in parts if part.kind == "accelerator"]
    if len(hosts) != 1 or len({part.id for part in parts}) != len(parts):
        raise UnknownProfileError(
            f"'{'+'.join(part.id for part in parts)}' is not a setup",
            "join one board or computer and its accelerators, as in raspberry-pi-4+coral-usb",
        )
    ordered = [*others, *hosts]
    formats: dict[str, FormatSupport] = {}
    for known in (known for part in ordered for known in part.formats):
        formats.setdefault(known.format, known)
    return replace(
        hosts[0],
        id="+".join(part.id for part in (*hosts, *others)),
        name=" + ".join(part.name for part in (*hosts, *others)),
        accelerators=tuple(one for part in ordered for one in part.accelerators),
        formats=tuple(formats.values()),
        refuses=tuple(one for part in ordered for one in part.refuses),
        recognize=None,
        power=None,
        price=None,
        peak=None,
        parts=(*hosts, *others),
    )


def _profile(profile_id: str, table: TomlTable) -> Profile:
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
        formats=table.groups("formats", FormatSupport.read),
        refuses=table.groups("refuses", Refusal.read),
        # The second spelling is that of profiles which were written before 0.1.0.
        recognize=table.group("recognize", Recognition.read) or table.group("recognise", Recognition.read),
        power=table.group("power", Power.read),
        price=table.group("price", Price.read),
        peak=table.group("peak", Peak.read),
    )


def extension_files() -> Iterator[tuple[str, Path]]:
    """Yield (distribution name and version, path) of all extension profiles, sorted."""
    for point in sorted(set(metadata.entry_points(group=EXTENSIONS)), key=lambda point: (point.name, point.value)):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
        folders = _folders(point.value)
        if not folders:
            _LOG.warning(
                "edge: the device profiles of the package %s are left out: no package %s", package, point.value
            )
        for path in sorted(path for folder in folders for path in folder.glob("*.toml")):
            yield package, path


def _folders(package: str) -> list[Path]:
    """Return a package's folders; empty if it does not exist or its parent cannot be imported."""
    try:
        spec = find_spec(package)
    except Exception:  # importing the parent may raise anything
        return []
    return [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
