"""Check what `edge deploy` and `--on` need of a board, so that they do not fail halfway."""

from __future__ import annotations

from collections.abc import Iterator

from edge.doctor.snapshot import Check, Finding, Snapshot
from edge.machine import accelerators
from edge.remote.packages import NEWEST_32_BIT

_NEEDED_BYTES = 300 * 2**20  # LiteRT or ONNX Runtime with numpy, the artifact, and pip's temporary copy
_OFFLINE = "or use --offline, which brings the packages from the other machine"


def home(snapshot: Snapshot) -> Iterator[Finding]:
    """Check that files can be written where everything is installed."""
    if snapshot.home_writable:
        return
    yield Finding(
        level="error",
        what=f"nothing can be written in the home folder {snapshot.home}",
        why="edge installs everything in ~/.edgeproof; the disk may be mounted read-only, or the folder may belong to "
        "root",
        fix=f"sudo mount -o remount,rw / or sudo chown $USER {snapshot.home}; or link ~/.edgeproof to another disk",
    )


def space(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the free space for an engine."""
    free = snapshot.free_bytes(snapshot.cache)
    if free is not None and free >= _NEEDED_BYTES:
        yield Finding(level="ok", what=f"{free / 2**30:.1f} GiB free in the home folder")
    elif free is not None:
        yield Finding(
            level="error",
            what=f"only {free // 2**20} MiB are free in the home folder",
            why=f"an engine with numpy and the model needs about {_NEEDED_BYTES // 2**20} MiB",
            fix="make room, or link ~/.edgeproof to another disk",
        )


def pip(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for pip, which installs the engines."""
    if not snapshot.python.has_pip:
        yield Finding(
            level="error",
            what="the board's Python has no pip",
            why="edge deploy installs engines with it",
            fix=f"sudo apt-get install python3-pip, {_OFFLINE}",
        )


def wheels(snapshot: Snapshot) -> Iterator[Finding]:
    """Check that engines are published for this Python: they are for glibc, and hardly any for 32 bits."""
    python = snapshot.python
    version = "{}.{}".format(*python.version)
    if python.glibc is None:
        yield Finding(
            level="error",
            what="the C library is not glibc",
            why="all engines are built for glibc",
            fix="use an image of Debian, Ubuntu or Raspberry Pi OS",
        )
    elif python.bits == 32:
        newest = "{}.{}".format(*NEWEST_32_BIT)
        is_new = python.version[:2] > NEWEST_32_BIT
        yield Finding(
            level="error" if is_new else "warning",
            what=f"this Python {version} is a 32-bit program",
            why=f"of the engines only TFLite is published for 32 bits, up to Python {newest}",
            fix="install the board's 64-bit image" + (f", or Python {newest} next to this one" if is_new else ""),
        )


def jetson(snapshot: Snapshot) -> Iterator[Finding]:
    """Check a Jetson for TensorRT, the only engine that uses its GPU, and for the numpy that TensorRT needs."""
    if not accelerators.is_attached(accelerators.JETSON, snapshot.machine):
        return
    modules = snapshot.python.modules
    version = "{}.{}.{}".format(*snapshot.python.version)
    if "tensorrt" not in modules:
        yield Finding(
            level="error",
            what=f"this Jetson's Python {version} has no tensorrt",
            why="models built for its GPU do not run there; trtexec, if it is installed, can only time them",
            fix="sudo apt-get install python3-libnvinfer tensorrt, from NVIDIA's packages for this JetPack",
        )
    elif "numpy" not in modules:
        yield Finding(
            level="warning",
            what=f"this Jetson's Python {version} has tensorrt, but no numpy",
            why="edge deploy installs one in ~/.edgeproof, which takes pip and a network",
            fix=f"sudo apt-get install python3-numpy, {_OFFLINE}",
        )


CHECKS: tuple[Check, ...] = (home, space, pip, wheels, jetson)
