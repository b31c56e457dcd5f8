"""Energy drawn by the CPU packages, as Intel and AMD processors count it (RAPL, `intel-rapl`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.host.files import entries, read_int, read_text


@dataclass(frozen=True)
class EnergyReading:
    """The counters at one moment: per CPU package its name, microjoules so far, and where the counter wraps.

    Packages hold their cores, caches and built-in GPU; memory and the rest of the machine are not in it.
    """

    packages: tuple[tuple[str, int, int], ...]


def energy_facts(root: Path) -> dict[str, Any]:
    """The `energy` part of `runtimes.host.facts`."""
    zones = _package_zones(root)
    readable = read_energy(root) is not None
    if readable:
        reason = None
    elif zones:
        reason = "the counters of /sys/class/powercap are readable by root only"
    else:
        reason = "this machine has no energy counters that Linux shows (/sys/class/powercap)"
    return {"source": "rapl" if zones else None, "readable": readable, "reason": reason}


def read_energy(root: Path = Path("/")) -> EnergyReading | None:
    """The energy counters now; None where there are none, or only root may read them (`facts` says which)."""
    packages = []
    for zone in _package_zones(root):
        counter, wrap = read_int(zone / "energy_uj"), read_int(zone / "max_energy_range_uj")
        if counter is None or wrap is None:
            return None
        packages.append((zone.name, counter, wrap))
    return EnergyReading(tuple(packages)) if packages else None


def joules_between(before: EnergyReading | None, after: EnergyReading | None) -> float | None:
    """The energy in joules that the CPU packages drew between two readings less than a counter's round apart.

    A counter's round is some 65 kJ to 260 kJ: half an hour at least. None when either reading is missing.
    """
    if before is None or after is None:
        return None
    if [name for name, _, _ in before.packages] != [name for name, _, _ in after.packages]:
        return None
    pairs = zip(before.packages, after.packages)
    return sum(_rise(first, last, wrap) for (_, first, wrap), (_, last, _) in pairs) / 1e6


def _rise(first: int, last: int, wrap: int) -> int:
    return last - first if last >= first else last - first + wrap


def _package_zones(root: Path) -> list[Path]:
    # Zones such as `intel-rapl:0:0` (cores) lie within their package, and `psys` holds the packages:
    # counting them too would count the same energy twice.
    zones = entries(root / "sys/class/powercap", "intel-rapl:*")
    return [zone for zone in zones if (read_text(zone / "name") or "").startswith("package")]
