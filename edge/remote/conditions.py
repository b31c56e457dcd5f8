"""Read a board's conditions by shell script, for boards whose Python is too old for `runtimes.host`.

The script prints the system files that `runtimes.host.conditions` reads; here they become a folder in place of `/`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runtimes import host
from runtimes.host.schema import Conditions
from runtimes.host.system import is_emulated, memory_facts
from runtimes.host.thermal import power_mode_of

_FILE, _MODE = "edge: file ", "edge: nvpmodel"
_CPU = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq"
_FILES = (
    *("/proc/loadavg", "/proc/meminfo", "/proc/sys/kernel/arch", "/var/lib/nvpmodel/status"),
    *(f"{_CPU}/{name}" for name in ("scaling_governor", "scaling_cur_freq", "cpuinfo_max_freq")),
    *(f"/sys/class/devfreq/*/{name}_freq" for name in ("min", "max", "cur")),
    *("/sys/class/thermal/thermal_zone*/type", "/sys/class/thermal/thermal_zone*/temp"),
)


@dataclass(frozen=True, kw_only=True)
class BoardState:
    """A board's conditions, its memory, and whether its processor is emulated."""

    conditions: Conditions
    memory_bytes: int | None
    emulated: bool


def script(root: str = "") -> str:
    """Return the script; `root` is a folder in place of `/`."""
    return f"""
for file in {" ".join(root + pattern for pattern in _FILES)}; do
  [ -f "$file" ] && [ -r "$file" ] && echo "{_FILE}${{file#{root}}}" && cat "$file" && echo
done 2>/dev/null
echo "{_MODE}"
nvpmodel -q 2>/dev/null
true
"""


def read(output: str, machine: str) -> BoardState:
    """Parse what the script printed on a board whose `uname -m` is `machine`."""
    files, _, mode = output.partition(f"{_MODE}\n")
    with tempfile.TemporaryDirectory(prefix="edge-conditions-") as folder:
        root = Path(folder)
        for part in files.split(_FILE)[1:]:
            name, _, text = part.partition("\n")
            path = PurePosixPath(name)
            if path.is_absolute() and ".." not in path.parts:
                file = root.joinpath(*path.parts[1:])
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
        found = host.conditions(root)
        return BoardState(
            conditions={**found, "power_mode": power_mode_of(mode) or found["power_mode"]},
            memory_bytes=memory_facts(root)["total_bytes"],
            emulated=is_emulated(root, machine),
        )
