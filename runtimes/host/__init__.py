"""Facts about this machine: its fixed properties, and its current conditions.

Every reader takes `root`, a folder in place of `/`, so that tests can describe a board by a folder of files. Linux is
fully supported; elsewhere, a fact that cannot be read (the load average is POSIX only) is None, never an error.

    facts()       cpu, memory, os, board, accelerators, energy: hardware and setup
    conditions()  governor, load, temperature, throttling, MHz: read them before and after a measurement
"""

from __future__ import annotations

import os
from pathlib import Path

from runtimes.host.accelerators import accelerator_facts
from runtimes.host.cpu import (
    cpu_facts,
    cpu_features,
    current_mhz,
    governor,
    has_int8_dot_product,
    int8_saturates,
    performance_cores,
    physical_cores,
    usable_cores,
)
from runtimes.host.energy import EnergyMeter, EnergyReading, energy_facts, joules_between, read_energy
from runtimes.host.files import read_text
from runtimes.host.schema import Conditions, MachineFacts
from runtimes.host.system import board_facts, memory_facts, os_facts, peak_rss_bytes
from runtimes.host.thermal import gpu_clock, power_mode, temperature, throttling

__all__ = [
    "EnergyMeter",
    "EnergyReading",
    "conditions",
    "cpu_features",
    "facts",
    "has_int8_dot_product",
    "int8_saturates",
    "joules_between",
    "peak_rss_bytes",
    "performance_cores",
    "physical_cores",
    "read_energy",
    "usable_cores",
]


def facts(root: Path = Path("/")) -> MachineFacts:
    """Describe this machine as JSON values; a value that cannot be read is None.

    cpu           model, architecture, logical_cores, physical_cores, usable_cores, max_mhz,
                  features (sorted list), int8_dot_product (bool), int8_saturates (bool)
    memory        total_bytes, available_bytes, swap_total_bytes, swap_free_bytes
    os            system, name, kernel, python, container, virtual_machine (bool), emulated (bool)
    board         model, jetson_l4t (release of NVIDIA's Jetson Linux)
    accelerators  usb: [{id, product, speed_mbps, port, node}], pci: [{id, class, address}],
                  nodes: ["/dev/apex_0", ...], nvidia_gpus: [name, ...]
    energy        source ("rapl", "ina"), readable (bool), reason (why it cannot be read), rails (of INA sensors)
    """
    return {
        "cpu": cpu_facts(root),
        "memory": memory_facts(root),
        "os": os_facts(root),
        "board": board_facts(root),
        "accelerators": accelerator_facts(root),
        "energy": energy_facts(root),
    }


def conditions(root: Path = Path("/")) -> Conditions:
    """Describe the current conditions as JSON values; a value that cannot be read is None.

    governor: CPU frequency governor: "performance", "ondemand", ...; several are joined by ", ".
    load_average: Runnable processes, mean of the last minute.
    temperature_c: Temperature of the hottest sensor, in degrees Celsius.
    temperature_sensor: The name of that sensor.
    throttling: {source, now: [flag], since_boot: [flag], events: count or None}, see `thermal`.
    mhz: The current clock of the fastest core.
    power_mode: A Jetson's {id, name}, see `thermal`.
    gpu_clock: A Jetson's {now_mhz, min_mhz, max_mhz, fixed}.
    """
    hottest = temperature(root)
    return {
        "governor": governor(root),
        "load_average": _load_average(root),
        "temperature_c": hottest and hottest.celsius,
        "temperature_sensor": hottest and hottest.sensor,
        "throttling": throttling(root),
        "mhz": current_mhz(root),
        "power_mode": power_mode(root),
        "gpu_clock": gpu_clock(root),
    }


def _load_average(root: Path) -> float | None:
    words = (read_text(root / "proc/loadavg") or "").split()
    if words or root != Path("/"):
        return float(words[0]) if words else None
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return None
