"""Checks that apply only to boards: power modes, fixed clocks, and libraries built for each other."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edge.doctor.accelerators import interpreter, is_newer_than_googles
from edge.doctor.snapshot import Check, Finding, Snapshot
from edge.machine import FIXED_GPU_CLOCK, FULL_POWER_MODE
from edge.remote.packages import NEWER_LIBEDGETPU

_NEWEST_EDGETPU_RUNTIME = 14  # api/runtime_version.h of libedgetpu; of 2021, and the last


def emulated(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for qemu's user mode, which runs programs of another processor."""
    if snapshot.machine["os"].get("emulated"):
        yield Finding(
            level="note",
            what="this processor is emulated",
            why="answers are the same as on the hardware, times are not",
            fix="measure on the hardware",
        )


def power_mode(snapshot: Snapshot) -> Iterator[Finding]:
    """Check a Jetson's power mode: by default it saves power by switching cores off."""
    mode = snapshot.conditions.get("power_mode")
    if mode is None:
        return
    name = mode["name"] or f"number {mode['id']}"
    if mode["id"] == 0 or str(mode["name"]).startswith("MAXN"):
        yield Finding(level="ok", what=f"the power mode is {name}")
        return
    yield Finding(
        level="warning",
        what=f"the power mode is {name}",
        why="in this mode cores are switched off and clocks are capped",
        fix=FULL_POWER_MODE,
    )


def gpu_clock(snapshot: Snapshot) -> Iterator[Finding]:
    """Check whether the GPU's clock is fixed: if it follows the load, the first runs are slow and times vary."""
    clock = snapshot.conditions.get("gpu_clock")
    if clock is not None and not clock["fixed"]:
        yield Finding(
            level="warning",
            what=f"the GPU's clock moves between {clock['min_mhz']:.0f} and {clock['max_mhz']:.0f} MHz",
            why="times vary from run to run, and short measurements are too slow",
            fix=FIXED_GPU_CLOCK,
        )


def edgetpu_build(snapshot: Snapshot) -> Iterator[Finding]:
    """Check that libedgetpu was built for the interpreter; it crashes in others."""
    build = snapshot.edgetpu_package
    if build is None:
        return
    name, version = interpreter(snapshot)
    built_for = re.search(r"tf(\d+\.\d+)", build)
    if name is None or version is None or built_for:
        yield Finding(
            level="ok", what=f"libedgetpu {build}" + (f", built for TFLite {built_for.group(1)}" if built_for else "")
        )
    elif is_newer_than_googles(name, version):
        yield Finding(
            level="error",
            what=f"libedgetpu {build} is Google's build for TFLite 2.5, and {name} {version} is newer",
            why="the interpreter crashes as soon as it uses the library",
            fix=NEWER_LIBEDGETPU,
        )
    else:
        yield Finding(level="ok", what=f"libedgetpu {build}, which fits {name} {version}")


def edgetpu_runtime(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the Edge TPU runtime against the newest one that a compiled model may require; see `edge inspect`."""
    version = snapshot.edgetpu_runtime
    if version is not None and version < _NEWEST_EDGETPU_RUNTIME:
        yield Finding(
            level="warning",
            what=f"libedgetpu has the Edge TPU runtime {version}",
            why=f"models of the last compiler (16.0) require {_NEWEST_EDGETPU_RUNTIME} and do not load with it; "
            "`edge inspect MODEL_edgetpu.tflite` shows what a model requires",
            fix="sudo apt-get install libedgetpu1-std, or compile with "
            f"edgetpu_compiler --min_runtime_version {version}",
        )
    elif version is not None:
        yield Finding(
            level="ok", what=f"libedgetpu has the Edge TPU runtime {version}, which runs every compiled model"
        )


CHECKS: tuple[Check, ...] = (emulated, power_mode, gpu_clock, edgetpu_build, edgetpu_runtime)
