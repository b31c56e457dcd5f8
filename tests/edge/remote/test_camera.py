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
from tests.edge.inference.test_detection import yolo as detector


@pytest.fixture
def tools(tmp_path):
    """A folder for PATH with what the scripts need, and no program that takes pictures."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("mktemp", "tail", "rm", "cat", "ls"):
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


def camera(tools, number=2, devices=None):
    """A camera whose machine has these programs, and the devices `video0`, ... of a folder."""

    def run(script):
        there = script.replace("/dev/video*", f"{devices}/video*")
        done = subprocess.run(["/bin/sh", "-c", there], capture_output=True, check=False, env={"PATH": str(tools)})
        return done.returncode, done.stdout.replace(f"{devices}/".encode(), b"/dev/")

    return Camera(run, number, "nano")


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
    with pytest.raises(HostError, match="camera 2 of nano is in use by another program") as caught:
        camera(tools).frame()
    assert "ffmpeg: /dev/video2: Device or resource busy" in caught.value.message
    assert "v4l2-ctl: no jpeg at all" in caught.value.message


@pytest.mark.parametrize(
    ("devices", "complaint", "words", "hint"),
    [
        ((), "/dev/video2: No such file or directory", "nano has no camera: there is no /dev/video*", "plug one in"),
        ((0, 10), "/dev/video2: No such file", "nano has no camera 2; its devices are 0, 10", "such as --camera 0"),
        ((2,), "Device or resource busy", "camera 2 of nano is in use by another program", "fuser /dev/video2"),
        ((2,), "/dev/video2: Permission denied", "camera 2 of nano may not be opened by this user", "-aG video"),
        ((2,), "Inappropriate ioctl for device", "camera 2 of nano returns no picture", "list the cameras"),
    ],
)
def test_each_state_of_a_camera_is_one_clear_line(tools, tmp_path, devices, complaint, words, hint):
    for number in devices:
        (tmp_path / f"video{number}").touch()
    program(tools, "ffmpeg", f"echo '{complaint}' >&2; exit 1")
    with pytest.raises(HostError) as caught:
        camera(tools, devices=tmp_path).frame()
    assert caught.value.message == f"{words} (ffmpeg: {complaint})"
    assert hint in caught.value.hint


def test_a_camera_module_has_no_device_of_its_number(tools, tmp_path):
    program(tools, "rpicam-still", "echo 'ERROR: *** no cameras available ***' >&2; exit 1")
    with pytest.raises(HostError, match="camera 2 of nano returns no picture") as caught:
        camera(tools, devices=tmp_path).frame()
    assert "no cameras available" in caught.value.message
    assert "rpicam-still --list-cameras" in caught.value.hint


def test_a_camera_that_is_unplugged_is_gone_after_its_frames(tools, jpeg):
    program(tools, "ffmpeg", f"cat {jpeg}")
    seen = camera(tools)
    seen.frame()
    seen.frame()
    program(tools, "ffmpeg", "echo '/dev/video2: No such device' >&2; exit 1")
    with pytest.raises(HostError, match="camera 2 of nano is gone after 2 frames") as caught:
        seen.frame()
    assert "No such device" in caught.value.message


@pytest.fixture
def model(tmp_path):
    return detector(tmp_path / "model.onnx")


def run_camera(tools, model, *words):
    program(tools, "python3", "exit 1")  # without OpenCV
    return edge("run", model, "--camera", "0", *words, PATH=f"{tools}:{os.environ['PATH']}")


def test_the_frames_before_the_camera_was_unplugged_are_printed(tools, jpeg, model, tmp_path):
    once = f"[ -e {tmp_path}/taken ] && echo gone >&2 && exit 1; touch {tmp_path}/taken; cat {jpeg}"
    program(tools, "ffmpeg", once)
    done = run_camera(tools, model, "--frames", "3", "--json", "--draw", tmp_path / "drawn")
    assert done.returncode == 7
    assert [row["input"] for row in json.loads(done.stdout)] == ["camera-0-frame-1.jpg"]
    assert "camera 0 of this machine is gone after 1 frame" in json.loads(done.stderr.splitlines()[-1])["message"]
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["camera-0-frame-1.png"]


def test_a_broken_frame_is_named_and_the_next_one_taken(tools, jpeg, model, tmp_path):
    first = f"[ -e {tmp_path}/taken ] && exec cat {jpeg}; touch {tmp_path}/taken; head -c 300 {jpeg}"
    program(tools, "ffmpeg", first)
    done = run_camera(tools, model, "--frames", "2")
    assert done.returncode == 3
    assert "edge: camera-0-frame-1.jpg cannot be read as a picture" in done.stderr
    assert "camera-0-frame-2.jpg" in done.stdout
    assert "1 of 2 pictures could not be read" in done.stderr


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
