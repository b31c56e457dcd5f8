"""Download packages of Debian 12 for both architectures, with apt in separate folders."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

RELEASE = "bookworm"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SOURCES = Path("/etc/apt")
_CONFIG = """\
Dir::State "{folder}";
Dir::State::lists "lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
Dir::Cache::archives "archives";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{folder}/preferences.d";
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; "amd64"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
"""


class CannotStand(Exception):  # noqa: N818 - it describes the machine, and is not a fault
    """Why this machine cannot run a board; tests are skipped with it."""


def mirror() -> str:
    """Return EDGE_DEBIAN_MIRROR, else the mirror of this machine's own apt."""
    named = os.environ.get("EDGE_DEBIAN_MIRROR")
    if named:
        return named
    texts = [path.read_text() for path in sorted(_SOURCES.glob("sources.list*/*")) if path.is_file()]
    if (_SOURCES / "sources.list").is_file():
        texts.append((_SOURCES / "sources.list").read_text())
    for text in texts:
        found = re.search(r"^(?:URIs:|deb (?:\[[^]]*\] )?)\s*(\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
        if found:
            return found.group(1)
    raise CannotStand("apt has no Debian among its sources here: name a mirror in EDGE_DEBIAN_MIRROR")


class Apt:
    """An apt without installed packages, whose files are all in `folder`."""

    def __init__(self, folder: Path) -> None:
        for tool in ("apt-get", "dpkg-deb"):
            if not shutil.which(tool):
                raise CannotStand(f"the board is made of Debian's packages, and this machine has no {tool}")
        if not _KEYRING.exists():
            raise CannotStand(f"Debian's keys are not here ({_KEYRING}: package debian-archive-keyring)")
        for part in ("lists/partial", "archives/partial", "preferences.d"):
            (folder / part).mkdir(parents=True)
        signed = f"signed-by={_KEYRING}"
        lines = [
            f"deb [arch=arm64,amd64 {signed}] {mirror()} {RELEASE} main",
            f"deb [arch=amd64 {signed}] {mirror()} {RELEASE}-backports main",  # the newer qemu
        ]
        (folder / "sources.list").write_text("\n".join(lines) + "\n")
        (folder / "status").touch()
        (folder / "apt.conf").write_text(_CONFIG.format(folder=folder))
        self._folder = folder
        self._run(folder, "update", "-o", "APT::Update::Error-Mode=any")  # else a mirror that is down is a warning

    def closure(self, packages: Sequence[str]) -> list[Path]:
        """Download these packages and their dependencies for the board's architecture."""
        self._run(self._folder, "install", "--yes", "--no-install-recommends", "--download-only", *packages)
        return sorted((self._folder / "archives").glob("*.deb"))

    def alone(self, packages: Sequence[str]) -> list[Path]:
        """Download these packages without dependencies, such as `openssh-server:amd64`."""
        place = self._folder / "alone"
        place.mkdir(exist_ok=True)
        self._run(place, "download", *packages)
        return sorted(place.glob("*.deb"))

    def _run(self, place: Path, *words: str) -> None:
        environment = {**os.environ, "APT_CONFIG": str(self._folder / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            ["apt-get", "-qq", *words], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            told = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise CannotStand(f"apt-get {words[0]} failed: {told}")


def unpack(packages: Sequence[Path], root: Path) -> None:
    """Unpack the packages into `root`, without running their scripts."""
    for path in _merged_folders(root):
        path.mkdir(parents=True, exist_ok=True)
    for package in packages:
        tar = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as content:
            subprocess.run(tar, stdin=content.stdout, check=True)
        if content.returncode:
            raise CannotStand(f"{package.name} does not unpack")


def _merged_folders(root: Path) -> Iterator[Path]:
    """Debian 12 has /bin, /sbin and /lib as links into /usr, which a package's own /bin would replace by a folder."""
    for name in ("bin", "sbin", "lib"):
        yield root / "usr" / name
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
