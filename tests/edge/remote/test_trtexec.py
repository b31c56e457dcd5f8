"""A Jetson whose Python cannot run a worker: its `trtexec`, a stand-in here, builds the engine and measures."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import edge

from converters.onnx_to_tensorrt import script
from converters.tensorrt.releases import Release
from edge.benchmark import Setup
from edge.remote import power_sensors, trtexec
from edge.remote.board import Board
from edge.remote.fleet import measure_on
from edge.remote.power_sensors import PowerReadings
from edge.remote.probe import Probe, Python
from runtimes import artifact as artifacts
from runtimes.artifact import Manifest
from runtimes.errors import EngineError

# What trtexec of TensorRT 8.2 prints and writes, shortened.
STAND_IN = r"""#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # $0 $*"
[ "$1" != --help ] || exit 0
echo "$*" >> "$HOME/trtexec.log"
last() {
  trap 'touch "$HOME/ended"; exit 1' TERM
  touch "$HOME/begun"
  sleep 300 &
  wait
}
for word in "$@"; do
  case "$word" in
    --onnx=*) model=${word#*=} ;;
    --saveEngine=*) saved=${word#*=} ;;
    --loadEngine=*) loaded=${word#*=} ;;
    --exportTimes=*) times=${word#*=} ;;
    --exportProfile=*) layers=${word#*=} ;;
  esac
done
echo "[11/25/2026-10:00:00] [I] === Device Information ==="
echo "[11/25/2026-10:00:00] [I] Compute Capability: 5.3"
if [ -n "$saved" ]; then
  if grep -q broken "$model"; then
    echo "[11/25/2026-10:00:01] [E] Failed to parse onnx file"
    echo "&&&& FAILED TensorRT.trtexec [TensorRT v8201] # $0 $*"
    exit 1
  fi
  if grep -q endless "$model"; then last; fi
  echo "[11/25/2026-10:00:01] [I] [TRT] Some tactics do not have sufficient workspace memory to run." >&2
  echo engine > "$saved"
fi
if [ -n "$loaded" ]; then
  if grep -q endless "$loaded"; then last; fi
  [ -f "$loaded" ] || { echo "[11/25/2026-10:00:01] [E] Error opening engine file: $loaded"; exit 1; }
  echo '[' > "$times"
  separator=' '
  for latency in 14.25 13.75 14.5 14; do
    echo "$separator{ \"startEnqMs\" : 1.5, \"endEnqMs\" : 2, \"startH2dMs\" : 1, \"endH2dMs\" : 1.25" >> "$times"
    echo ", \"h2dMs\" : 0.25, \"computeMs\" : 13, \"d2hMs\" : 0.5, \"latencyMs\" : $latency }" >> "$times"
    separator=', '
  done
  echo ']' >> "$times"
  if [ -n "$layers" ]; then
    echo '[' > "$layers"
    echo '  { "count" : 30 }' >> "$layers"
    echo ', { "name" : "Conv_0 + PWN(Clip_3)", "timeMs" : 180, "averageMs" : 6, "medianMs" : 6, "percentage" : 60 }' \
      >> "$layers"
    echo ', { "name" : "Conv_8", "timeMs" : 120, "averageMs" : 4, "medianMs" : 4, "percentage" : 40 }' >> "$layers"
    echo ']' >> "$layers"
  fi
  echo "[11/25/2026-10:00:01] [I] Starting inference"
  sleep 1
  echo "[11/25/2026-10:00:02] [I] Warmup completed 70 queries over 1000 ms"
  echo "[11/25/2026-10:00:02] [I] Timing trace has 4 queries over 0.25 s"
fi
echo "&&&& PASSED TensorRT.trtexec [TensorRT v8201] # $0 $*"
"""
# A Python that says it is JetPack 4's; it runs what stands alone, as that one does.
PYTHON_36 = """#!/bin/sh
case "$2" in
  *confstr*) echo 'python {"version": [3, 6, 9], "path": "'"$0"'", "bits": 64, "modules": [], "libc": "glibc 2.27"}' ;;
  *) exec REAL "$@" ;;
esac
"""
TOOLS = (
    *("sh", "uname", "readlink", "tr", "head", "tail", "df", "nproc", "grep", "sed", "mv", "rm", "cat", "flock"),
    *("dirname", "mkdir", "cp", "env", "sleep", "touch", "date"),
)


@pytest.fixture
def jetson(boards, tmp_path):
    """A board whose PATH holds few tools, JetPack 4's Python, and trtexec."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name))
    program(tools / "trtexec", STAND_IN)
    program(tools / "python3", PYTHON_36.replace("REAL", sys.executable))
    return boards("nano", environment={"PATH": str(tools)})


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def prepared(tmp_path):
    """What `edge convert --for jetson-nano` writes."""
    return make(tmp_path / "net-tensorrt", b"onnx")


def make(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "net.onnx").write_bytes(content)
    (folder / "build.sh").write_text(script("net.onnx", Release.read("8.2"), "fp16", None))
    artifacts.write(folder, Manifest("net", "tensorrt", "fp16", "net.onnx"), {}, {})
    return folder


def calls(board) -> list[str]:
    log = board.home / "trtexec.log"
    return log.read_text().splitlines() if log.exists() else []


def test_the_board_builds_once_and_its_times_are_rows(jetson, prepared):
    words = ("bench", prepared, "--on", "nano", "--protocol", "published", "--runs", "4", "--json")
    done = edge(*words)
    (row,) = json.loads(done.stdout)
    assert row["status"] == "ok", done.stderr
    assert row["samples_ms"] == [14.25, 13.75, 14.5, 14.0] * 2
    assert (row["runtime"], row["runtime_version"], row["precision"]) == ("tensorrt", "8.2.1", "fp16")
    assert (row["input"]["kind"], row["top"], row["raw"], row["first_ms"]) == ("trtexec", [], None, None)
    around = [part["conditions"] for part in row["rounds"]]
    assert all(one["load_average"] is not None for both in around for one in both.values())  # of this machine's /proc
    assert row["machine"]["memory_bytes"] > 0
    build, *measured = calls(jetson)
    assert "--onnx=net.onnx --saveEngine=net.engine --fp16" in build
    assert [one.split()[1:3] for one in measured] == [["--iterations=4", "--duration=0"]] * 2
    (engine,) = (jetson.home / ".edgeproof").rglob("*.engine")
    assert engine.name.startswith("net-")
    assert not list((jetson.home / ".edgeproof").rglob("times-*"))
    edge(*words)
    assert sum("--saveEngine" in one for one in calls(jetson)) == 1


def test_layers_are_timed_by_trtexecs_profiler_in_a_run_of_its_own(jetson, prepared):
    found = edge("bench", prepared, "--on", "nano", "--profile", "--rounds", "2", "--json")
    assert found.stdout, found.stderr
    (row,) = json.loads(found.stdout)
    profile = row["profile"]
    assert [(one["name"], one["ms"]) for one in profile["operators"]] == [("Conv_0 + PWN(Clip_3)", 6), ("Conv_8", 4)]
    assert (profile["total_ms"], profile["outside_ms"]) == (14.125, 4.125)
    runs = calls(jetson)
    assert ["--exportProfile" in one for one in runs if "--loadEngine" in one] == [False, True, False]


@pytest.mark.parametrize("text", ["", "[]", '[{"count" : 30}]', '[{"name" : "a"}]', "[[", "3"])
def test_what_are_no_layers_is_an_error(text):
    with pytest.raises(EngineError, match="wrote no times of layers"):
        trtexec.read_layers(text, "nano")


# From a published log of TensorRT 8: the count of runs, and layers of which some take no time.
PUBLISHED = """[
  { "count" : 625 }
, { "name" : "Reformatting CopyNode for Input Tensor 0 to Conv_0 + PWN(Clip_3)", "timeMs" : 36.6844, "averageMs" : \
0.058695, "percentage" : 1.20497 }
, { "name" : "Reformatting CopyNode for Input Tensor 0 to Conv_8", "timeMs" : 0, "averageMs" : 0, "percentage" : 0 }
]
"""


def test_a_published_profile_is_read():
    first, second = trtexec.read_layers(PUBLISHED, "nano")
    assert (first.name[:20], first.ms, second.ms) == ("Reformatting CopyNod", 0.058695, 0)


def test_an_engine_that_was_built_already_is_loaded_as_it_is(jetson, tmp_path):
    (tmp_path / "net.engine").write_bytes(b"engine")
    done = edge("bench", tmp_path / "net.engine", "--on", "nano", "--protocol", "published", "--runs", "4", "--json")
    (row,) = json.loads(done.stdout)
    assert row["status"] == "ok", done.stderr
    assert row["samples_ms"] == [14.25, 13.75, 14.5, 14.0] * 2
    assert not any("--saveEngine" in one for one in calls(jetson))


def test_people_are_told_whose_times_these_are(jetson, prepared):
    done = edge("bench", prepared, "--on", "nano", "--rounds", "1")
    assert "from trtexec, which also took the times" in done.stdout
    assert "energy is not measured" in done.stdout
    assert "building: === Device Information ===" in done.stderr or "measuring" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_meter_between_supply_and_board_measures_trtexecs_loop(jetson, prepared, tmp_path):
    now = time.time()
    meter = tmp_path / "meter.csv"
    meter.write_text(f"time,watts\n{now - 1},4\n{now + 3600},4\n")
    done = edge("bench", prepared, "--on", "nano", "--protocol", "published", "--energy-csv", meter, "--json")
    (row,) = json.loads(done.stdout)
    assert row["energy_per_run_j"] == pytest.approx(4 * (14.25 + 13.75 + 14.5 + 14) / 4 / 1000, rel=1e-3)
    assert (row["energy_source"], row["energy_note"]) == ("meter: meter.csv", None)
    assert all(now < part["began_at"] < time.time() for part in row["rounds"])


def test_the_boards_own_sensors_measure_trtexecs_loop(jetson, prepared, tmp_path, monkeypatch):
    rails = {"0": ("POM_5V_IN", 4500), "1": ("POM_5V_GPU", 1500), "2": ("POM_5V_CPU", 800)}
    sensor = tmp_path / "ina3221x/6-0040/iio:device0"
    sensor.mkdir(parents=True)
    for number, (name, mw) in rails.items():
        (sensor / f"rail_name_{number}").write_text(f"{name}\n")
        (sensor / f"in_power{number}_input").write_text(f"{mw}\n")
    monkeypatch.setattr(power_sensors, "_SENSORS", str(tmp_path / "ina3221x"))
    setup = Setup(id="m", title="m", artifact=prepared, protocol={"name": "published", "runs": 4}, host="nano")
    (one,) = measure_on({"nano": Board("nano")}, {"nano": [setup]}, rounds=1)
    assert one.values["status"] == "ok"
    assert one.values["energy_j"] == pytest.approx(4.5 * 0.25, rel=1e-3)  # the loop lasted 0.25 s, says the stand-in
    assert one.values["energy_source"] == "ina: POM_5V_IN"  # the others lie behind it
    assert one.values["samples_ms"] == [14.25, 13.75, 14.5, 14.0]
    assert not list((jetson.home / ".edgeproof").rglob("times-*"))


def test_a_sensor_that_stops_sending_is_reported():
    power = PowerReadings()
    for line in ("edge: power", "100.0 A=1000 B=500", "101.0 A=1000", "now 101.5"):
        power.read_line(line)
    assert power.energy(time.time() - 1.4, 0.8)["energy_note"] == "the board's power sensors stopped reporting"
    silent = PowerReadings()
    silent.read_line("100.0 A=1000")  # before the mark: trtexec's
    assert "no INA sensor" in silent.energy(1.0, 1.0)["energy_note"]


def test_a_loop_that_is_reported_late_is_measured():
    power = PowerReadings()
    heard = time.time()
    for line in ("edge: power", "100.0 A=2000", "101.0 A=2000", "101.9 A=2000", "now 102.0"):
        power.read_line(line)  # with the line of the loop's end, all at once: the last reading seems to be before it
    assert power.energy(heard - 0.5, 0.5)["energy_j"] == pytest.approx(1.0)


def test_a_build_that_fails_is_a_row_with_trtexecs_reason(jetson, tmp_path):
    model = make(tmp_path / "broken-tensorrt", b"broken")
    done = edge("bench", model, "--on", "nano", "--json")
    (row,) = json.loads(done.stdout)
    assert (row["status"], done.returncode) == ("engine failed", 4)
    assert "did not build the engine (status 1): Failed to parse onnx file" in row["message"]
    assert not list((jetson.home / ".edgeproof").rglob("*.engine"))


def test_a_build_ends_when_we_leave(jetson, tmp_path):
    model = make(tmp_path / "endless-tensorrt", b"endless")
    board = Board("nano")
    setup = Setup(id="m", title="m", artifact=model, host="nano")

    def leave():
        assert appears(jetson.home / "begun")
        board.give_up()

    thread = threading.Thread(target=leave)
    thread.start()
    (one,) = measure_on({"nano": board}, {"nano": [setup]}, rounds=1)
    thread.join()
    assert one.values["status"] == "host failed"
    assert appears(jetson.home / "ended")


def test_a_measurement_that_runs_out_of_its_time_is_ended_and_reported(jetson, tmp_path):
    (tmp_path / "endless.engine").write_bytes(b"endless")
    done = edge("bench", tmp_path / "endless.engine", "--on", "nano", "--timeout", "10", "--json")
    (row,) = json.loads(done.stdout)
    assert (row["status"], done.returncode) == ("timeout", 8)
    assert row["message"] == "trtexec on nano did not measure within 10 s"
    assert appears(jetson.home / "ended")


def appears(path: Path) -> bool:
    for _ in range(600):
        if path.exists():
            return True
        time.sleep(0.1)
    return False


def test_a_board_that_has_tensorrt_for_its_python_uses_that():
    def found(version, modules, path="/usr/src/tensorrt/bin/trtexec"):
        python = Python(
            version=version, path="/usr/bin/python3", bits=64, modules=frozenset(modules), libc="glibc 2.27"
        )
        return Probe(
            machine="aarch64",
            home="/home/nano",
            model="NVIDIA Jetson Nano",
            jetson="# R32",
            pythons=(python,),
            trtexec=path,
            free_bytes=None,
            have=frozenset(),
        )

    assert trtexec.is_needed(found((3, 6, 9), ["numpy", "tensorrt"]))
    assert trtexec.is_needed(found((3, 8, 10), ["numpy"]))
    assert not trtexec.is_needed(found((3, 10, 12), ["numpy", "tensorrt"]))
    assert not trtexec.is_needed(found((3, 6, 9), [], path=None))


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1]", '[{"computeMs": 1}]', '[{"latencyMs": -1}]'])
def test_what_are_no_times_is_an_error(text):
    with pytest.raises(EngineError, match="wrote no times"):
        trtexec.read_times(text, "nano")


@pytest.mark.parametrize(
    ("lines", "release"),
    [
        (["libnvinfer-bin 8.5.2-1", "libnvinfer8 8.2.1-1+cuda10.2"], "8.2.1"),
        (["&&&& RUNNING TensorRT.trtexec [TensorRT v8001] # trtexec --help"], "8.0.1"),
        (["&&&& RUNNING TensorRT.trtexec [TensorRT v100300] [b0] # trtexec --help"], "10.3.0"),
        (["Orin, 8.7, 540.3.0"], None),
    ],
)
def test_the_release_is_read_from_the_package_or_from_trtexec(lines, release):
    assert trtexec.release(lines) == release


def test_another_release_or_board_has_another_engine(prepared):
    class Line:
        host = "nano"

        def __init__(self, package):
            self.package = package

        def run(self, _script):
            return 0, f"os Ubuntu 18.04.6 LTS\ncores 4\nengine {self.package}\n"

    def key(model, package):
        python = Python(version=(3, 6, 9), path="python3", bits=64, modules=frozenset(), libc=None)
        board = Probe(
            machine="aarch64",
            home="/home/nano",
            model=model,
            jetson="# R32",
            pythons=(python,),
            trtexec="trtexec",
            free_bytes=None,
            have=frozenset(),
        )
        return trtexec._Trtexec(Line(package), board)._key(artifacts.Artifact.open(prepared))

    asked = [("Nano", "libnvinfer8 8.2.1"), ("Nano", "libnvinfer8 8.0.1"), ("TX2", "libnvinfer8 8.2.1")]
    assert len({key(*one) for one in asked}) == 3
    assert key(*asked[0]) == key(*asked[0])
