"""Frames from a camera, one JPEG at a time, by whatever program is there: on a board, or here.

Frames are decoded on this side, as all pictures are: a board without Pillow or OpenCV will do.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from types import MappingProxyType

from edge.remote.ssh import Line
from runtimes.errors import HostError

# Runs a script of /bin/sh where the camera is: its exit status and stdout.
Run = Callable[[str], tuple[int, bytes]]

_JPEG = b"\xff\xd8"
_FRAME_S = 30.0
_PROGRAM_S = 10  # for one program: one that waits for a camera for ever keeps it from the next
_CV2 = (
    "import cv2,sys;c=cv2.VideoCapture({number});ok,f=c.read();"
    "ok or sys.exit('OpenCV got no frame from camera {number}');"
    "sys.stdout.buffer.write(cv2.imencode('.jpg',f)[1].tobytes())"
)
# What takes one frame, and the test that it is there. USB cameras are V4L2 devices; the modules on a Raspberry Pi's
# ribbon cable are not any more, and only libcamera's programs know how to ask them.
_WAYS: Mapping[str, tuple[str, str]] = MappingProxyType(
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
    """Camera `number` of the machine `where`, at the end of `run`."""

    def __init__(self, run: Run, number: int, where: str) -> None:
        self._run, self._number, self._where = run, number, where
        self._way: str | None = None  # the first that gave a picture

    def frame(self) -> bytes:
        """One frame, as JPEG; HostError, with what to do, where no program is there or none gets a picture."""
        ways = [self._way] if self._way else self._there()
        said = []
        for way in ways:
            status, content = self._run(_told(_WAYS[way][1].format(number=self._number)))
            if status == 0 and content.startswith(_JPEG):
                self._way = way
                return content
            last = content[-1000:].decode("utf-8", "replace").strip().splitlines() or ["no picture"]
            said.append(f"{way}: {last[-1][:200]}")
        if not said:
            raise HostError(f"{self._where} has no program that takes a picture", _INSTALL)
        raise HostError(
            f"camera {self._number} of {self._where} gives no picture ({'; '.join(said)})",
            "see which cameras there are: ls /dev/video*; another program may hold this one",
        )

    def _there(self) -> list[str]:
        script = "\n".join(f"{test} >/dev/null 2>&1 && echo {way}" for way, (test, _) in _WAYS.items())
        _, told = self._run(f"{script}\ntrue")
        return [way for way in told.decode("utf-8", "replace").split() if way in _WAYS]


def _told(command: str) -> str:
    """A script that prints what the command prints, or where it fails, what it complains of."""
    return (
        f"said=$(mktemp) || exit 1\ntrap 'rm -f \"$said\"' EXIT\n"
        f'limit=$(command -v timeout) && limit="$limit {_PROGRAM_S}"\n'
        f'$limit {command} 2>"$said" </dev/null && exit 0\ntail -n 5 "$said"\nexit 1'
    )


def on_board(line: Line) -> Run:
    """Where the camera is at the other end of a line."""
    return lambda script: line.read(script, timeout_s=_FRAME_S)


def here(script: str) -> tuple[int, bytes]:
    """Where the camera is on this machine."""
    try:
        done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, timeout=_FRAME_S, check=False)
    except subprocess.TimeoutExpired:
        return 1, f"nothing within {_FRAME_S:g} s".encode()
    return done.returncode, done.stdout
