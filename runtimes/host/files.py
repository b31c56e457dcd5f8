"""Reading the small files by which Linux tells about itself; what is absent, or not ours to read, is None."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_PROGRAM_SECONDS = 5.0
_PROGRAM_FOLDERS = ("usr/bin", "bin", "usr/sbin", "opt/vc/bin")


def read_text(path: Path) -> str | None:
    """The file's text without NUL bytes (device trees end strings with them) or outer blanks."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError:  # absent, not permitted, or a sensor that refuses to answer just now
        return None
    return text.replace("\0", "").strip()


def read_int(path: Path) -> int | None:
    """The whole number that the file holds."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None


def entries(folder: Path, pattern: str) -> list[Path]:
    """The folder's entries of that name pattern, sorted; none when there is no such folder."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def program_output(root: Path, name: str, *arguments: str) -> str | None:
    """What the program prints; None when `root` does not have it, or it fails or takes over 5 seconds."""
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
