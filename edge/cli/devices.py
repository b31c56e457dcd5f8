"""`edge devices`: list this machine, its accelerators, the installed engines and every known profile."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.machine.accelerators import AcceleratorReport
    from edge.machine.this_machine import DevicesReport, ProfileReport
    from runtimes.board.report import EngineReport
    from runtimes.host.schema import Conditions, CpuFacts, EnergyFacts, MachineFacts, OsFacts, Throttling

_GIB = 2**30
_NOT_KNOWN = "not known"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge devices`."""
    parser.add_argument("--on", metavar="HOST", help="a board over ssh (default: this machine)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the report."""
    import edge

    found = edge.devices(args.on)
    print(json.dumps(found.to_json(), indent=2) if args.json else as_text(found, args.on or "This machine"))
    return 0


def as_text(report: DevicesReport, title: str = "This machine") -> str:
    """Format the result of `edge.machine.this_machine.describe`: four groups of aligned lines."""
    groups = {
        title: _machine_rows(report.machine, report.conditions),
        "Accelerators (* attached)": [_accelerator_row(one) for one in report.accelerators],
        "Engines (* installed)": [_engine_row(one) for one in report.engines],
        "Profiles, for --for (* here)": [_profile_row(one) for one in report.profiles],
    }
    return "\n\n".join(f"{title}\n{_table(rows)}" for title, rows in groups.items() if rows)


def _machine_rows(machine: MachineFacts, conditions: Conditions) -> list[Sequence[str]]:
    cpu, memory, system = machine["cpu"], machine["memory"], machine["os"]
    swap = _size(memory["swap_total_bytes"]) if memory["swap_total_bytes"] else "none"
    rows = [
        ("processor", f"{cpu['model'] or _NOT_KNOWN} ({cpu['architecture'] or _NOT_KNOWN})"),
        (
            "cores",
            f"{cpu['physical_cores']} physical, {cpu['logical_cores']} logical, {cpu['usable_cores']} usable here",
        ),
        ("clock", _clock(conditions["mhz"], cpu["max_mhz"])),
        ("features", " ".join(cpu["features"]) or _NOT_KNOWN),
        ("int8", _int8(cpu)),
        ("memory", f"{_size(memory['total_bytes'])}, {_size(memory['available_bytes'])} available, swap {swap}"),
        ("system", ", ".join(_system_words(system))),
        ("board", machine["board"]["model"] or "unknown (no device tree)"),
        ("governor", conditions["governor"] or "none (this system does not control the clock)"),
        ("load", _load(conditions["load_average"])),
        ("temperature", _temperature(conditions)),
        ("throttling", _throttling(conditions["throttling"])),
        ("energy", _energy(machine["energy"])),
    ]
    return list(rows)


def _energy(energy: EnergyFacts) -> str:
    if not energy["readable"]:
        return str(energy["reason"])
    return f"measurable ({', '.join(energy['rails']) or 'CPU packages'})"


def _clock(now: float | None, highest: float | None) -> str:
    known = {"now": now, "at most": highest}
    return ", ".join(f"{mhz:.0f} MHz {word}" for word, mhz in known.items() if mhz is not None) or _NOT_KNOWN


def _int8(cpu: CpuFacts) -> str:
    if cpu["int8_dot_product"]:
        return "dot product in one instruction: fast, and exact in 32 bits"
    if "avx2" in cpu["features"] or "sse4_1" in cpu["features"]:
        return "no VNNI: some engines' int8 kernels saturate in 16 bits (see edge doctor)"
    return "no dot product instruction: little faster than float"


def _system_words(system: OsFacts) -> Iterable[str]:
    yield system["name"] or _NOT_KNOWN
    yield f"kernel {system['kernel'] or _NOT_KNOWN}"
    yield f"Python {system['python']}"
    if system["container"]:
        yield f"{system['container']} container"
    if system["virtual_machine"]:
        yield "virtual machine"


def _load(processes: float | None) -> str:
    return _NOT_KNOWN if processes is None else f"{processes:.2f} runnable processes (mean of the last minute)"


def _temperature(conditions: Conditions) -> str:
    if conditions["temperature_c"] is None:
        return "not readable here"
    return f"{conditions['temperature_c']:.0f} °C ({conditions['temperature_sensor']})"


def _throttling(signs: Throttling | None) -> str:
    if signs is None:
        return "not readable here"
    if signs["events"] is not None:
        return f"{signs['events']} times since boot"
    now, past = ", ".join(signs["now"]) or "none", ", ".join(signs["since_boot"]) or "none"
    return f"now: {now}; since boot: {past}"


def _accelerator_row(one: AcceleratorReport) -> Sequence[str]:
    where = "; ".join(one["found"]) if one["present"] else f"not attached ({one['looked_for']})"
    return (_mark(one["present"]), one["name"], where)


def _engine_row(one: EngineReport) -> Sequence[str]:
    state = (one["version"] or "installed") if one["installed"] else "not installed"
    last = one["hint"] or " ".join(one["formats"])
    if one["lacks"]:
        last += f", without {one['lacks']}, which it needs"
    return (_mark(one["installed"] and not one["lacks"]), one["id"], state, last)


def _profile_row(one: ProfileReport) -> Sequence[str]:
    return (_mark(one["here"]), one["id"], one["kind"], one["name"])


def _mark(present: bool) -> str:
    return "*" if present else " "


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Align the rows in columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line}".rstrip() for line in lines)


def _size(count: int | None) -> str:
    return _NOT_KNOWN if count is None else f"{count / _GIB:.1f} GiB"
