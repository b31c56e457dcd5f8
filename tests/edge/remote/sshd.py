"""Run a real `sshd` on loopback for one user, whose home is a folder of the test, without privileges."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

USER = "pi"
_PACKAGES = ("openssh-server", "libwrap0")
_TCSH = ("tcsh",)


@dataclass(frozen=True)
class Board:
    """How to reach an sshd: `config` is an ssh_config with the host `name`; `home` is its user's home folder.

    `power` turns it off and on again.
    """

    name: str
    port: int
    home: Path
    config: Path
    known_hosts: Path
    power: Power


class Power:
    """The sshd of a board, which can be turned on and off; all its sessions and their processes end with it."""

    def __init__(self, folder: Path, program: str, libraries: str, port: int) -> None:
        self._folder, self._program, self._libraries, self._port = folder, program, libraries, port

    def on(self) -> None:
        """Start it and wait until it answers; skips the test if it does not."""
        self._process = _start(self._folder, self._program, self._libraries)
        _wait_for(self._port, self._process, self._folder)

    def off(self) -> None:
        """Kill it immediately."""
        self._process.kill()
        self._process.wait()


def binary(cache: Path) -> tuple[str, str]:
    """Return the paths of sshd and of the libraries that the system lacks; skips the test if sshd is not available."""
    found = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if found:
        return found, ""
    unpacked = cache / "sshd"
    if not (unpacked / "usr/sbin/sshd").exists():
        _unpack(unpacked, _PACKAGES)
    return str(unpacked / "usr/sbin/sshd"), ":".join(str(path) for path in unpacked.glob("usr/lib/*-linux-gnu"))


def tcsh(folder: Path) -> str:
    """Return the path of tcsh, unpacked below `folder` if the system has none; skips the test if it cannot be."""
    found = shutil.which("tcsh")
    if found:
        return found
    _unpack(folder / "tcsh", _TCSH)
    return str(folder / "tcsh/bin/tcsh")


def _unpack(folder: Path, packages: tuple[str, ...]) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        pytest.skip(f"this machine lacks {packages[0]}: install it")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "download", "-qq", *packages]
    if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip(f"this machine lacks {packages[0]}, and apt-get could not fetch it")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)


@contextmanager
def running(
    folder: Path,
    cache: Path,
    *,
    name: str = "board",
    shell: str = "/bin/sh",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Board]:
    """Run an sshd whose only user is `pi`, with `shell` and an empty home; it ends with all its sessions."""
    program, libraries = binary(cache)
    home = folder / "home"
    home.mkdir(parents=True)
    port = _free_port()
    key = _key(folder / "host_key")
    mine = _key(folder / "id")
    (folder / "authorized_keys").write_text(mine.with_suffix(".pub").read_text())
    set_variables = " ".join(f"{key}={value}" for key, value in (environment or {}).items())
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nSubsystem sftp internal-sftp\nPasswordAuthentication no\n"
        + (f"SetEnv {set_variables}\n" if set_variables else "")
    )
    (folder / "passwd").write_text(f"{USER}:x:1000:1000::{home}:{shell}\n")
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {key.with_suffix('.pub').read_text()}")
    config = folder / "ssh_config"
    config.write_text(
        f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User {USER}\n  IdentityFile {mine}\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n"
    )
    power = Power(folder, program, libraries, port)
    power.on()
    try:
        yield Board(name, port, home, config, known, power)
    finally:
        power.off()


def _start(folder: Path, program: str, libraries: str) -> subprocess.Popen[bytes]:
    """Start it in a namespace as its user, because an sshd of root needs more of the system."""
    # --kill-child and a PID namespace: when the outer process ends, every session ends with it.
    daemon = [program, "-D", "-e", "-f", str(folder / "sshd_config")]
    inner = ["unshare", "-U", "--map-user=1000", "--map-group=1000", "--", *daemon]
    script = f"mount --bind {shlex.quote(str(folder / 'passwd'))} /etc/passwd && exec {shlex.join(inner)}"
    outer = ["unshare", "-U", "-r", "-m", "-p", "-f", "--kill-child", "--mount-proc", "--", "sh", "-c", script]
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries} if libraries else None
    with (folder / "sshd.log").open("wb") as log:
        return subprocess.Popen(outer, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def _wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    process.kill()
    process.wait()
    pytest.skip(f"sshd does not start here: {(folder / 'sshd.log').read_text()[-300:]}")


def _key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
