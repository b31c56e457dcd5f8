"""`edge run --camera`: frames from a board, with stand-ins for the programs that take them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from conftest import edge

from edge.remote.camera import Camera
from runtimes.errors import HostError


@pytest.fixture
def tools(tmp_path):
    """A folder for PATH with what the scripts need, and no program that takes pictures."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("mktemp", "tail", "rm", "cat"):
        (folder / name).symlink_to(shutil.which(name))
    return folder


@pytest.fixture
def jpeg(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "frame.jpg")
    return tmp_path / "frame.jpg"


def program(folder, name, text):
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def camera(tools):
    def run(script):
        done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=False, env={"PATH": str(tools)})
        return done.returncode, done.stdout

    return Camera(run, 2, "nano")


def test_the_programs_are_tried_until_one_gives_a_picture(tools, jpeg, tmp_path):
    program(tools, "ffmpeg", f"echo tried >> {tmp_path}/tried; echo '/dev/video2: No such file' >&2; exit 1")
    program(tools, "rpicam-still", f'echo "$*" > {tmp_path}/asked; cat {jpeg}')
    seen = camera(tools)
    assert seen.frame() == seen.frame() == jpeg.read_bytes()
    assert (tmp_path / "tried").read_text().split() == ["tried"]  # the second frame goes the way that was found
    assert "--camera 2" in (tmp_path / "asked").read_text()


def test_a_program_that_hangs_is_ended_and_the_next_one_tried(tools, jpeg, monkeypatch):
    monkeypatch.setattr("edge.remote.camera._PROGRAM_S", 5)
    for name in ("timeout", "sleep"):
        (tools / name).symlink_to(shutil.which(name))
    program(tools, "ffmpeg", "exec sleep 60")
    program(tools, "rpicam-still", f"cat {jpeg}")
    assert camera(tools).frame() == jpeg.read_bytes()


def test_a_board_without_any_of_them_says_what_to_install(tools):
    with pytest.raises(HostError, match="nano has no program that takes a picture") as caught:
        camera(tools).frame()
    assert "apt-get install ffmpeg" in caught.value.hint


def test_what_each_program_complained_of_is_reported(tools):
    program(tools, "ffmpeg", "echo 'ignored' >&2; echo '/dev/video2: Device or resource busy' >&2; exit 1")
    program(tools, "v4l2-ctl", "echo no jpeg at all")
    with pytest.raises(HostError, match="camera 2 of nano returns no picture") as caught:
        camera(tools).frame()
    assert "ffmpeg: /dev/video2: Device or resource busy" in caught.value.message
    assert "v4l2-ctl: no jpeg at all" in caught.value.message


@pytest.mark.data
def test_frames_are_classified_on_the_board(boards, installed, tools, jpeg, data):
    program(tools, "ffmpeg", f"cat {jpeg}")
    board = boards("pi", engines=installed, environment={"PATH": f"{tools}:{os.environ['PATH']}"})
    model = data / "edgetpu" / "mobilenet_v1_0.25_128_quant.tflite"
    done = edge("run", model, "--on", "pi", "--camera", "0", "--frames", "2", "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    (here,) = json.loads(edge("run", model, jpeg, "--json").stdout)
    assert first["top"] == second["top"] == here["top"]
    assert (first["picture"], second["picture"]) == ("camera-0-frame-1.jpg", "camera-0-frame-2.jpg")
    assert first["latency_ms"] > 0
    assert first["first_ms"] == second["first_ms"]  # the second frame's model was open already
    assert not list((board.home / ".edgeproof").rglob("inputs.npz"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "pass either pictures or --camera"),
        (("a.jpg", "--camera", "0"), "pass either pictures or --camera"),
        (("--camera", "-1"), "there is no camera -1"),
        (("a.jpg", "--frames", "2"), "--frames needs --camera"),
    ],
)
def test_a_wrong_wish_is_one_clear_line(words, said, tmp_path):
    done = edge("run", tmp_path / "m.tflite", *words)
    assert done.returncode == 2
    assert said in done.stderr
