"""Read the small files of /proc and /sys; what is missing or not readable is None. Find the cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_PROGRAM_SECONDS = 5.0
_PROGRAM_FOLDERS = ("usr/bin", "bin", "usr/sbin", "opt/vc/bin")


def read_text(path: Path) -> str | None:
    """Return the file's text without NUL bytes (which terminate device tree strings) and surrounding whitespace."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError:  # missing, not permitted, or a sensor that does not respond right now
        return None
    return text.replace("\0", "").strip()


def read_int(path: Path) -> int | None:
    """Return the integer in the file."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None


def entries(folder: Path, pattern: str) -> list[Path]:
    """Return the folder's entries that match the pattern, sorted; empty if the folder does not exist."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def program_output(root: Path, name: str, *arguments: str) -> str | None:
    """Run a program and return its output; None if `root` lacks it, it fails, or it takes over 5 seconds."""
    program = _find_program(root, name)
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROGRAM_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", errors="replace").strip()


def _find_program(root: Path, name: str) -> str | None:
    if root == Path("/"):
        return shutil.which(name)
    places = (root / folder / name for folder in _PROGRAM_FOLDERS)
    return next((str(place) for place in places if place.is_file()), None)


def cache_folder() -> Path:
    """Return EDGE_CACHE if set, else `edge` in the platform's user cache folder. It may not exist yet."""
    named = os.environ.get("EDGE_CACHE")
    if named:
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edge"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "edge" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edge"
