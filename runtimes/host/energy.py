"""Energy: as Intel and AMD processors count it for their CPU packages (RAPL, `intel-rapl`), else as INA sensors on
a board tell its power (`runtimes.host.power`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.host.files import entries, read_int, read_text
from runtimes.host.power import PowerSampler, power_rails


@dataclass(frozen=True)
class EnergyReading:
    """The counters at one moment: per CPU package its name, microjoules so far, and where the counter wraps.

    Packages hold their cores, caches and built-in GPU; memory and the rest of the machine are not in it.
    """

    packages: tuple[tuple[str, int, int], ...]


def energy_facts(root: Path) -> dict[str, Any]:
    """The `energy` part of `runtimes.host.facts`."""
    zones, rails = _package_zones(root), power_rails(root)
    if read_energy(root) is not None:
        return {"source": "rapl", "readable": True, "reason": None, "rails": []}
    if rails:
        return {"source": "ina", "readable": True, "reason": None, "rails": [rail.name for rail in rails]}
    if zones:
        reason = "the counters of /sys/class/powercap are readable by root only"
    else:
        reason = "this machine has no energy counters that Linux shows (/sys/class/powercap), and no INA sensor"
    return {"source": "rapl" if zones else None, "readable": False, "reason": reason, "rails": []}


class EnergyMeter:
    """Measures from its making until `finish`, by the CPU packages' counters, else by the board's power sensors."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root, self._facts = root, energy_facts(root)
        rails = power_rails(root) if self._facts["source"] == "ina" else []
        self._sampler = PowerSampler(rails) if rails else None
        self._before = read_energy(root)

    def finish(self) -> dict[str, Any]:
        """{"energy_j", "energy_source", "energy_note"}: the source names what was measured; the note says why not."""
        if self._sampler is not None:
            joules, source = self._sampler.joules(), "ina: " + ", ".join(self._facts["rails"])
        else:
            joules, source = joules_between(self._before, read_energy(self._root)), "rapl: CPU packages"
        if joules is None:
            reason = self._facts["reason"] or "the power sensors fell silent"
            return {"energy_j": None, "energy_source": None, "energy_note": reason}
        return {"energy_j": joules, "energy_source": source, "energy_note": None}


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
