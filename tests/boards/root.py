"""The board's files, created once: Debian in one folder, aarch64 wheels in another, this machine's tools in a third.

Kept below the cache folder, under a name made of the recipe: a changed recipe makes another one.
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtimes.host.files import cache_folder
from tests.boards import debian
from tests.boards.debian import Apt, CannotStand

USER, UID = "pi", 1000
HOME = f"/home/{USER}"
PACKAGES = (
    *("bash", "coreutils", "dash", "findutils", "grep", "gzip", "procps", "sed", "tar", "usr-is-merged"),
    *("python3", "python3-pip", "python3-venv", "libgomp1", "libstdc++6", "openssh-sftp-server"),
)
# qemu 10 makes up the /proc/cpuinfo of the processor that it plays; Debian 12's own, 7.2, shows this machine's.
HERE = (f"qemu-user:amd64/{debian.RELEASE}-backports", "openssh-server:amd64", "libwrap0:amd64")
ENGINES = ("numpy", "ai-edge-litert", "onnxruntime", "openvino")
TOOLS = ("pytest==8.3.*",)  # the release that Python 3.8 still has
# pip takes a tag only if it is named: with 2_17 alone it quietly brings releases of years ago.
_GLIBC = (17, 24, 26, 27, 28, 31, 34, 35, 36)
_PYTHON = "3.11"
_PACKAGES_FOLDER = f"usr/local/lib/python{_PYTHON}/dist-packages"
_CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


@dataclass(frozen=True)
class Root:
    """The finished files, which are not changed any more."""

    folder: Path

    @property
    def system(self) -> Path:
        """Debian for aarch64."""
        return self.folder / "system"

    @property
    def engines(self) -> Path:
        """The folder that is added if the board has engines: wheels from PyPI, and pytest."""
        return self.folder / "engines"

    @property
    def qemu(self) -> Path:
        """The emulator, a static program of this machine."""
        return self.folder / "here" / "usr/bin/qemu-aarch64"

    @property
    def sshd(self) -> Path:
        """This machine's own sshd, else Debian's."""
        found = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin")
        return Path(found) if found else self.folder / "here" / "usr/sbin/sshd"

    @property
    def libraries(self) -> str:
        """For LD_LIBRARY_PATH of Debian's sshd."""
        return ":".join(str(path) for path in self.folder.glob("here/usr/lib/*-linux-gnu"))


def get_root() -> Root:
    """Return the files of this recipe, created if needed. Raises CannotStand if that is impossible."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise CannotStand(f"the board is emulated on x86-64 Linux; this is {sys.platform} {platform.machine()}")
    boards = cache_folder() / "boards"
    boards.mkdir(parents=True, exist_ok=True)
    finished = boards / _recipe()
    with _alone(boards / f"{finished.name}.lock"):
        if not finished.exists():
            _make(boards / f"{finished.name}.new", finished)
    return Root(finished)


def _recipe() -> str:
    texts = [Path(__file__), Path(debian.__file__), _CONSTRAINTS]
    return hashlib.sha256(b"".join(path.read_bytes() for path in texts)).hexdigest()[:16]


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # a second maker waits, and finds the first one's work
        yield


def _make(new: Path, finished: Path) -> None:
    started = time.monotonic()
    print("making the emulated board (once) ...", file=sys.stderr)
    if new.exists():
        shutil.rmtree(new)  # of a maker that was killed
    try:
        apt = Apt(new / "apt")
        debian.unpack(apt.closure(PACKAGES), new / "system")
        debian.unpack(apt.alone(HERE), new / "unpacked")
        _keep_tools(new / "unpacked", new / "here")
        _settle(new / "system")
        _install(new / "engines" / _PACKAGES_FOLDER)
        _compile(new)
        for scraps in ("apt", "unpacked"):
            shutil.rmtree(new / scraps)
        new.rename(finished)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    print(f"made in {time.monotonic() - started:.0f} s: {finished}", file=sys.stderr)


def _keep_tools(unpacked: Path, here: Path) -> None:
    """Of qemu's 200 MB one program is needed."""
    wanted = [unpacked / "usr/bin/qemu-aarch64", unpacked / "usr/sbin/sshd", *unpacked.glob("usr/lib/*/libwrap.so*")]
    for path in wanted:
        target = here / path.relative_to(unpacked)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)


def _settle(system: Path) -> None:
    """Do what the packages' scripts would do."""
    etc = system / "etc"
    (etc / "passwd").write_text(
        f"root:x:0:0:root:/root:/bin/bash\n{USER}:x:{UID}:{UID}::{HOME}:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n"
    )
    (etc / "group").write_text(f"root:x:0:\n{USER}:x:{UID}:\n")
    (etc / "hostname").write_text("board\n")
    (etc / "hosts").write_text("127.0.0.1 localhost board\n")
    (system / "usr/bin/sh").unlink(missing_ok=True)
    (system / "usr/bin/sh").symlink_to("dash")
    for name in ("proc", "dev", "sys", "tmp", "run", HOME[1:]):
        (system / name).mkdir(parents=True, exist_ok=True)
    (system / "tmp").chmod(0o777)


def _install(folder: Path) -> None:
    """The wheels that a board gets from PyPI, in the releases that were tested; picked by tags, not by this machine."""
    tags = [f"--platform=manylinux_2_{minor}_aarch64" for minor in _GLIBC] + ["--platform=manylinux2014_aarch64"]
    picked = [f"--python-version={_PYTHON}", "--implementation=cp", "--only-binary=:all:", *tags]
    for wanted in ([*ENGINES, "--constraint", str(_CONSTRAINTS)], TOOLS):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
        done = subprocess.run(
            [*command, "--target", folder, *picked, *wanted], capture_output=True, text=True, check=False
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise CannotStand(f"pip brings no wheels for aarch64: {(errors or ['no reason given'])[-1]}")


def _compile(new: Path) -> None:
    """Bytecode now, by a Python of this machine: under emulation `import numpy` would compile for seconds each time."""
    python = shutil.which(f"python{_PYTHON}")
    if sys.version_info[:2] == tuple(int(part) for part in _PYTHON.split(".")):
        python = sys.executable
    if python is None or subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
        return  # slower, and just as right
    for layer, folder in (("system", f"usr/lib/python{_PYTHON}"), ("system", "usr/lib/python3"), ("engines", "usr")):
        command = [python, "-m", "compileall", "-q", "-s", new / layer, new / layer / folder]
        subprocess.run(command, capture_output=True, check=False)  # files that only older Pythons read do not compile
