"""Creates a folder on a board, atomically. It is sent there as text: `python3 -c TEXT TASK …`.

    copy ROOT NAME DIGEST    stdin is a tar file; its content is checked against DIGEST
    pip  ROOT NAME PACKAGE…  the board's own pip installs packages from the board's own index

The result is renamed to ROOT/NAME when it is complete. Until then it is ROOT/.part-PID-…, which the next run removes if
its process is gone. pip is killed when stdin closes, because the caller has gone. The last line on stdout is
{"ok": true}, or an error in the form of `runtimes.errors`.

This file is self-contained and runs under Python 3.6, because it transfers the other modules. POSIX only: boards run
Linux.
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
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

_PART = ".part-"
_PIECE = 1 << 20
# What pip prints when it does not reach its index; afterwards it reports that nothing matches, too.
_UNREACHABLE = ("Retrying (", "connection broken", "Could not fetch URL", "ConnectionError", "is not a trusted")
_FULL = "make room on the board, or point ~/.edgeproof to another disk with a link"


class TransferError(Exception):
    """The folder was not created; with a message and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def tree_digest(folder: Path) -> str:
    """Return the sha256 over the names and contents of all files below a folder."""
    return digest_of([(path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()])


def digest_of(files: Iterable[Tuple[str, Path]], known: Optional[Mapping[str, str]] = None) -> str:
    """Return the same digest for files at any location: (name in the folder, path).

    `known` maps names to the sha256 of files that have been read already.
    """
    digest = hashlib.sha256()
    for name, path in sorted(files):
        content = (known or {}).get(name) or _file_digest(path)
        digest.update(f"{content} {name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as stream:
        for piece in iter(lambda: stream.read(_PIECE), b""):
            content.update(piece)
    return content.hexdigest()


def copy(root: Path, name: str, digest: str, stream: BinaryIO) -> None:
    """Unpack a tar file as `name`. Raises TransferError if it is truncated or its digest differs."""
    with _Part(root, name) as part:
        try:
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                for member in archive:
                    _unpack(archive, member, part)
        except (tarfile.TarError, EOFError) as error:
            raise TransferError(f"the copy of {name} was interrupted: {error}", "run the command again") from None
        if tree_digest(part) != digest:
            raise TransferError(
                f"the copy of {name} differs from what was sent", "run the command again; check the board's disk"
            )


def pip(root: Path, name: str, packages: List[str]) -> None:
    """Install packages into `name` with the board's pip, passing on its output."""
    with _Part(root, name) as part:
        command = [sys.executable, "-m", "pip", "install", "--target", str(part), "--no-cache-dir", "--no-input"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--progress-bar=off", *packages]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        threading.Thread(target=_stop_when_left, args=(process,), daemon=True).start()
        last, lines = "pip printed nothing", []
        for line in _lines(process):
            print(line, flush=True)
            lines.append(line)
            last = line if line.startswith("ERROR") or not last.startswith("ERROR") else last
        if process.wait() != 0:
            raise _pip_failed(last, lines, packages)


def is_unpublished(lines: Iterable[str]) -> bool:
    """Return whether pip failed because an index that answered has no fitting build."""
    text = "\n".join(lines)
    return "No matching distribution found" in text and not any(word in text for word in _UNREACHABLE)


def _pip_failed(last: str, lines: List[str], packages: List[str]) -> TransferError:
    if "No space left" in last:
        return TransferError(f"the board's disk is full: {last}", _FULL)
    if "No module named pip" in last:
        return TransferError(
            "the board's Python has no pip", "sudo apt-get install python3-pip there, or use --offline"
        )
    if "CERTIFICATE_VERIFY_FAILED" in last:  # the clock of a board without a battery may be off by years
        return TransferError(
            f"the board trusts no index: {last}"[:400], "check the board's clock: date; or use --offline"
        )
    what = f"the board's pip cannot install {' '.join(packages)}: {last}"
    if is_unpublished(lines):
        bits = 64 if sys.maxsize > 2**32 else 32
        machine = f"Python {sys.version_info[0]}.{sys.version_info[1]} with {bits} bits on {os.uname().machine}"
        return TransferError(what[:400], f"no build is published for {machine}: use another Python there, or its image")
    return TransferError(what[:400], "where the board has no network, --offline brings the packages from here")


def _lines(process: Any) -> Iterator[str]:
    for line in process.stdout:
        text = line.decode("utf-8", "replace").strip()
        if text:
            yield text


def _stop_when_left(process: Any) -> None:
    while os.read(0, _PIECE):  # not sys.stdin: Python could not exit while this thread holds its lock
        pass
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _unpack(archive: Any, member: Any, part: Path) -> None:
    names = member.name.split("/")
    if member.name.startswith("/") or ".." in names:
        raise TransferError(f"the copy names a place outside of it: {member.name}")
    target = part.joinpath(*names)
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
    elif member.isfile():
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            shutil.copyfileobj(archive.extractfile(member), stream, _PIECE)
    else:
        raise TransferError(f"the copy contains something that is neither file nor folder: {member.name}")


class _Part:
    """A folder that is renamed to `root/name` if the block succeeds, and removed if it does not."""

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
                os.sync()  # write the content before the rename: a board may lose power at any time
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


def main(arguments: List[str]) -> Dict[str, Union[str, bool]]:
    """Run the command line; returns the answer for stdout."""
    task, root, name, *rest = arguments
    place = Path(root).expanduser()
    try:
        if task == "copy":
            copy(place, name, rest[0], sys.stdin.buffer)
        else:
            pip(place, name, rest)
    except TransferError as error:
        return {"error": "host", "message": error.message, "hint": error.hint}
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return {"error": "host", "message": "the board's disk is full", "hint": _FULL}
        return {"error": "host", "message": str(error), "hint": "check the board's disk and its permissions"}
    return {"ok": True}


if __name__ == "__main__":
    # sshd sends this when the connection ends: exit through the clean-up code.
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(1))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(json.dumps(main(sys.argv[1:])))
