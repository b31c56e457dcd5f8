"""What boards have and PCs have not: power modes, clocks that can be fixed, and libraries built for one another."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edge.doctor.finding import Check, Finding
from edge.doctor.interpreters import interpreter, is_newer_than_googles
from edge.doctor.situation import Situation
from edge.remote.engines import NEWER_LIBEDGETPU

_NEWEST_EDGETPU_RUNTIME = 14  # api/runtime_version.h of libedgetpu; of 2021, and the last


def emulated(situation: Situation) -> Iterator[Finding]:
    """qemu's user mode runs another processor's programs."""
    if situation.machine["os"].get("emulated"):
        yield Finding(
            "note",
            "this processor is emulated",
            "answers are as on the hardware, times are not",
            "measure on the hardware",
        )


def power_mode(situation: Situation) -> Iterator[Finding]:
    """A Jetson leaves the factory in a mode that saves power by switching cores off."""
    mode = situation.conditions.get("power_mode")
    if mode is None:
        return
    name = mode["name"] or f"number {mode['id']}"
    if mode["id"] == 0 or str(mode["name"]).startswith("MAXN"):
        yield Finding("ok", f"the power mode is {name}")
        return
    yield Finding(
        "warning",
        f"the power mode is {name}",
        "cores are switched off and clocks are capped in it",
        "sudo nvpmodel -m 0 (Orin Nano with JetPack 6.2: -m 2), then sudo jetson_clocks",
    )


def gpu_clock(situation: Situation) -> Iterator[Finding]:
    """A GPU whose clock follows the load is slow for the first runs, and scatters."""
    clock = situation.conditions.get("gpu_clock")
    if clock is not None and not clock["fixed"]:
        yield Finding(
            "warning",
            f"the GPU's clock moves between {clock['min_mhz']:.0f} and {clock['max_mhz']:.0f} MHz",
            "measurements scatter, and short ones are too slow",
            "sudo jetson_clocks",
        )


def edgetpu_build(situation: Situation) -> Iterator[Finding]:
    """libedgetpu works inside the interpreter that it was built for, and crashes inside others."""
    build = situation.edgetpu_package
    if build is None:
        return
    name, version = interpreter(situation)
    made_for = re.search(r"tf(\d+\.\d+)", build)
    if name is None or version is None or made_for:
        yield Finding("ok", f"libedgetpu {build}" + (f", built for TFLite {made_for.group(1)}" if made_for else ""))
    elif is_newer_than_googles(name, version):
        yield Finding(
            "error",
            f"libedgetpu {build} is Google's build for TFLite 2.5, and {name} {version} is newer",
            "the interpreter crashes as soon as it uses the library",
            NEWER_LIBEDGETPU,
        )
    else:
        yield Finding("ok", f"libedgetpu {build}, which fits {name} {version}")


def edgetpu_runtime(situation: Situation) -> Iterator[Finding]:
    """A compiled model asks for a runtime at least as new as its compiler was told: see `edge inspect`."""
    there = situation.edgetpu_runtime
    if there is not None and there < _NEWEST_EDGETPU_RUNTIME:
        yield Finding(
            "warning",
            f"libedgetpu here has the Edge TPU runtime {there}",
            f"models of the last compiler (16.0) ask for {_NEWEST_EDGETPU_RUNTIME} and do not load with it; "
            "`edge inspect MODEL_edgetpu.tflite` tells what a model asks for",
            f"sudo apt-get install libedgetpu1-std, or compile with edgetpu_compiler --min_runtime_version {there}",
        )
    elif there is not None:
        yield Finding("ok", f"libedgetpu here has the Edge TPU runtime {there}, which runs every compiled model")


CHECKS: tuple[Check, ...] = (emulated, power_mode, gpu_clock, edgetpu_build, edgetpu_runtime)
