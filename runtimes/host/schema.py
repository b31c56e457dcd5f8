"""The JSON objects of `runtimes.host`: machine facts and current conditions."""

from __future__ import annotations

from typing import Optional, TypedDict


class CpuFacts(TypedDict):
    """The processor."""

    model: str | None
    architecture: str | None
    logical_cores: int
    physical_cores: int
    usable_cores: int
    max_mhz: float | None
    features: list[str]
    int8_dot_product: bool
    int8_saturates: bool


class MemoryFacts(TypedDict):
    """The memory; `limit_bytes` is what the container may use."""

    total_bytes: int | None
    available_bytes: int | None
    swap_total_bytes: int | None
    swap_free_bytes: int | None
    limit_bytes: int | None


class OsFacts(TypedDict):
    """The operating system and the Python on it."""

    system: str | None
    name: str | None
    kernel: str | None
    page_bytes: int | None
    python: str
    container: str | None
    virtual_machine: bool
    emulated: bool


class BoardFacts(TypedDict):
    """The board by its device tree; `jetson_l4t` is the release of NVIDIA's Jetson Linux."""

    model: str | None
    jetson_l4t: str | None


class UsbDevice(TypedDict):
    """A USB device or hub; `id` is `vendor:product`."""

    id: str
    product: str | None
    speed_mbps: float | None
    port: str
    node: str | None


# Written as a call, as `class` is a keyword; evaluated at run time, also by Python 3.8.
PciDevice = TypedDict("PciDevice", {"id": str, "class": Optional[str], "address": str})


class AcceleratorFacts(TypedDict):
    """Devices besides the CPU, as raw ids."""

    usb: list[UsbDevice]
    pci: list[PciDevice]
    nodes: list[str]
    nvidia_gpus: list[str]


class EnergyFacts(TypedDict):
    """Whether energy can be read, from "rapl" or "ina"; `rails` are those of INA sensors."""

    source: str | None
    readable: bool
    reason: str | None
    rails: list[str]


class MachineFacts(TypedDict):
    """The machine's hardware and setup."""

    cpu: CpuFacts
    memory: MemoryFacts
    os: OsFacts
    board: BoardFacts
    accelerators: AcceleratorFacts
    energy: EnergyFacts


class Throttling(TypedDict):
    """Throttling indicators, see `runtimes.host.thermal`."""

    source: str
    now: list[str]
    since_boot: list[str]
    events: int | None


class PowerMode(TypedDict):
    """A Jetson's power mode."""

    id: int
    name: str | None


class GpuClock(TypedDict):
    """The clock of a Jetson's GPU."""

    now_mhz: float | None
    min_mhz: float
    max_mhz: float
    fixed: bool


class Conditions(TypedDict):
    """The machine's current conditions."""

    governor: str | None
    load_average: float | None
    temperature_c: float | None
    temperature_sensor: str | None
    throttling: Throttling | None
    mhz: float | None
    power_mode: PowerMode | None
    gpu_clock: GpuClock | None


class EnergyAnswer(TypedDict):
    """The energy of a loop: how it was measured, or why it was not."""

    energy_j: float | None
    energy_source: str | None
    energy_note: str | None
