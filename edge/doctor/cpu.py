"""Check the processor: missing instructions, and conditions that disturb measurements."""

from __future__ import annotations

from collections.abc import Iterator

from edge.doctor.snapshot import Check, Finding, Level, Snapshot
from edge.machine import FASTEST_GOVERNOR, FASTEST_GOVERNOR_JETSON, accelerators

_HOT_C = 80.0  # a Raspberry Pi starts to throttle here; PCs between 90 and 105


def int8(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for an int8 dot product instruction. Without it, int8 is fast but inexact on x86, exact but slow on ARM."""
    cpu = snapshot.machine["cpu"]
    if cpu["int8_dot_product"]:
        yield Finding(level="ok", what="the processor has an int8 dot product instruction")
    elif {"avx2", "sse4_1"} & set(cpu["features"]):
        yield Finding(
            level="note",
            what="the processor has no VNNI, so some int8 kernels saturate in 16 bits",
            why="the int8 kernels of ONNX Runtime and OpenVINO then change answers; those of TFLite do not",
            fix="run int8 models with litert, or let edge set the precise mode of the others, at some cost in speed",
        )
    elif cpu["features"]:
        yield Finding(
            level="note",
            what="the processor has no int8 dot product instruction (asimddp)",
            why="int8 models give correct answers here, but gain less speed over float than on newer cores",
            fix="measure both: edge bench MODEL_FP32 MODEL_INT8",
        )


def governor(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the CPU governor: one that saves power changes the clock during a measurement."""
    name = snapshot.conditions["governor"]
    if name is None:
        return
    if name == "performance":
        yield Finding(level="ok", what="the CPU governor is 'performance'")
        return
    jetson = accelerators.is_attached(accelerators.JETSON, snapshot.machine)
    yield Finding(
        level="warning",
        what=f"the CPU governor is '{name}'",
        why="the clock follows the load, so times vary from run to run",
        fix=FASTEST_GOVERNOR_JETSON if jetson else FASTEST_GOVERNOR,
    )


def load(snapshot: Snapshot) -> Iterator[Finding]:
    """Check whether other processes keep the cores busy."""
    processes, cores = snapshot.conditions["load_average"], snapshot.machine["cpu"]["usable_cores"]
    if processes is not None and processes >= 0.5 * cores:
        yield Finding(
            level="warning",
            what=f"{processes:.1f} processes have kept {cores} {'core' if cores == 1 else 'cores'} busy for a minute",
            why="measurements are slower than the machine while they run",
            fix="find them with `top` and wait, or stop them",
        )


def share(snapshot: Snapshot) -> Iterator[Finding]:
    """Check whether a container's quota or an affinity mask withholds cores from this process."""
    cpu = snapshot.machine["cpu"]
    if cpu["usable_cores"] < cpu["logical_cores"]:
        yield Finding(
            level="note",
            what=f"this process may use {cpu['usable_cores']} of {cpu['logical_cores']} cores",
            why="a container's quota or an affinity mask sets this; engines that ignore it start too many threads",
            fix=f"set the number of threads: --threads {cpu['usable_cores']}",
        )


def heat(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the temperature: a hot processor is about to throttle."""
    celsius = snapshot.conditions["temperature_c"]
    if celsius is None:
        return
    if celsius < _HOT_C:
        yield Finding(level="ok", what=f"{celsius:.0f} °C at the hottest sensor")
        return
    yield Finding(
        level="warning",
        what=f"{celsius:.0f} °C at the sensor '{snapshot.conditions['temperature_sensor']}'",
        why=f"processors throttle from about {_HOT_C:.0f} °C",
        fix="let the machine cool down, and give it a heat sink or a fan",
    )


def throttling(snapshot: Snapshot) -> Iterator[Finding]:
    """Check whether the machine reports throttling."""
    signs = snapshot.conditions["throttling"]
    if signs is None:
        return
    if signs["now"]:
        yield _throttled("error", "reports now", signs["now"])
    elif signs["since_boot"]:
        yield _throttled("warning", "has reported since boot", signs["since_boot"])
    elif signs["events"]:
        yield Finding(
            level="note",
            what=f"the processor has throttled {signs['events']} times since boot",
            why="it was too hot or drew too much power; a measurement at such a moment is too slow",
            fix="edge bench compares this count before and after a measurement, and reports a change",
        )
    else:
        yield Finding(level="ok", what="the processor has not throttled since boot")


def _throttled(level: Level, when: str, flags: list[str]) -> Finding:
    why = "the clock is lowered meanwhile, so measurements are too slow"
    fix = (
        "use the power supply made for this board (5.1 V; 2.5 A for a Pi 3, 3 A for a Pi 4, 5 A for a Pi 5) "
        "and a short, thick cable"
        if "under-voltage" in flags
        else "give the board a heat sink or a fan"
    )
    return Finding(level=level, what=f"the board {when}: {', '.join(flags)}", why=why, fix=fix)


CHECKS: tuple[Check, ...] = (int8, governor, load, share, heat, throttling)
