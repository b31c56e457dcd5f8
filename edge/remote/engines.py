"""The packages that bring an engine to a board, and how to fetch them here for a board that has no network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from edge.remote.survey import Python, Survey
from runtimes.errors import HostError, RefusedError

# https://github.com/google-coral/edgetpu/issues/812
NEWER_LIBEDGETPU = (
    "install a build for a newer TFLite (libedgetpu1-std 16.0tf2.17 or later, github.com/feranick/libedgetpu), or "
    "Google's pycoral with tflite-runtime 2.5.0.post1 on Python 3.9"
)
# Engine → packages. An empty list: the board's own system brings it, in the one build that fits its hardware.
_PACKAGES: dict[str, tuple[str, ...]] = {
    "null": ("numpy",),
    "litert": ("ai-edge-litert", "numpy"),
    "edgetpu": ("ai-edge-litert", "numpy"),  # beside libedgetpu, which the board's system brings
    "onnxruntime": ("onnxruntime", "numpy"),
    "openvino": ("openvino", "numpy"),
    "tensorflow": ("tensorflow", "numpy"),
    "keras": ("keras", "tensorflow", "numpy"),
    "torch": ("torch", "numpy"),
    "tensorrt": (),
}
# Engine → the modules that it is, any one of which will do; else the module is called like the engine.
_MODULES: dict[str, tuple[str, ...]] = {
    "litert": ("ai_edge_litert", "tflite_runtime"),
    "edgetpu": ("pycoral", "ai_edge_litert", "tflite_runtime"),
    "null": ("numpy",),
}
_OLD_TFLITE = ("tflite-runtime", "numpy<2")  # for 32-bit ARM, and for Python 3.8; built against numpy 1
_GOOGLES_TFLITE = ("tflite-runtime<2.12", "numpy<2")
GOOGLES_NEWEST_PYTHON = (3, 9)  # of the wheels of tflite-runtime below 2.12
_OLDEST_GLIBC, _FETCH_S = 17, 1800.0


def packages(engine: str, python: Python, libedgetpu: str | None = None) -> tuple[str, ...]:
    """What pip is to install for an engine; RefusedError where no wheel of it runs on this board.

    `libedgetpu` is the version of that library's package there: the interpreter has to fit it.
    """
    if engine not in _PACKAGES:
        raise RefusedError(f"the engine '{engine}' cannot be deployed", f"engines for boards: {', '.join(_PACKAGES)}")
    if engine == "edgetpu" and is_googles(libedgetpu):
        if python.version[:2] > GOOGLES_NEWEST_PYTHON:
            raise _misfit(libedgetpu, "no TFLite for Python {}.{}".format(*python.version))
        return _GOOGLES_TFLITE
    if engine in ("litert", "edgetpu") and (python.bits == 32 or python.version < (3, 9)):
        return _OLD_TFLITE
    if python.bits == 64 or engine in ("tensorrt", "null"):
        return _PACKAGES[engine]
    raise RefusedError(
        f"there is no {engine} for a 32-bit system", "convert to tflite, or install the board's 64-bit image"
    )


def check_edgetpu(python: Python, libedgetpu: str | None) -> None:
    """RefusedError where the board's own interpreter crashes as soon as it uses the board's libedgetpu."""
    if is_googles(libedgetpu) and "pycoral" not in python.modules and "ai_edge_litert" in python.modules:
        raise _misfit(libedgetpu, "ai-edge-litert, which is installed there, crashes with it: nothing newer than 2.11")


def is_googles(libedgetpu: str | None) -> bool:
    """Whether a version is of Google's build, which fits TFLite up to 2.11; other builds name theirs: 16.0tf2.17."""
    return libedgetpu is not None and "tf" not in libedgetpu


def _misfit(libedgetpu: str | None, what: str) -> RefusedError:
    return RefusedError(f"libedgetpu {libedgetpu} is Google's build, and {what} fits it", NEWER_LIBEDGETPU)


def users_openvino(found: Survey, host: str) -> list[str]:
    """The words before a command that put Intel's archive in its reach: only such a one drives a Movidius stick.

    Its script is bash's, and puts its folders before those of PYTHONPATH.
    """
    if found.openvino is None:
        raise RefusedError(
            f"{host} has no OpenVINO that drives a Movidius stick, and PyPI has none",
            "unpack Intel's archive of OpenVINO 2022.3.1 or 2022.1 for its system to /opt/intel/openvino_2022 there, "
            "with the udev rule of its install_dependencies folder; the stick can be measured at an x86-64 host too",
        )
    version = "{}.{}".format(*found.python.version[:2]) if found.python else ""
    # Intel's script takes the words of whoever sources it away, so it gets some of its own.
    return ["bash", "-c", '. "$0" -pyver "$1" >/dev/null 2>&1; shift; exec "$@"', found.openvino, version]


def is_there(engine: str, python: Python) -> bool:
    """Whether the board's own system has it: NVIDIA's builds, Google's pycoral, an archive of Intel's, or any other."""
    return "numpy" in python.modules and any(name in python.modules for name in _MODULES.get(engine, (engine,)))


def folder_of(engine: str, python: Python, libedgetpu: str | None) -> str:
    """Where an engine lies below our folder; one that fits another build of libedgetpu lies elsewhere."""
    kind = "edgetpu-googles" if engine == "edgetpu" and is_googles(libedgetpu) else engine
    return f"engines/{kind}{python.tag}"


def brought(have: Iterable[str], python: Python) -> list[str]:
    """Of the folders that we have on a board, those of engines for this Python; another one cannot import them."""
    return [name for name in sorted(have) if name.startswith("engines/") and name.endswith(python.tag)]


def platforms(machine: str, python: Python) -> list[str]:
    """The platform tags of wheels that run there, the newest first.

    All of them, one by one: pip does not know that a system which runs manylinux_2_28 runs manylinux_2_17 too.
    """
    if python.glibc is None:
        raise RefusedError("this board's C library is not glibc", "engines are built for glibc: use Debian or Ubuntu")
    arch = {"armv8l": "armv7l", "aarch64": "aarch64" if python.bits == 64 else "armv7l"}.get(machine, machine)
    minor = python.glibc[1]
    tags = [f"manylinux_2_{number}_{arch}" for number in range(minor, _OLDEST_GLIBC - 1, -1)]
    return [*tags, f"manylinux2014_{arch}", f"linux_{arch}"]


def _without_numpy(wanted: tuple[str, ...], python: Python) -> tuple[str, ...]:
    """The same packages, for a board whose own numpy has to do: the index has none for 32-bit ARM."""
    if "numpy" not in python.modules:
        raise RefusedError(
            "there is no numpy for 32-bit ARM to be fetched from here",
            "on the board: sudo apt-get install python3-numpy; or leave --offline out, as Raspberry Pi OS has an index",
        )
    return ("--no-deps", *(name for name in wanted if not name.startswith("numpy")))


def fetch(wanted: tuple[str, ...], machine: str, python: Python, folder: Path) -> None:
    """Install packages into `folder`, as that board's Python needs them, with this machine's pip and index."""
    if python.bits == 32:
        wanted = _without_numpy(wanted, python)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", ".".join(map(str, python.version[:2]))]
    command += [word for tag in platforms(machine, python) for word in ("--platform", tag)]
    command += ["--disable-pip-version-check", "--no-input", "--no-compile", *wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_S, check=False)
    except subprocess.TimeoutExpired:
        raise HostError(f"pip did not fetch {' '.join(wanted)} within {_FETCH_S:g} s", "try again") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()[-300:]]
        release = ".".join(map(str, python.version[:2]))
        error = HostError(
            f"{' '.join(wanted)} cannot be fetched for Python {release} on {machine}: {lines[-1][:300]}",
            "check this machine's network, and that the package has wheels for that Python and platform",
        )
        error.add_note(done.stderr)
        raise error
