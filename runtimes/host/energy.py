"""Energy: from the CPU package counters of Intel and AMD (RAPL), else from a board's INA power sensors.

See `runtimes.host.power` for the latter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtimes.host.files import entries, read_int, read_text
from runtimes.host.power import PowerSampler, power_rails
from runtimes.host.schema import EnergyAnswer, EnergyFacts


@dataclass(frozen=True)
class EnergyReading:
    """A snapshot of the counters: per CPU package its name, its energy in microjoules, and the counter's maximum.

    A package includes cores, caches and integrated GPU, but not memory or the rest of the machine.
    """

    packages: tuple[tuple[str, int, int], ...]


def energy_facts(root: Path) -> EnergyFacts:
    """Return the `energy` part of `runtimes.host.facts`."""
    zones, rails = _package_zones(root), power_rails(root)
    if read_energy(root) is not None:
        return {"source": "rapl", "readable": True, "reason": None, "rails": []}
    if rails:
        return {"source": "ina", "readable": True, "reason": None, "rails": [rail.name for rail in rails]}
    if zones:
        reason = "the counters of /sys/class/powercap are readable by root only"
    else:
        reason = "this machine has no energy counters in /sys/class/powercap and no INA sensor"
    return {"source": "rapl" if zones else None, "readable": False, "reason": reason, "rails": []}


class EnergyMeter:
    """Measures energy from construction to `finish`, by the CPU package counters, else by the board's power sensors."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root, self._facts = root, energy_facts(root)
        rails = power_rails(root) if self._facts["source"] == "ina" else []
        self._sampler = PowerSampler(rails) if rails else None
        self._before = read_energy(root)

    def finish(self) -> EnergyAnswer:
        """Return {"energy_j", "energy_source", "energy_note"}; without a measurement, the note says why."""
        if self._sampler is not None:
            joules, source = self._sampler.joules(), "ina: " + ", ".join(self._facts["rails"])
        else:
            joules, source = joules_between(self._before, read_energy(self._root)), "rapl: CPU packages"
        if joules is None:
            reason = self._facts["reason"] or "the power sensors stopped responding"
            return {"energy_j": None, "energy_source": None, "energy_note": reason}
        return {"energy_j": joules, "energy_source": source, "energy_note": None}


def read_energy(root: Path = Path("/")) -> EnergyReading | None:
    """Take a snapshot; None if there are no counters or only root may read them (`facts` says which)."""
    packages = []
    for zone in _package_zones(root):
        counter, wrap = read_int(zone / "energy_uj"), read_int(zone / "max_energy_range_uj")
        if counter is None or wrap is None:
            return None
        packages.append((zone.name, counter, wrap))
    return EnergyReading(tuple(packages)) if packages else None


def joules_between(before: EnergyReading | None, after: EnergyReading | None) -> float | None:
    """Return the energy in joules that the CPU packages used between two snapshots; None if either is missing.

    The counters must not wrap more than once in between: they do every 65 kJ to 260 kJ, half an hour at least.
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
    # Zones such as `intel-rapl:0:0` (cores) are part of their package, and `psys` includes the packages:
    # adding them would count the same energy twice.
    zones = entries(root / "sys/class/powercap", "intel-rapl:*")
    return [zone for zone in zones if (read_text(zone / "name") or "").startswith("package")]
