"""Facts about the machine that this runs on: what it is, and what changes from moment to moment.

Every reader takes `root`, the folder that stands for `/`, so that a board can be described by a folder of
files. Linux is read in full; elsewhere a fact that cannot be read is None, never an error.

    facts()       cpu, memory, os, board, accelerators, energy: the machine as it was bought and set up
    conditions()  governor, load, temperature, throttling, MHz: read them before and after a measurement
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from runtimes.host.accelerators import accelerator_facts
from runtimes.host.board import board_facts
from runtimes.host.cpu import (
    cpu_facts,
    cpu_features,
    has_int8_dot_product,
    int8_saturates,
    performance_cores,
    physical_cores,
    usable_cores,
)
from runtimes.host.energy import EnergyMeter, EnergyReading, energy_facts, joules_between, read_energy
from runtimes.host.frequency import current_mhz, governor
from runtimes.host.jetson import gpu_clock, power_mode
from runtimes.host.memory import memory_facts, peak_rss_bytes
from runtimes.host.system import os_facts
from runtimes.host.thermal import temperature, throttling

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


def facts(root: Path = Path("/")) -> dict[str, Any]:
    """What this machine is, ready for JSON; a value that cannot be read is None.

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


def conditions(root: Path = Path("/")) -> dict[str, Any]:
    """What changes from moment to moment, ready for JSON; a value that cannot be read is None.

    governor            of CPU frequency: "performance", "ondemand", ...; several are joined by ", "
    load_average        runnable processes, mean of the last minute
    temperature_c       of the hottest sensor, in degrees Celsius
    temperature_sensor  that sensor's name
    throttling          {source, now: [flag], since_boot: [flag], events: count or None}, see `thermal`
    mhz                 the fastest core's clock now
    power_mode          of a Jetson: {id, name}, see `jetson`
    gpu_clock           of a Jetson: {now_mhz, min_mhz, max_mhz, fixed}
    """
    hottest = temperature(root)
    return {
        "governor": governor(root),
        "load_average": _load_average(),
        "temperature_c": hottest and hottest.celsius,
        "temperature_sensor": hottest and hottest.sensor,
        "throttling": throttling(root),
        "mhz": current_mhz(root),
        "power_mode": power_mode(root),
        "gpu_clock": gpu_clock(root),
    }


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return None
