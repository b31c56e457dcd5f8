"""Write results atomically: in a temporary folder next to the destination, which is renamed at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtimes.artifact import MANIFEST
from runtimes.errors import HostError, ProofError, UsageError

ARTIFACT = "artifact"  # the subfolder of the temporary folder that becomes the result


@contextmanager
def staging(out: Path, force: bool = False) -> Iterator[Path]:
    """Create a temporary folder whose subfolder `artifact` becomes `out` at the end of the block.

    After a ProofError it becomes `failed_path(out)` instead; after anything else, including Ctrl+C, it is deleted.
    Raises UsageError if `out` exists, unless `force`; with `force`, if it is not an artifact.
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
        check_place(out, force)  # another process may have created it meanwhile
        _move(work / ARTIFACT, out, work)
    except ProofError:
        if any((work / ARTIFACT).iterdir()):
            _move(work / ARTIFACT, failed_path(out), work)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def failed_path(out: Path) -> Path:
    """Return the path for a result that failed verification."""
    return out.with_name(f"{out.name}.failed")


def check_place(out: Path, force: bool) -> None:
    """Raise UsageError if writing `out` would overwrite something that must not be overwritten."""
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise UsageError(f"{out} exists", "choose another folder with --out, or replace it with --force")
    if out.is_symlink() or not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file()):
        raise UsageError(f"{out} exists and is not an artifact", "it is left alone; choose another folder with --out")


def _move(folder: Path, place: Path, work: Path) -> None:
    """Move `folder` to its place; the previous content is deleted together with `work`."""
    try:
        if place.exists():
            place.rename(work / "replaced")
        folder.rename(place)
    except OSError as error:
        raise HostError(f"{place} cannot be written: {error.strerror}", "choose another folder with --out") from None
