"""`--on HOST` of the commands that describe a machine or classify pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import edge

from edge.doctor import examine_board, snapshot_of_board
from edge.remote.facts import remote_facts
from runtimes.board.report import collect_report
from runtimes.host import conditions, facts

SOUNDS = Path(__file__).parents[1] / "inference"


def test_devices_tells_of_a_board_what_it_tells_of_this_machine(board):
    done = edge("devices", "--on", board.name, "--json")
    told, here = json.loads(done.stdout), json.loads(edge("devices", "--json").stdout)
    assert set(told) == set(here)
    assert told["machine"]["cpu"]["model"] == here["machine"]["cpu"]["model"]
    assert {one["id"] for one in told["engines"] if one["installed"]} == {"edgetpu", "litert", "null"}


def test_looking_leaves_no_trace(boards):
    board = boards()
    remote_facts(board.name)
    assert list(board.home.iterdir()) == []


def test_doctor_names_what_ails_a_board(board):
    done = edge("doctor", "--on", board.name)
    assert "memory available" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.fixture
def told():
    """A healthy board, as it tells of itself."""
    return json.loads(json.dumps(collect_report()))


def found(told):
    return {one.what: one for one in examine_board(snapshot_of_board(told))}


def test_a_stick_on_a_board_needs_its_udev_rule_and_its_library(told):
    stick = {"id": "18d1:9302", "product": None, "speed_mbps": 480.0, "port": "1-1", "node": "/dev/bus/usb/001/002"}
    told["machine"]["accelerators"]["usb"] = [stick, {**stick, "id": "1d6b:0003", "speed_mbps": 5000.0, "node": None}]
    told["writable"] = {stick["node"]: False}
    whats = " ".join(found(told))
    assert "no permission to use /dev/bus/usb/001/002" in whats
    assert "libedgetpu is not installed" in whats
    assert "runs at USB 2 speed" in whats


@pytest.mark.parametrize(
    ("build", "packages", "level"),
    [
        ("16.0", {"ai-edge-litert": "2.3.0"}, "error"),
        ("16.0", {"tflite-runtime": "2.14.0"}, "error"),
        ("16.0", {"tflite-runtime": "2.5.0.post1"}, "ok"),
        ("16.0tf2.17.1-1", {"ai-edge-litert": "2.3.0"}, "ok"),
    ],
)
def test_googles_libedgetpu_fits_the_interpreters_of_its_time(told, build, packages, level):
    told["edgetpu_package"], told["packages"] = build, packages
    (one,) = [one for what, one in found(told).items() if "libedgetpu" in what]
    assert one.level == level


@pytest.mark.parametrize(("version", "level"), [(13, "warning"), (14, "ok"), (None, None)])
def test_the_edge_tpus_runtime_is_compared_with_what_models_ask_for(told, version, level):
    told["edgetpu_runtime"] = version
    assert [one.level for what, one in found(told).items() if "Edge TPU runtime" in what] == ([level] if level else [])


def test_a_jetson_in_a_saving_mode_with_loose_clocks_is_reported(tmp_path, told):
    for name, text in {
        "var/lib/nvpmodel/status": "pmode:0001",
        "sys/class/devfreq/57000000.gpu/min_freq": "76800000",
        "sys/class/devfreq/57000000.gpu/max_freq": "921600000",
        "sys/class/devfreq/57000000.gpu/cur_freq": "76800000",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    told["conditions"] |= {key: conditions(tmp_path)[key] for key in ("power_mode", "gpu_clock")}
    whats = found(told)
    assert whats["the power mode is number 1"].fix.startswith("sudo nvpmodel -m 0")
    assert whats["the GPU's clock moves between 77 and 922 MHz"].fix == "sudo jetson_clocks"


def test_another_processors_program_is_recognized_by_the_kernel(tmp_path):
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    for kernel, emulated in (("x86_64", False), ("aarch64", True)):
        (tmp_path / "proc/sys/kernel/arch").write_text(kernel)
        assert facts(tmp_path)["os"]["emulated"] is emulated


def test_pictures_are_classified_on_a_board_to_the_bit(board, tmp_path, data):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    words = ("run", data / "edgetpu" / "mobilenet_v1_0.25_128_quant.tflite", tmp_path, "--json")
    there, here = edge(*words, "--on", board.name), edge(*words)
    assert (there.returncode, here.returncode) == (3, 3), there.stderr + here.stderr  # for what is no picture
    (far,), (near,) = json.loads(there.stdout), json.loads(here.stdout)
    assert far["top"] == near["top"]
    assert far["raw"] == near["raw"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("model", "given", "task"),
    [
        ("face_detection_short_range.tflite", "face.jpg", "detection"),
        ("movenet_single_pose_lightning_ptq.tflite", "squat.bmp", "pose"),
        ("okay_nabu.tflite", "okay_nabu.wav", "sound"),
    ],
)
def test_every_task_gives_on_a_board_what_it_gives_here(board, tmp_path, data, model, given, task):
    """Pictures are drawn here, whose pixels must be the same; one of the inputs cannot be read."""
    is_sound = given.endswith(".wav")
    source = SOUNDS / given if is_sound else data / "real" / given
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / f"a{source.suffix}").write_bytes(source.read_bytes())
    (tmp_path / "inputs" / f"b{source.suffix}").write_bytes(b"neither picture nor sound")
    found = []
    for place, on in (("here", ()), ("there", ("--on", board.name))):
        drawn = () if is_sound else ("--draw", tmp_path / place)
        done = edge("run", data / "real" / model, tmp_path / "inputs", "--json", *drawn, *on)
        assert done.returncode == 3, done.stderr
        assert "1 of 2" in json.loads(done.stderr.splitlines()[-1])["message"]
        (row,) = json.loads(done.stdout)
        files = () if is_sound else [(one.name, one.read_bytes()) for one in (tmp_path / place).iterdir()]
        found.append((row["task"], row["result"], files))
    assert found[0] == found[1]
    assert found[0][0] == task
    assert found[0][1]
