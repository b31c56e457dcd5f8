"""Fetch the pinned npm packages of the engines, once, by the user's own `npm pack`, into the cache folder."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from converters.browser.engines import EngineFile, NpmPackage
from runtimes.errors import EngineMissingError, HostError
from runtimes.host.files import cache_folder

_TIMEOUT_S = 600.0
_MAX_FILE_BYTES = 64 * 2**20
_CHUNK = 2**20


def folder() -> Path:
    """Return the folder of the archives. An archive that is copied here from another machine is used too."""
    return cache_folder() / "npm"


def read_file(file: EngineFile) -> bytes:
    """Return a file of its package, which is fetched if it is not there yet. Errors as in `archive_of`."""
    archive = archive_of(file.package)
    with tarfile.open(archive) as packed:  # its digest was checked: the content is the pinned one
        member = packed.getmember(f"package/{file.path}")
        stream = packed.extractfile(member)
        if stream is None or member.size > _MAX_FILE_BYTES:
            raise HostError(f"{archive} has no plain file {file.path}", "delete it, so that it is fetched again")
        return stream.read()


def archive_of(package: NpmPackage) -> Path:
    """Return the archive of a package, fetched if necessary, with its digest checked.

    Raises EngineMissingError if it has to be fetched and npm is not installed; HostError if npm cannot fetch it, the
    archive is not the pinned one, or the cache folder cannot be written.
    """
    place = folder() / package.archive
    if not place.is_file():
        _fetch(package, place)
    if _digest(place) != package.sha512:
        raise HostError(
            f"{place} is not {package.name} {package.version}: its sha512 differs from the pinned one",
            "delete it, so that it is fetched again",
        )
    return place


def _fetch(package: NpmPackage, place: Path) -> None:
    program = shutil.which("npm")
    named = f"{package.name}@{package.version}"
    if program is None:
        what = f"the browser's engine is the npm package {named}, and npm is not installed"
        raise EngineMissingError(what, f"install npm (apt-get install npm), or {_by_hand(package, place)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as work:
            done = _npm_pack(program, named, Path(work))
            found = Path(work) / package.archive
            if done.returncode or not found.is_file():
                raise HostError(f"npm could not fetch {named}: {_reason(done)}", _by_hand(package, place))
            found.replace(place)
    except OSError as error:
        what = f"{place.parent} cannot be written: {error.strerror}"
        raise HostError(what, "free some space there, or set EDGE_CACHE to another folder") from None


def _npm_pack(program: str, named: str, work: Path) -> subprocess.CompletedProcess[str]:
    command = [program, "pack", named, "--ignore-scripts", "--loglevel=error"]
    try:
        return subprocess.run(
            command, cwd=work, capture_output=True, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {_TIMEOUT_S:g} s")


def _by_hand(package: NpmPackage, place: Path) -> str:
    return f"run `npm pack {package.name}@{package.version}` on a machine that can, and copy the file to {place}"


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return the most informative line of npm's output."""
    lines = [
        line.removeprefix("npm").strip().removeprefix("ERR!").removeprefix("error").strip()
        for line in (done.stderr or done.stdout).splitlines()
    ]
    informative = [line for line in lines if line and not line.startswith(("A complete log", "code ", "errno "))]
    return informative[0][:200] if informative else f"exit status {done.returncode}"


def _digest(path: Path) -> str:
    digest = hashlib.sha512()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
    return base64.b64encode(digest.digest()).decode()
