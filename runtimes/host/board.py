"""Which board this is, by its device tree; PCs have none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from runtimes.host.files import read_text


def board_facts(root: Path) -> dict[str, Any]:
    """The `board` part of `runtimes.host.facts`."""
    return {
        "model": read_text(root / "proc/device-tree/model") or read_text(root / "sys/firmware/devicetree/base/model"),
        "jetson_l4t": _jetson_release(root),
    }


def _jetson_release(root: Path) -> str | None:
    """`# R32 (release), REVISION: 7.1, GCID: ...` → `32.7.1`."""
    text = read_text(root / "etc/nv_tegra_release") or ""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{match.group(1)}.{match.group(2)}" if match else None
