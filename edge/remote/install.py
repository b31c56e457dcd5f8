"""What a board needs to run an artifact: `runtimes/`, one engine, the artifact. What is there already is left alone.

Each is a folder named by what is in it: the same content is never sent twice, and a changed one is another folder.

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
from edge.remote import engines
from edge.remote.ssh import Feed, Line, quoted
from edge.remote.survey import ROOT, Python, Survey
from runtimes import receive
from runtimes.artifact import Artifact
from runtimes.errors import HostError, from_dict

Note = Callable[[str], None]

_COPY_S, _PIP_S = 3600.0, 3600.0
_NAME_LENGTH = 16  # of a digest; 64 bits do not collide by chance
_TEXT_ENGINES = ("engines/llama_cpp.py", "engines/xllamacpp.py", "engines/llama_server.py")
_SHIPPED = (".py", ".json")  # no bytecode: it is of this machine's Python


class Installer:
    """Puts things on one board; `have` knows what is there."""

    def __init__(self, line: Line, found: Survey, python: Python, note: Note = lambda _: None) -> None:
        self._line, self._survey, self._python, self._note = line, found, python, note
        self._have = set(found.have)
        self.copied: list[str] = []  # what was not there yet, in the order in which it came

    def runtimes(self) -> str:
        """The folder that holds our package there, relative to the home folder."""
        files = list(runtimes_files())
        digest = receive.digest_of(files)
        name = f"runtimes/{digest[:_NAME_LENGTH]}"
        if name not in self._have:
            self._note("copying runtimes")
            self.copied.append("runtimes")
            self._copy(name, digest, archive(files, compressed=True))
        return f"{ROOT}/{name}"

    def engine(self, engine: str, offline: bool = False) -> str:
        """The folder that holds an engine there; "" where the board's own system has it."""
        if engine == "edgetpu":
            engines.check_edgetpu(self._python, self._survey.libedgetpu)
        if engines.is_there(engine, self._python):
            return ""
        wanted = engines.packages(engine, self._python, self._survey.libedgetpu)
        name = engines.folder_of(engine, self._python, self._survey.libedgetpu)
        if name not in self._have and wanted:
            self.copied.append(engine)
            if offline:
                self._bring(name, wanted)
            else:
                self._note(f"the board's pip installs {' '.join(wanted)}")
                self._receive(["pip", f"~/{ROOT}", name, *wanted], None, _PIP_S)
            self._have.add(name)
        return f"{ROOT}/{name}"

    def artifact(self, path: Path) -> str:
        """The artifact, or the bare model file, there."""
        opened = Artifact.open(path)
        files = list(_artifact_files(opened))
        digest = receive.digest_of(files)
        name = f"artifacts/{digest[:_NAME_LENGTH]}"
        if name not in self._have:
            opened.verify_digests()  # what is broken here is not carried there
            self._note(f"copying {files[0][0].split('/')[0]}")
            self.copied.append(files[0][0].split("/")[0])
            self._copy(name, digest, archive(files, compressed=False))
        return f"{ROOT}/{name}/{files[0][0].split('/')[0]}"

    def engines(self) -> list[str]:
        """The folders of the engines that are there for this Python; another one cannot import them."""
        return [f"{ROOT}/{name}" for name in engines.brought(self._have, self._python)]

    def file(self, folder: str, path: Path) -> str:
        """The folder below `folder`, one of ours there, that holds a single file."""
        files = [(path.name, path)]
        digest = receive.digest_of(files)
        name = f"{folder}/{digest[:_NAME_LENGTH]}"
        if name not in self._have:
            self._copy(name, digest, archive(files, compressed=True))
        return name

    def forget(self, place: str) -> None:
        """Remove one of our folders there, such as an artifact whose bytes the board's disk has changed."""
        self.forget_below("/".join(place.split("/")[1:3]))  # without the root before it, and the file's name behind

    def forget_below(self, name: str) -> None:
        """Remove the folder `name` of ours and all that it holds."""
        self._line.run(f"rm -rf {quoted([f'~/{ROOT}/{name}'])}")
        self._have = {one for one in self._have if one != name and not one.startswith(f"{name}/")}

    def _bring(self, name: str, wanted: tuple[str, ...]) -> None:
        with tempfile.TemporaryDirectory(prefix="edge-wheels-") as folder:
            self._note(f"fetching {' '.join(wanted)} for {self._survey.machine}")
            engines.fetch(wanted, self._survey.machine, self._python, Path(folder))
            files = [(path.relative_to(folder).as_posix(), path) for path in sorted(Path(folder).rglob("*"))]
            files = [(place, path) for place, path in files if path.is_file()]
            self._note(f"copying {' '.join(wanted)}")
            self._copy(name, receive.digest_of(files), archive(files, compressed=True))

    def _copy(self, name: str, digest: str, feed: Feed) -> None:
        self._receive(["copy", f"~/{ROOT}", name, digest], feed, _COPY_S)
        self._have.add(name)

    def _receive(self, words: list[str], feed: Feed | None, timeout_s: float) -> None:
        text = Path(receive.__file__).read_text(encoding="utf-8")
        script = "exec " + quoted([self._python.path, "-c", text, *words])
        status, out = self._line.run(script, feed, hear=None if feed else self._note, timeout_s=timeout_s)
        _check_answer(self._line.host, status, out)


def _check_answer(host: str, status: int, out: str) -> None:
    try:
        answer: Any = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        raise HostError(f"the copy to {host} ended with status {status}", "see it with --debug") from None
    if "error" in answer:
        error = from_dict(answer)
        raise type(error)(f"{host}: {error.message}", error.hint)


def runtimes_files() -> Iterator[tuple[str, Path]]:
    """Every file of `runtimes/` that travels, with its name on the board."""
    folder = Path(runtimes.__file__).parent
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder).as_posix()
        if path.is_file() and path.suffix in _SHIPPED and "__pycache__" not in path.parts and not _stays(place):
            yield f"runtimes/{place}", path


def _stays(place: str) -> bool:
    """Language models: no engine for them is installed on boards (`edge.remote.engines`)."""
    return place.startswith("llama/") or place in _TEXT_ENGINES


def _artifact_files(artifact: Artifact) -> Iterator[tuple[str, Path]]:
    base = artifact.model if artifact.is_bare else artifact.path.resolve()
    if base.is_file():
        yield base.name, base
        if base.suffix == ".xml" and base.with_suffix(".bin").is_file():  # OpenVINO's weights lie beside its graph
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
    """What writes them as a tar file: with gzip where it pays, which it does not for weights."""

    def feed(stream: IO[bytes]) -> None:
        if not compressed:
            _write(files, stream)
            return
        # Level 1: a board on a slow line gains from it, and a fast line does not wait for it.
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
