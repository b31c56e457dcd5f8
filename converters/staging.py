"""A result appears whole or not at all: it is made in a fresh folder beside its place, and renamed at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtimes.artifact import MANIFEST
from runtimes.errors import HostError, ProofError, UsageError

ARTIFACT = "artifact"  # the folder inside the fresh one that becomes the result


@contextmanager
def staging(out: Path, force: bool = False) -> Iterator[Path]:
    """A fresh folder whose sub-folder `artifact` becomes `out` when the block ends.

    After a ProofError it becomes `failed_place(out)` instead; after anything else, Ctrl+C included, nothing is left.
    UsageError when `out` exists, unless `force`, and with `force` when it is not an artifact.
    """
    check_place(out, force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise HostError(f"{out} cannot be written: {error.strerror}", "choose another folder with --out") from None
    try:
        (work / ARTIFACT).mkdir()
        yield work
        check_place(out, force)  # another process may have been quicker
        _move(work / ARTIFACT, out, work)
    except ProofError:
        if any((work / ARTIFACT).iterdir()):
            _move(work / ARTIFACT, failed_place(out), work)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def failed_place(out: Path) -> Path:
    """Where a result goes that does not answer as its source."""
    return out.with_name(f"{out.name}.failed")


def check_place(out: Path, force: bool) -> None:
    """UsageError when writing `out` would overwrite something that may not be overwritten."""
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise UsageError(f"{out} exists", "choose another folder with --out, or replace it with --force")
    if out.is_symlink() or not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise UsageError(f"{out} exists and is not an artifact", "it is left alone; choose another folder with --out")


def _move(folder: Path, place: Path, work: Path) -> None:
    """Put `folder` in its place; what was there before goes away with `work`."""
    try:
        if place.exists():
            place.rename(work / "replaced")
        folder.rename(place)
    except OSError as error:
        raise HostError(f"{place} cannot be written: {error.strerror}", "choose another folder with --out") from None
