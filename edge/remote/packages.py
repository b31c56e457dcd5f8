"""The packages that install an engine on a board, and how to download them here for a board without network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from edge.remote.probe import Probe, Python, board_engines, modules_of
from runtimes import registry
from runtimes.errors import EngineMissingError, HostError, RefusedError
from runtimes.standalone import receive

# https://github.com/google-coral/edgetpu/issues/812
NEWER_LIBEDGETPU = (
    "install a build for a newer TFLite (libedgetpu1-std 16.0tf2.17 or later, github.com/feranick/libedgetpu), or "
    "Google's pycoral with tflite-runtime 2.5.0.post1 on Python 3.9"
)
_OLD_TFLITE = ("tflite-runtime", "numpy<2")  # for 32-bit ARM, and for Python 3.8; built against numpy 1
NEWEST_32_BIT = (3, 11)  # the last Python with wheels of tflite-runtime (2.14.0) for 32-bit ARM; 3.13 has none
# TensorRT's Python up to 8.6 reads numpy.bool, which numpy 1.24 removed: github.com/NVIDIA/TensorRT, issue 2567.
_NUMPY_OF_TENSORRT, _NEWEST_OLD_NUMPY = ("numpy<1.24",), (3, 11)
_GOOGLES_TFLITE = ("tflite-runtime<2.12", "numpy<2")
GOOGLES_NEWEST_PYTHON = (3, 9)  # of the wheels of tflite-runtime below 2.12
# Termux builds this engine itself: github.com/termux/termux-packages, pull request 21371.
_IN_TERMUX = "in Termux: pkg install python-numpy python-onnxruntime; and convert the model with --to onnx"
_OLDEST_GLIBC, _FETCH_S = 17, 1800.0


def packages(engine: str, python: Python, libedgetpu: str | None = None) -> tuple[str, ...]:
    """Return the packages pip installs for an engine. Raises RefusedError if it has no wheel for this board.

    `libedgetpu` is the version of that package on the board; the interpreter must be compatible with it. Raises
    EngineMissingError for an engine that only the board's own system can have, and lacks.
    """
    able = board_engines()
    if engine not in able:
        raise RefusedError(f"the engine '{engine}' cannot be deployed", f"engines for boards: {', '.join(able)}")
    if python.is_android:
        raise RefusedError(f"PyPI has no {engine} for Android", _IN_TERMUX)
    if engine == "edgetpu" and is_googles(libedgetpu):
        if python.version[:2] > GOOGLES_NEWEST_PYTHON:
            raise _incompatible(libedgetpu, "no TFLite for Python {}.{} works with it".format(*python.version))
        return _GOOGLES_TFLITE
    if engine == "tensorrt":
        return _beside_tensorrt(python)
    if engine in ("litert", "edgetpu") and (python.bits == 32 or python.version < (3, 9)):
        if python.version[:2] > NEWEST_32_BIT:
            what = "there is no {} for Python {}.{} on a 32-bit system".format(engine, *python.version)
            newest = "{}.{}".format(*NEWEST_32_BIT)
            raise RefusedError(what, f"install the board's 64-bit image, or a Python up to {newest} as well")
        return _OLD_TFLITE
    if python.bits == 64 or engine == "null":
        return registry.engine(engine).board_packages
    raise RefusedError(
        f"there is no {engine} for a 32-bit system", "convert to tflite, or install the board's 64-bit image"
    )


def _beside_tensorrt(python: Python) -> tuple[str, ...]:
    if "tensorrt" not in python.modules:
        raise EngineMissingError(
            "the board's Python {}.{}.{} has no tensorrt".format(*python.version),
            "on a Jetson: sudo apt-get install python3-libnvinfer, from NVIDIA's packages for this board",
        )
    return _NUMPY_OF_TENSORRT if python.version[:2] < _NEWEST_OLD_NUMPY else ("numpy",)


def check_edgetpu(python: Python, libedgetpu: str | None) -> None:
    """Raise RefusedError if the board's own interpreter crashes as soon as it uses the board's libedgetpu."""
    if is_googles(libedgetpu) and "pycoral" not in python.modules and "ai_edge_litert" in python.modules:
        raise _incompatible(
            libedgetpu, "the installed ai-edge-litert crashes with it: nothing newer than TFLite 2.11 works with it"
        )


def is_googles(libedgetpu: str | None) -> bool:
    """Return whether a version is Google's build, for TFLite up to 2.11. Other builds name their TFLite: 16.0tf2.17."""
    return libedgetpu is not None and "tf" not in libedgetpu


def _incompatible(libedgetpu: str | None, why: str) -> RefusedError:
    return RefusedError(f"libedgetpu {libedgetpu} is Google's build, and {why}", NEWER_LIBEDGETPU)


def users_openvino(found: Probe, host: str) -> list[str]:
    """Return a command prefix that sets up Intel's OpenVINO archive, the only one that supports a Movidius stick.

    Its script needs bash, and puts its folders before those of PYTHONPATH. Raises RefusedError without an archive.
    """
    if found.openvino is None:
        raise RefusedError(
            f"{host} has no OpenVINO that supports a Movidius stick, and PyPI has none",
            "unpack Intel's archive of OpenVINO 2022.3.1 or 2022.1 for its system to /opt/intel/openvino_2022 there, "
            "with the udev rule of its install_dependencies folder; the stick can be measured at an x86-64 host too",
        )
    version = "{}.{}".format(*found.python.version[:2]) if found.python else ""
    # Intel's script consumes the arguments of the shell that sources it, so it gets its own.
    return ["bash", "-c", '. "$0" -pyver "$1" >/dev/null 2>&1; shift; exec "$@"', found.openvino, version]


def has_engine(engine: str, python: Python) -> bool:
    """Whether the board's own system has the engine: NVIDIA's builds, Google's pycoral, Intel's archive, or others."""
    if engine not in board_engines() or "numpy" not in python.modules:
        return False
    needed = modules_of(engine)
    return not needed or any(name in python.modules for name in needed)


def folder_of(engine: str, python: Python, libedgetpu: str | None) -> str:
    """Return the folder of an engine below ROOT; builds for another libedgetpu have a separate one."""
    kind = "edgetpu-googles" if engine == "edgetpu" and is_googles(libedgetpu) else engine
    return f"engines/{kind}{python.tag}"


def engine_folders(have: Iterable[str], python: Python) -> list[str]:
    """Select the folders of engines for this Python from those on the board; another Python cannot import them."""
    return [name for name in sorted(have) if name.startswith("engines/") and name.endswith(python.tag)]


def platforms(machine: str, python: Python) -> list[str]:
    """List the platform tags of wheels that run on the board, the newest first.

    All are listed, because pip does not know that a system that runs manylinux_2_28 also runs manylinux_2_17.
    """
    if python.glibc is None:
        raise RefusedError("this board's C library is not glibc", "engines are built for glibc: use Debian or Ubuntu")
    arch = {"armv8l": "armv7l", "aarch64": "aarch64" if python.bits == 64 else "armv7l"}.get(machine, machine)
    minor = python.glibc[1]
    tags = [f"manylinux_2_{number}_{arch}" for number in range(minor, _OLDEST_GLIBC - 1, -1)]
    return [*tags, f"manylinux2014_{arch}", f"linux_{arch}"]


def _without_numpy(wanted: tuple[str, ...], python: Python) -> tuple[str, ...]:
    """Leave numpy out, for boards that use their own: PyPI has no wheel for 32-bit ARM."""
    if "numpy" not in python.modules:
        raise RefusedError(
            "numpy for 32-bit ARM cannot be downloaded on this machine",
            "on the board: sudo apt-get install python3-numpy; or leave --offline out: Raspberry Pi OS has an index",
        )
    return ("--no-deps", *(name for name in wanted if not name.startswith("numpy")))


def fetch(wanted: tuple[str, ...], machine: str, python: Python, folder: Path) -> None:
    """Install packages for the board's Python into `folder`, with this machine's pip and index.

    Raises HostError if pip fails.
    """
    if python.bits == 32:
        wanted = _without_numpy(wanted, python)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", ".".join(map(str, python.version[:2]))]
    command += [word for tag in platforms(machine, python) for word in ("--platform", tag)]
    command += ["--disable-pip-version-check", "--no-input", "--no-compile", *wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_S, check=False)
    except subprocess.TimeoutExpired:
        raise HostError(f"pip did not download {' '.join(wanted)} within {_FETCH_S:g} s", "try again") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()[-300:]]
        release = ".".join(map(str, python.version[:2]))
        what = f"{' '.join(wanted)} cannot be fetched for Python {release} on {machine}: {lines[-1][:300]}"
        hint = "check this machine's network, and its index of packages: pip config list"
        if receive.is_unpublished(done.stderr.splitlines()):
            hint = f"no build is published for that Python and {machine}: use another Python on the board, or its image"
        error = HostError(what, hint)
        error.add_note(done.stderr)
        raise error
