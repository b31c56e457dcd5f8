"""Probe a board and our files on it in one round trip, with a script that needs only a shell."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from edge.remote.ssh import SshConnection
from runtimes import registry
from runtimes.artifact.json_fields import Fields
from runtimes.errors import HostError

ROOT = ".edgeproof"  # in the user's home folder: everything that edge installs on a board
OLDEST = (3, 8)  # what `runtimes/` needs


def board_engines() -> list[str]:
    """Return the engines that a board can have."""
    return [name for name in registry.engine_ids() if registry.engine(name).board_packages]


def modules_of(engine: str) -> list[str]:
    """Return the modules of an engine, any one of which suffices; empty for one without a library."""
    return [name.split(".")[0] for name in registry.engine(engine).requires.split("|") if name]


def _describe_python() -> str:
    """Return a program for any Python 3, by which each interpreter reports its version and its modules.

    PyPI's package `pycoral` is not Google's, which has pycoral/utils/edgetpu.py.
    """
    names = sorted({"numpy", *(module for engine in board_engines() for module in modules_of(engine))})
    return (
        "import sys,os,json,struct,importlib.util as u;"
        "p=os.path;has=lambda s,m:m!='pycoral' or any(p.exists(p.join(d,'utils','edgetpu.py')) "
        "for d in s.submodule_search_locations or ());"
        "print('python '+json.dumps({'version':list(sys.version_info[:3]),'path':sys.executable,"
        "'bits':struct.calcsize('P')*8,"
        f"'modules':[m for s,m in ((u.find_spec(m),m) for m in '{' '.join(names)}'.split()) if s and has(s,m)],"
        "'libc':'bionic' if hasattr(sys,'getandroidapilevel') else "  # Android's libc has no confstr
        "os.confstr('CS_GNU_LIBC_VERSION') if 'CS_GNU_LIBC_VERSION' in os.confstr_names else None}))"
    )


def _script() -> str:
    return f"""
echo "machine $(uname -m)"
echo "home $HOME"
for name in python3 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8; do
  path=$(command -v $name) || continue
  real=$(readlink -f "$path")
  case " $seen " in *" $real "*) continue;; esac
  seen="$seen $real"
  "$path" -I -c "{_describe_python()}" 2>/dev/null  # without user packages and the folder ~/keras: workers see neither
done
dpkg-query -W -f 'libedgetpu ${{db:Status-Status}} ${{Version}}\\n' 'libedgetpu1-*' 2>/dev/null |
  sed -n 's/ installed / /p'
for path in "$(command -v trtexec)" /usr/src/tensorrt/bin/trtexec; do
  [ -x "$path" ] && echo "trtexec $path" && break
done
for path in "$INTEL_OPENVINO_DIR" /opt/intel/openvino* "$HOME"/intel/openvino* "$HOME"/openvino*; do
  for file in "$path/setupvars.sh" "$path/bin/setupvars.sh"; do
    [ -n "$path" ] && [ -r "$file" ] && echo "openvino $file" && break 2
  done
done
for file in /proc/device-tree/model /sys/firmware/devicetree/base/model; do
  [ -r $file ] && echo "model $(tr -d '\\0' < $file)" && break
done
[ -r /etc/nv_tegra_release ] && echo "jetson $(head -n 1 /etc/nv_tegra_release)"
echo "disk $(df -Pk "$HOME" 2>/dev/null | tail -n 1)"
cd "$HOME/{ROOT}" 2>/dev/null && for path in runtimes/* engines/* artifacts/* kept/*; do
  [ -d "$path" ] && echo "have $path"
done
true
"""


@dataclass(frozen=True, kw_only=True)
class Python:
    """A Python interpreter on the board.

    version: As in (3, 11, 2).
    path: Its executable.
    bits: 32 or 64.
    modules: Those of numpy and the engines that the board's own system has for it.
    libc: As in `glibc 2.36`; `bionic` on Android; None for another C library.
    """

    version: tuple[int, int, int]
    path: str
    bits: int
    modules: frozenset[str]
    libc: str | None

    @property
    def tag(self) -> str:
        """The suffix of folders with packages for this Python: `-py311`."""
        return "-py{}{}".format(*self.version)

    @property
    def is_android(self) -> bool:
        """Whether it runs on Android, as in Termux: PyPI has no engines for it."""
        return self.libc == "bionic"

    @property
    def glibc(self) -> tuple[int, int] | None:
        """The release of glibc, which determines which wheels run there; None for another C library."""
        name, _, release = (self.libc or "").partition(" ")
        parts = release.split(".")
        return (int(parts[0]), int(parts[1])) if name == "glibc" and len(parts) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The result of the script.

    machine: As in `uname -m`.
    home: The user's home folder.
    model: The board's name in the device tree.
    jetson: The first line of /etc/nv_tegra_release.
    pythons: The interpreters, the system's own first.
    trtexec: The path of trtexec.
    free_bytes: Free space in the home folder.
    have: Our folders, such as `artifacts/1f2e…`.
    openvino: The `setupvars.sh` of an unpacked archive of Intel's OpenVINO.
    libedgetpu: The version of the installed libedgetpu package.
    """

    machine: str
    home: str
    model: str | None
    jetson: str | None
    pythons: tuple[Python, ...]
    trtexec: str | None
    free_bytes: int | None
    have: frozenset[str]
    openvino: str | None = None
    libedgetpu: str | None = None

    @property
    def python(self) -> Python | None:
        """The interpreter to use: the system's own if it is new enough, else the newest; None if all are too old."""
        able = [python for python in self.pythons if python.version >= OLDEST]
        return able[0] if able else None


def probe(line: SshConnection) -> Probe:
    """Probe the board. Raises ConnectionLostError if the connection breaks, HostError if the board has no shell."""
    status, text = line.run(_script())
    words: dict[str, list[str]] = {}
    for entry in text.splitlines():
        key, _, value = entry.partition(" ")
        words.setdefault(key, []).append(value.strip())
    if status != 0 or "machine" not in words or "home" not in words:
        raise HostError(f"no shell answers on {line.host}", "edge needs /bin/sh on the board, which every Linux has")

    def first(key: str) -> str | None:
        return next(iter(words.get(key, [])), None) or None

    return Probe(
        machine=words["machine"][0],
        home=words["home"][0],
        model=first("model"),
        jetson=first("jetson"),
        pythons=tuple(_pythons(words.get("python", []))),
        trtexec=first("trtexec"),
        free_bytes=_free(first("disk")),
        have=frozenset(words.get("have", [])),
        openvino=first("openvino"),
        libedgetpu=first("libedgetpu"),
    )


def usable_python(found: Probe, host: str) -> Python:
    """Return the board's Python for `runtimes/`. Raises HostError if it has none, with the command to install one."""
    python = found.python
    if python is not None:
        return python
    versions = ", ".join(".".join(map(str, one.version)) for one in found.pythons)
    what = f"its newest Python is {versions}" if versions else "it has no Python"
    hint = (
        "on the board: sudo apt-get install python3.8" if found.jetson else "on the board: sudo apt-get install python3"
    )
    raise HostError(f"{host} cannot run workers: {what}, and they need 3.8", hint)


def _pythons(lines: Iterable[str]) -> Iterable[Python]:
    for line in lines:
        answer = Fields(
            json.loads(line), "the answer of the board's Python", hint="check its Python: python3 -c 1", error=HostError
        )
        major, minor, patch = answer.integers("version")
        modules = frozenset(answer.texts("modules"))
        libc = answer.optional_text("libc")
        yield Python(
            version=(major, minor, patch),
            path=answer.text("path"),
            bits=answer.integer("bits"),
            modules=modules,
            libc=libc,
        )


def _free(line: str | None) -> int | None:
    """Parse the last line of `df -Pk`: the fourth column is the number of free 1024-byte blocks."""
    columns = (line or "").split()
    return int(columns[3]) * 1024 if len(columns) > 3 and columns[3].isdigit() else None
