"""Install on a board what it needs to run an artifact: `runtimes/`, one engine, and the artifact.

Each is a folder named by its content: the same content is never sent twice, and changed content is another folder.

    runtimes/DIGEST/runtimes/    the package, 200 KB
    engines/ENGINE-pyXY/         the engine and numpy, as `pip install --target` lays them out
    artifacts/DIGEST/NAME        the artifact's folder, or the bare model file
"""

from __future__ import annotations

import gzip
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import runtimes
from edge.remote import packages
from edge.remote.probe import ROOT, Probe, Python
from edge.remote.ssh import Feed, SshConnection, quote
from runtimes.artifact import Artifact
from runtimes.errors import HostError, from_dict
from runtimes.registry import engine, engine_ids
from runtimes.session import TensorEngine
from runtimes.standalone import receive

Note = Callable[[str], None]

_COPY_S, _PIP_S = 3600.0, 3600.0
_NAME_LENGTH = 16  # of a digest; 64 bits do not collide by chance
_SHIPPED = (".py", ".json")  # not bytecode: it is specific to this machine's Python


class Installer:
    """Installs folders on one board, and keeps track of those it has."""

    def __init__(self, line: SshConnection, found: Probe, python: Python, note: Note = lambda _: None) -> None:
        self._line, self._survey, self._python, self._note = line, found, python, note
        self._have = set(found.have)
        self._digests: dict[tuple[tuple[str, int, int], ...], str] = {}
        self.copied: list[str] = []  # what was newly copied, in order

    def runtimes(self) -> str:
        """Install our package, and return its folder relative to the home folder."""
        files = list(runtimes_files())
        digest = receive.digest_of(files)
        name = f"runtimes/{digest[:_NAME_LENGTH]}"
        if name not in self._have:
            self._note("copying runtimes")
            self.copied.append("runtimes")
            self._copy(name, digest, archive(files, compressed=True))
        return f"{ROOT}/{name}"

    def engine(self, engine: str, offline: bool = False) -> str:
        """Install an engine, and return its folder; "" if the board's own system has the engine."""
        if engine == "edgetpu":
            packages.check_edgetpu(self._python, self._survey.libedgetpu)
        if packages.has_engine(engine, self._python):
            return ""
        wanted = packages.packages(engine, self._python, self._survey.libedgetpu)
        name = packages.folder_of(engine, self._python, self._survey.libedgetpu)
        if name not in self._have and wanted:
            self.copied.append(engine)
            if offline:
                self._copy_wheels(name, wanted)
            else:
                self._note(f"the board's pip installs {' '.join(wanted)}")
                self._receive(["pip", f"~/{ROOT}", name, *wanted], None, _PIP_S)
            self._have.add(name)
        return f"{ROOT}/{name}"

    def artifact(self, path: Path) -> str:
        """Copy the artifact or bare model file, and return its path there. Verifies its digests before."""
        opened = Artifact.open(path)
        files = list(_artifact_files(opened))
        digest = self._digest(opened, files)
        name = f"artifacts/{digest[:_NAME_LENGTH]}"
        if name not in self._have:
            self._note(f"copying {files[0][0].split('/')[0]}")
            self.copied.append(files[0][0].split("/")[0])
            self._copy(name, digest, archive(files, compressed=False))
        return f"{ROOT}/{name}/{files[0][0].split('/')[0]}"

    def _digest(self, artifact: Artifact, files: list[tuple[str, Path]]) -> str:
        """Return the digest of the files; cached as long as their sizes and times do not change."""
        key = tuple((name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in files)
        if key not in self._digests:
            artifact.verify_digests()
            folder = artifact.path.resolve().name
            known = {f"{folder}/{name}": value for name, value in artifact.manifest.files.items()}
            self._digests[key] = receive.digest_of(files, known)
        return self._digests[key]

    def engines(self) -> list[str]:
        """Return the folders of the engines installed for this Python; another Python cannot import them."""
        return [f"{ROOT}/{name}" for name in packages.engine_folders(self._have, self._python)]

    def file(self, folder: str, path: Path) -> str:
        """Copy a single file into a subfolder of `folder`, and return the subfolder."""
        files = [(path.name, path)]
        digest = receive.digest_of(files)
        name = f"{folder}/{digest[:_NAME_LENGTH]}"
        if name not in self._have:
            self._copy(name, digest, archive(files, compressed=True))
        return name

    def forget(self, place: str) -> None:
        """Remove one of our folders, such as an artifact that has changed on the board's disk."""
        self.forget_below("/".join(place.split("/")[1:3]))  # without the leading ROOT and the trailing file name

    def forget_below(self, name: str) -> None:
        """Remove our folder `name` and everything in it."""
        self._line.run(f"rm -rf {quote([f'~/{ROOT}/{name}'])}")
        self._have = {one for one in self._have if one != name and not one.startswith(f"{name}/")}

    def _copy_wheels(self, name: str, wanted: tuple[str, ...]) -> None:
        with tempfile.TemporaryDirectory(prefix="edge-wheels-") as folder:
            self._note(f"fetching {' '.join(wanted)} for {self._survey.machine}")
            packages.fetch(wanted, self._survey.machine, self._python, Path(folder))
            files = [(path.relative_to(folder).as_posix(), path) for path in sorted(Path(folder).rglob("*"))]
            files = [(place, path) for place, path in files if path.is_file()]
            self._note(f"copying {' '.join(wanted)}")
            self._copy(name, receive.digest_of(files), archive(files, compressed=True))

    def _copy(self, name: str, digest: str, feed: Feed) -> None:
        self._receive(["copy", f"~/{ROOT}", name, digest], feed, _COPY_S)
        self._have.add(name)

    def _receive(self, words: list[str], feed: Feed | None, timeout_s: float) -> None:
        text = Path(receive.__file__).read_text(encoding="utf-8")
        script = "exec " + quote([self._python.path, "-c", text, *words])
        status, out = self._line.run(script, feed, on_line=None if feed else self._note, timeout_s=timeout_s)
        _check_answer(self._line.host, status, out)


def _check_answer(host: str, status: int, out: str) -> None:
    try:
        answer: Any = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        raise HostError(
            f"the copy to {host} ended with status {status}", "run again with --debug for its output"
        ) from None
    if "error" in answer:
        error = from_dict(answer)
        raise type(error)(f"{host}: {error.message}", error.hint)


def runtimes_files() -> Iterator[tuple[str, Path]]:
    """List every file of `runtimes/` that boards get, with its name on the board."""
    folder = Path(runtimes.__file__).parent
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder).as_posix()
        if path.is_file() and path.suffix in _SHIPPED and "__pycache__" not in path.parts and not _is_host_only(place):
            yield f"runtimes/{place}", path


def _is_host_only(place: str) -> bool:
    """Return whether boards do not get the file: language models, whose engines they lack, and contract suites."""
    if place.startswith("engines/") and Path(place).stem in engine_ids():
        return not isinstance(engine(Path(place).stem), TensorEngine)
    return place.startswith(("llm/", "testing/"))


def _artifact_files(artifact: Artifact) -> Iterator[tuple[str, Path]]:
    base = artifact.model if artifact.is_bare else artifact.path.resolve()
    if base.is_file():
        yield base.name, base
        if base.suffix == ".xml" and base.with_suffix(".bin").is_file():  # OpenVINO's weights are next to its graph
            yield base.with_suffix(".bin").name, base.with_suffix(".bin")
        return
    names = sorted(artifact.manifest.files) or sorted(
        path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()
    )
    if not artifact.is_bare:
        names = ["manifest.json", *names]
    for name in names:
        yield f"{base.name}/{name}", base / name


def archive(files: list[tuple[str, Path]], compressed: bool) -> Feed:
    """Return a function that writes the files as a tar archive, with gzip if `compressed`: weights do not compress."""

    def feed(stream: IO[bytes]) -> None:
        if not compressed:
            _write(files, stream)
            return
        # Level 1: helps on a slow connection without delaying a fast one.
        with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1, mtime=0) as packed:
            _write(files, packed)

    return feed


def _write(files: list[tuple[str, Path]], stream: IO[bytes] | gzip.GzipFile) -> None:
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for name, path in files:
            info = tarfile.TarInfo(name)
            info.size = path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(info, content)
