"""Puts a folder in its place on a board, whole or not at all. It is sent there as text: `python3 -c TEXT TASK …`.

    copy ROOT NAME DIGEST    stdin is a tar file; its content is checked against DIGEST
    pip  ROOT NAME PACKAGE…  the board's own pip installs packages from the board's own index

Either becomes ROOT/NAME by a rename. Until then it is ROOT/.part-PID-…, which the next run removes if its process
is gone. pip is stopped when stdin ends: its caller has left. The last line on stdout is {"ok": true}, or an error as
`runtimes.errors` has them.

This file stands alone, and runs under Python 3.6: it is what brings the others.
"""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, Tuple

_PART = ".part-"
_PIECE = 1 << 20
_FULL = "make room on the board, or point ~/.edgeproof to another disk with a link"


class Refused(Exception):  # noqa: N818 - what happened to the copy
    """Nothing was put in place: what happened, and what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def tree_digest(folder: Path) -> str:
    """sha256 over the names and the contents of all files below a folder."""
    return digest_of([(path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()])


def digest_of(files: Iterable[Tuple[str, Path]]) -> str:
    """The same of files that lie anywhere: (name in the folder, where it lies)."""
    digest = hashlib.sha256()
    for name, path in sorted(files):
        content = hashlib.sha256()
        with path.open("rb") as stream:
            for piece in iter(lambda: stream.read(_PIECE), b""):
                content.update(piece)
        digest.update(f"{content.hexdigest()} {name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def copy(root: Path, name: str, digest: str, stream: BinaryIO) -> None:
    """Unpack a tar file as `name`; Refused when it breaks off or is not what was sent."""
    with _Part(root, name) as part:
        try:
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                for member in archive:
                    _unpack(archive, member, part)
        except (tarfile.TarError, EOFError) as error:
            raise Refused(f"the copy of {name} broke off: {error}", "run the command again") from None
        if tree_digest(part) != digest:
            raise Refused(f"the copy of {name} is not what was sent", "run the command again; check the board's disk")


def pip(root: Path, name: str, packages: List[str]) -> None:
    """Have the board's pip fill `name`; what it says is passed on."""
    with _Part(root, name) as part:
        command = [sys.executable, "-m", "pip", "install", "--target", str(part), "--no-cache-dir", "--no-input"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--progress-bar=off", *packages]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        threading.Thread(target=_stop_when_left, args=(process,), daemon=True).start()
        last = "pip said nothing"
        for line in _lines(process):
            print(line, flush=True)
            last = line if line.startswith("ERROR") or not last.startswith("ERROR") else last
        if process.wait() != 0:
            raise _pip_failed(last, packages)


def _pip_failed(last: str, packages: List[str]) -> Refused:
    if "No space left" in last:
        return Refused(f"the board's disk is full: {last}", _FULL)
    if "No module named pip" in last:
        return Refused("the board's Python has no pip", "sudo apt-get install python3-pip there, or use --offline")
    if "CERTIFICATE_VERIFY_FAILED" in last:  # a board without a battery wakes up in another year
        return Refused(f"the board trusts no index: {last}"[:400], "check the board's clock: date; or use --offline")
    what = f"the board's pip cannot install {' '.join(packages)}: {last}"
    return Refused(what[:400], "where the board has no network, --offline brings the packages from here")


def _lines(process: Any) -> Iterator[str]:
    for line in process.stdout:
        text = line.decode("utf-8", "replace").strip()
        if text:
            yield text


def _stop_when_left(process: Any) -> None:
    while os.read(0, _PIECE):  # not sys.stdin: Python could not end while this thread holds its lock
        pass
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _unpack(archive: Any, member: Any, part: Path) -> None:
    names = member.name.split("/")
    if member.name.startswith("/") or ".." in names:
        raise Refused(f"the copy names a place outside of it: {member.name}")
    target = part.joinpath(*names)
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
    elif member.isfile():
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            shutil.copyfileobj(archive.extractfile(member), stream, _PIECE)
    else:
        raise Refused(f"the copy holds something that is neither file nor folder: {member.name}")


class _Part:
    """A folder that becomes `root/name` when its block ends well, and nothing when it does not."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._final = root, root / name

    def __enter__(self) -> Path:
        self._root.mkdir(parents=True, exist_ok=True)
        for left in self._root.glob(_PART + "*"):
            if not _is_running(left.name):
                shutil.rmtree(str(left), ignore_errors=True)
        self._part = Path(tempfile.mkdtemp(prefix=f"{_PART}{os.getpid()}-", dir=str(self._root)))
        return self._part

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                os.sync()  # a board may lose its power at any time: first the content, then the name
                shutil.rmtree(str(self._final), ignore_errors=True)
                self._final.parent.mkdir(parents=True, exist_ok=True)
                self._part.rename(self._final)
        finally:
            shutil.rmtree(str(self._part), ignore_errors=True)


def _is_running(name: str) -> bool:
    try:
        os.kill(int(name[len(_PART) :].split("-")[0]), 0)
    except PermissionError:
        return True
    except (ValueError, OSError):
        return False
    return True


def main(arguments: List[str]) -> Dict[str, Any]:
    """Do what the command line says; the answer for stdout."""
    task, root, name, *rest = arguments
    place = Path(root).expanduser()
    try:
        if task == "copy":
            copy(place, name, rest[0], sys.stdin.buffer)
        else:
            pip(place, name, rest)
    except Refused as error:
        return {"error": "host", "message": error.message, "hint": error.hint}
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return {"error": "host", "message": "the board's disk is full", "hint": _FULL}
        return {"error": "host", "message": str(error), "hint": "check the board's disk and its permissions"}
    return {"ok": True}


if __name__ == "__main__":
    # Told to stop, it cleans up: ssh's server sends this when the connection ends.
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(1))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(json.dumps(main(sys.argv[1:])))
