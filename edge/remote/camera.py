"""Take single JPEG frames from a camera, on a board or here, with whichever program is installed.

Frames are decoded on the host, as all pictures are: the board does not need Pillow or OpenCV.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from edge.console.text import quantity
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
_CAMERA_MODULES = ("rpicam-still", "libcamera-still")  # they number their cameras themselves, without /dev/video*
# What the kernel says of a device, in the words of every program → what that means, and what to do.
_CAUSES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "resource busy": ("is in use by another program", "end that program: fuser /dev/video{number} names it"),
        "permission denied": (
            "may not be opened by this user",
            "sudo usermod -aG video $USER there, then log in again",
        ),
    }
)


class Camera:
    """Camera `number` of the machine `where`, which `run` runs scripts on."""

    def __init__(self, run: Run, number: int, where: str) -> None:
        self._run, self._number, self._where = run, number, where
        self._program: str | None = None  # the first that returned a picture
        self._frames = 0

    def frame(self) -> bytes:
        """Take one frame, as JPEG. Raises HostError if no program is installed or none returns a picture."""
        programs = [self._program] if self._program else self._install()
        failures = []
        for program in programs:
            status, content = self._run(_script(_PROGRAMS[program][1].format(number=self._number)))
            if status == 0 and content.startswith(_JPEG):
                self._program = program
                self._frames += 1
                return content
            last = content[-1000:].decode("utf-8", "replace").strip().splitlines() or ["no picture"]
            failures.append(f"{program}: {last[-1][:200]}")
        if not failures:
            raise HostError(f"{self._where} has no program that takes a picture", _INSTALL)
        raise self._failure(programs, "; ".join(failures))

    def _failure(self, programs: Sequence[str], complaints: str) -> HostError:
        """Return the error about a camera from which no program got a picture, with its cause where that is known."""
        camera = f"camera {self._number} of {self._where}"
        for words, (what, hint) in _CAUSES.items():
            if words in complaints.lower():
                return HostError(f"{camera} {what} ({complaints})", hint.format(number=self._number))
        if self._frames:
            after = quantity(self._frames, "frame")
            return HostError(f"{camera} is gone after {after} ({complaints})", "plug it in, and run the command again")
        devices = self._devices()
        if self._number in devices or any(program in _CAMERA_MODULES for program in programs):
            hint = "list the cameras: ls /dev/video*, rpicam-still --list-cameras"
            return HostError(f"{camera} returns no picture ({complaints})", hint)
        if not devices:
            return HostError(f"{self._where} has no camera: there is no /dev/video* ({complaints})", "plug one in")
        numbers = ", ".join(map(str, devices))
        what = f"{self._where} has no camera {self._number}; its devices are {numbers} ({complaints})"
        return HostError(what, f"pass another one, such as --camera {devices[0]}")

    def _devices(self) -> list[int]:
        """Return the numbers of the machine's V4L2 devices, of which a camera may have several."""
        _, out = self._run("ls -d /dev/video* 2>/dev/null\ntrue")
        names = (name.removeprefix("/dev/video") for name in out.decode("utf-8", "replace").split())
        return sorted(int(name) for name in names if name.isdecimal())

    def _install(self) -> list[str]:
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


def run_on_board(line: SshConnection) -> Run:
    """Return the `Run` for a camera on a board."""
    return lambda script: line.read(script, timeout_s=_FRAME_S)


def run_here(script: str) -> tuple[int, bytes]:
    """The `Run` for a camera on this machine."""
    try:
        done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, timeout=_FRAME_S, check=False)
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {_FRAME_S:g} s".encode()
    return done.returncode, done.stdout
