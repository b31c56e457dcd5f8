"""Run a board: a private namespace in which aarch64 programs run, and a real sshd whose login shell runs inside.

    this machine ──ssh──► sshd (ours, uid 1000 of a user namespace) ──login shell──► chroot: aarch64, under qemu-user

Needs no privilege, and changes nothing outside: mounts, binfmt_misc rule and processes vanish with the namespace.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.boards.debian import CannotStand
from tests.boards.faces import RASPBERRY_PI_4, Face
from tests.boards.root import HOME, UID, USER, Root

_START_S = 30.0
# An ELF file, 64 bits, little-endian, executable or shared, machine 183 (aarch64). F: open the emulator now, outside.
_RULE = (
    r":board:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{qemu}:F"
)
_SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp /usr/lib/openssh/sftp-server
"""
_SSH = """\
Host {name}
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
"""
# What ssh runs on the board. The chroot comes with a user namespace of its own, because sshd runs without privileges.
_LOGIN = """\
#!/bin/sh
unset LD_LIBRARY_PATH
export HOME={home} SHELL=/bin/bash PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin QEMU_CPU={cpu}
exec unshare -U --map-user={uid} --map-group={uid} --root={root} --wd={home} -- /bin/bash "$@"
"""
_STAND = """\
set -e
mount -t tmpfs -o mode=755 board {inside}
cd {inside}
mkdir upper work root binfmt
mount -t overlay -o userxattr,lowerdir={layers},upperdir=upper,workdir=work board root
mount -t binfmt_misc none binfmt
printf '%s' {rule} > binfmt/register
mount --rbind /proc root/proc
mount --rbind /dev root/dev
mount --bind {folder}/meminfo root/proc/meminfo
[ ! -e /etc/resolv.conf ] || {{ : > root/etc/resolv.conf; mount --bind /etc/resolv.conf root/etc/resolv.conf; }}
{mount_home}
{remove}
mount --bind {folder}/passwd /etc/passwd
exec unshare -U --map-user={uid} --map-group={uid} -- {sshd}
"""


@dataclass(frozen=True)
class Board:
    """A running board.

    name    the host's alias in `config`, an ssh_config that has port, key and the board's real host key
    home    the home folder of its user, seen from this side
    pid     the process with which it all ends
    """

    name: str
    port: int
    config: Path
    known_hosts: Path
    home: Path
    pid: int
    user: str = USER

    def ssh(self, command: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run `command` on it with plain ssh, without prompts."""
        words = ["ssh", "-F", str(self.config), "-o", "BatchMode=yes", self.name, command]
        return subprocess.run(
            words, **{"capture_output": True, "text": True, "check": False, "timeout": 300, **options}
        )


@contextmanager
def standing(
    root: Root,
    face: Face = RASPBERRY_PI_4,
    *,
    name: str = "board",
    engines: bool = True,
    disk_kb: int | None = None,
    port: int | None = None,
) -> Iterator[Board]:
    """Run a board while the block runs; several can run at the same time.

    engines  whether LiteRT, ONNX Runtime, OpenVINO, numpy and pytest are installed on it, system-wide
    disk_kb  how much its home folder holds; unlimited by default
    port     a free one by default
    """
    # Not below pytest's folder: a socket of ssh's ControlMaster and an overlay's options want short, plain paths.
    with tempfile.TemporaryDirectory(prefix="edge-board-") as scratch:
        folder = Path(scratch)
        port = port or _free_port()
        _write_files(folder, root, face, name, port)
        process = _start(folder, root, face, engines, disk_kb)
        try:
            _wait(port, process, folder)
            home = Path(f"/proc/{process.pid}/root{folder}/inside/root{HOME}") if disk_kb else folder / "home"
            yield Board(name, port, folder / "ssh_config", folder / "known_hosts", home, process.pid)
        finally:
            process.kill()
            process.wait()


def _write_files(folder: Path, root: Root, face: Face, name: str, port: int) -> None:
    for part in ("face", "home", "inside"):
        (folder / part).mkdir()
    face.write(folder / "face")
    (folder / "meminfo").write_text(face.meminfo())
    for key in ("host_key", "user_key"):
        _keygen(folder / key)
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    (folder / "sshd_config").write_text(_SSHD.format(port=port, folder=folder))
    (folder / "ssh_config").write_text(_SSH.format(name=name, port=port, user=USER, folder=folder))
    (folder / "passwd").write_text(f"{USER}:x:{UID}:{UID}::{folder}/home:{folder}/login\n")
    login = folder / "login"
    login.write_text(_LOGIN.format(home=HOME, cpu=face.cpu, uid=UID, root=folder / "inside/root"))
    login.chmod(0o755)


def _start(folder: Path, root: Root, face: Face, engines: bool, disk_kb: int | None) -> subprocess.Popen[bytes]:
    for tool in ("unshare", "mount", "ssh", "ssh-keygen"):
        if not shutil.which(tool):
            raise CannotStand(f"this machine has no {tool}")
    layers = [folder / "face", *([root.engines] if engines else []), root.system]
    home = f"root{HOME}"
    mount_home = f"mount -t tmpfs -o size={disk_kb}k home {home}" if disk_kb else f"mount --bind {folder}/home {home}"
    sshd = ["env", f"LD_LIBRARY_PATH={root.libraries}", str(root.sshd), "-D", "-e", "-f", str(folder / "sshd_config")]
    script = _STAND.format(
        inside=folder / "inside",
        layers=":".join(map(str, layers)),
        rule=shlex.quote(_RULE.format(qemu=root.qemu)),
        folder=folder,
        mount_home=mount_home,
        remove="\n".join(f"rm -f root/usr/bin/{command}*" for command in face.absent),
        uid=UID,
        sshd=shlex.join(sshd),
    )
    outer = ["unshare", "-U", "-r", "-m", "-p", "-f", "--kill-child", "--mount-proc", "--", "sh", "-c", script]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(outer, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _wait(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until its sshd answers. Raises CannotStand, with the last output, if it does not."""
    ends = time.monotonic() + _START_S
    while time.monotonic() < ends and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    process.kill()
    process.wait()
    raise CannotStand(f"the board does not stand up: {_last_line(folder / 'log')} (kernel {os.uname().release})")


def _last_line(log: Path) -> str:
    lines: Sequence[str] = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing was said"


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "board", "-f", path], check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
