"""Take single JPEG frames from a camera, on a board or here, with whichever program is installed.

Frames are decoded on the host, as all pictures are: the board does not need Pillow or OpenCV.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from types import MappingProxyType

from edge.remote.ssh import SshConnection
from runtimes.errors import HostError

# Runs a /bin/sh script on the camera's machine; returns exit status and stdout.
Run = Callable[[str], tuple[int, bytes]]

_JPEG = b"\xff\xd8"
_FRAME_S = 30.0
_PROGRAM_S = 10  # for one program: one that waits forever for a camera blocks it for the next
_CV2 = (
    "import cv2,sys;c=cv2.VideoCapture({number});ok,f=c.read();"
    "ok or sys.exit('OpenCV got no frame from camera {number}');"
    "sys.stdout.buffer.write(cv2.imencode('.jpg',f)[1].tobytes())"
)
# Program → the test that it is installed, and the command that takes one frame. USB cameras are V4L2 devices; the
# camera modules of a Raspberry Pi no longer are, and only libcamera's programs support them.
_PROGRAMS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "OpenCV": ('python3 -c "import cv2"', f'python3 -c "{_CV2}"'),
        "ffmpeg": (
            "command -v ffmpeg",
            "ffmpeg -nostdin -loglevel error -f v4l2 -i /dev/video{number} -frames:v 1 -f image2 -c:v mjpeg -",
        ),
        "v4l2-ctl": (
            "command -v v4l2-ctl",
            "v4l2-ctl -d /dev/video{number} --set-fmt-video=pixelformat=MJPG --stream-mmap --stream-count=1 "
            "--stream-to=-",
        ),
        "rpicam-still": ("command -v rpicam-still", "rpicam-still --camera {number} -n --immediate -e jpg -o -"),
        "libcamera-still": (
            "command -v libcamera-still",
            "libcamera-still --camera {number} -n --immediate -e jpg -o -",
        ),
    }
)
_INSTALL = (
    "sudo apt-get install ffmpeg there (USB cameras), or rpicam-apps, libcamera-apps on older systems (camera modules)"
)


class Camera:
    """Camera `number` of the machine `where`, which `run` runs scripts on."""

    def __init__(self, run: Run, number: int, where: str) -> None:
        self._run, self._number, self._where = run, number, where
        self._program: str | None = None  # the first that returned a picture

    def frame(self) -> bytes:
        """Take one frame, as JPEG. Raises HostError if no program is installed or none returns a picture."""
        programs = [self._program] if self._program else self._installed()
        failures = []
        for program in programs:
            status, content = self._run(_script(_PROGRAMS[program][1].format(number=self._number)))
            if status == 0 and content.startswith(_JPEG):
                self._program = program
                return content
            last = content[-1000:].decode("utf-8", "replace").strip().splitlines() or ["no picture"]
            failures.append(f"{program}: {last[-1][:200]}")
        if not failures:
            raise HostError(f"{self._where} has no program that takes a picture", _INSTALL)
        raise HostError(
            f"camera {self._number} of {self._where} returns no picture ({'; '.join(failures)})",
            "list the cameras: ls /dev/video*; another program may be using this one",
        )

    def _installed(self) -> list[str]:
        script = "\n".join(f"{test} >/dev/null 2>&1 && echo {program}" for program, (test, _) in _PROGRAMS.items())
        _, out = self._run(f"{script}\ntrue")
        return [program for program in out.decode("utf-8", "replace").split() if program in _PROGRAMS]


def _script(command: str) -> str:
    """Return a script that prints the output of the command, or the end of its stderr if it fails."""
    return (
        f"log=$(mktemp) || exit 1\ntrap 'rm -f \"$log\"' EXIT\n"
        f'limit=$(command -v timeout) && limit="$limit {_PROGRAM_S}"\n'
        f'$limit {command} 2>"$log" </dev/null && exit 0\ntail -n 5 "$log"\nexit 1'
    )


def on_board(line: SshConnection) -> Run:
    """Return the `Run` for a camera on a board."""
    return lambda script: line.read(script, timeout_s=_FRAME_S)


def here(script: str) -> tuple[int, bytes]:
    """The `Run` for a camera on this machine."""
    try:
        done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, timeout=_FRAME_S, check=False)
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {_FRAME_S:g} s".encode()
    return done.returncode, done.stdout
