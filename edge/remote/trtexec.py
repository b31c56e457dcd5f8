"""Measure TensorRT on a board with NVIDIA's `trtexec`, if its Python is too old: JetPack 4 has 3.6.

The board builds the engine with the artifact's own `build.sh` and stores it next to the model, under a name derived
from what it depends on: the artifact, TensorRT and CUDA, the board and its system. trtexec then times it with random
inputs and does not return outputs: such a row has times but no answers.

trtexec is killed when stdin ends, so nothing keeps running after we disconnect. If the connection is cut without being
closed, trtexec runs to its end; an engine built meanwhile is reused the next time.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import mean

from edge.benchmark.harness import IsDecided, Measurement, OnProgress, Setup, add_identity, failure, model_sha256
from edge.remote import conditions, packages, power_sensors
from edge.remote.conditions import BoardState
from edge.remote.install import Installer
from edge.remote.power_sensors import PowerReadings
from edge.remote.probe import ROOT, Probe
from edge.remote.ssh import RemoteTimeoutError, SshConnection, quote
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import JsonValue
from runtimes.errors import EdgeError, EngineError, HostError, WorkerTimeoutError
from runtimes.measurement.answer import MeasureAnswer
from runtimes.measurement.operator_times import RUNS, OperatorProfile, OperatorTime

Note = Callable[[str], None]

_BUILD_S = 3600.0  # a Nano takes many minutes for a large network
_MAX_TIMES_BYTES = 64 * 2**20  # size of the JSON: half a million runs
_STEADY_S = 10.0  # maximum; trtexec has no stopping rule
_SCRIPT = "build.sh"
# trtexec's stamp before each line: [11/25/2026-10:00:00] [I]
_STAMP = re.compile(r"^\[[^\]]*\] \[[A-Z]\] ?")
# Its line at the end of the timed loop: Timing trace has 2077 queries over 3.0039 s
_LOOP = re.compile(r"Timing trace has \d+ queries over (\d+(?:\.\d+)?) s")
_FACTS = r"""
echo "os $(. /etc/os-release 2>/dev/null; echo "$PRETTY_NAME")"
echo "cores $(nproc 2>/dev/null)"
{{ dpkg-query -W -f '${{Package}} ${{Version}}\n' 'libnvinfer[0-9]*'
   {trtexec} --help | grep -m 1 RUNNING
   nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader
}} 2>/dev/null | sed 's/^/engine /'
"""
# `kill` must reach `trtexec` itself, so the command is a simple one, without a subshell.
_WATCHED = """
cd {folder} || exit 1
{first}
exec 9>"$HOME/{root}/lock"
if command -v flock >/dev/null; then
  flock -n 9 || {{ echo "another measurement runs on this board; waiting"; flock 9; }}
fi
exec 3<&0
{command} 2>&1 </dev/null 3<&- &
pid=$!
{beside}
(cat <&3; kill "$pid") >/dev/null 2>&1 9>&- &
watch=$!
wait "$pid"
status=$?
kill "$watch" 2>/dev/null
[ "$status" = 0 ] || exit "$status"
{then}
"""


def is_wanted(setup: Setup) -> bool:
    """Return whether the setup runs on TensorRT."""
    try:
        return setup.runtime in (None, "tensorrt") and Artifact.open(setup.artifact).manifest.format == "tensorrt"
    except EdgeError:  # reported in the row of this setup
        return False


def is_needed(found: Probe) -> bool:
    """Return whether the board has trtexec but no Python with TensorRT that could run a worker."""
    python = found.python
    return found.trtexec is not None and (python is None or not packages.has_engine("tensorrt", python))


def measure_all(
    line: SshConnection,
    found: Probe,
    setups: Sequence[Setup],
    rounds: int,
    timeout_s: float | None,
    *,
    on_progress: OnProgress | None,
    is_decided: IsDecided | None,
) -> Iterator[Measurement]:
    """Measure every setup once per round. A setup that fails is not tried again; `is_decided` may end the rounds."""
    tool = _Trtexec(line, found)
    failed: set[str] = set()
    done: list[Measurement] = []
    for number in range(rounds):
        for setup in (one for one in setups if one.id not in failed):
            try:
                digest = model_sha256(setup.artifact)
                note = _note(setup, number, on_progress)
                once = replace(setup, profile=setup.profile and number == 0)
                values = add_identity(setup.artifact, tool.measure(once, timeout_s, note), digest)
            except EdgeError as error:
                failed.add(setup.id)
                values = failure(error)
            done.append(Measurement(setup=setup, round=number, values=values))
            yield done[-1]
        if is_decided is not None and is_decided(done):
            return


def _note(setup: Setup, number: int, on_progress: OnProgress | None) -> Note:
    return lambda text: on_progress(setup, number, text) if on_progress and text else None


class _Trtexec:
    """trtexec on one board, over an open connection."""

    def __init__(self, line: SshConnection, found: Probe) -> None:
        if not found.pythons:
            raise HostError(
                f"{line.host} has no Python, which is needed to receive files", "sudo apt-get install python3"
            )
        self._line, self._found = line, found
        self._program = found.trtexec or ""
        self._installer = Installer(line, found, found.pythons[0])
        self._facts = self._ask()

    def measure(self, setup: Setup, timeout_s: float | None, note: Note) -> MeasureAnswer:
        """Take one measurement, in the format of `runtimes.measurement.tensor_model` as far as trtexec supports it."""
        artifact = Artifact.open(setup.artifact)
        note(f"copying {artifact.path.name}")
        place = "~/" + self._installer.artifact(setup.artifact)
        if artifact.is_bare:  # an engine as it is, built on a board like this
            place, engine = place.rpartition("/")[0], artifact.model.name
        else:
            engine = f"{artifact.model.stem}-{self._key(artifact)}.engine"
            self._build(place, artifact.model.with_suffix(".engine").name, engine, note)
        options, loop, power = _options(setup.protocol), _Loop(), PowerReadings()
        before = self._state()
        samples = self._times(
            place, [f"--loadEngine={engine}", *options], timeout_s, [_progress(note), loop.read_line, power.read_line]
        )
        return {
            **self._row(setup, artifact, before, self._state()),
            "settings": {"trtexec": " ".join(options)},
            "began_at": loop.began,
            **power.energy(loop.began, loop.seconds),
            "samples_ms": samples,
            "warmup_ms": [],
            "total_s": sum(samples) / 1e3,
            **(self._profile(place, engine, timeout_s) if setup.profile else {}),
        }

    def _ask(self) -> dict[str, list[str]]:
        """Return {"os": […], "cores": […], "engine": [lines that name TensorRT, CUDA and the GPU]}."""
        _, text = self._line.run(_FACTS.format(trtexec=quote([self._program])))
        facts: dict[str, list[str]] = {"os": [], "cores": [], "engine": []}
        for entry in text.splitlines():
            key, _, value = entry.partition(" ")
            facts.setdefault(key, []).append(value.strip())
        return facts

    def _state(self) -> BoardState:
        _, text = self._line.run(conditions.script())
        return conditions.read(text, self._found.machine)

    def _key(self, artifact: Artifact) -> str:
        """Hash what an engine depends on. A Jetson's model and Linux release determine its GPU and CUDA."""
        parts = [json.dumps(dict(artifact.manifest.files), sort_keys=True), artifact.manifest.precision]
        parts += [self._found.model or "", self._found.jetson or "", *self._facts["engine"]]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _build(self, place: str, built: str, engine: str, note: Note) -> None:
        """Build the engine unless it exists. It is renamed from `built` when finished, so it is never incomplete."""
        script = _WATCHED.format(
            folder=quote([place]),
            root=ROOT,
            first=f"[ ! -f {quote([engine])} ] || exit 0",
            command=quote(["sh", _SCRIPT]),
            beside="",
            then=f"mv -f {quote([built, engine])}",
        )
        self._run(script, "build the engine", _BUILD_S, [_progress(lambda text: note(f"building: {text}"))])

    def _times(
        self, place: str, options: Sequence[str], timeout_s: float | None, hearers: Sequence[Note]
    ) -> list[float]:
        """Return latencies in ms: input transfer, compute and output transfer, without the time in trtexec's queue."""
        times = f"times-{uuid.uuid4().hex[:12]}.json"
        readings = f"{times}.power"
        script = _WATCHED.format(
            folder=quote([place]),
            root=ROOT,
            first=f"trap 'rm -f {times} {readings}' EXIT\n{power_sensors.function()}",
            command=quote([self._program, *options, f"--exportTimes={times}"]),
            beside=power_sensors.sampling_script(readings),
            then=f"{power_sensors.report_script(readings)}; echo 'edge: times'; head -c {_MAX_TIMES_BYTES} {times}",
        )
        output = self._run(script, "measure", timeout_s or _BUILD_S, hearers)
        return read_times(output.partition("edge: times\n")[2], self._line.host)

    def _profile(self, place: str, engine: str, timeout_s: float | None) -> MeasureAnswer:
        """Run once more with TensorRT's profiler, which slows trtexec down."""
        name = uuid.uuid4().hex[:12]
        times, layers = f"times-{name}.json", f"layers-{name}.json"
        words = [self._program, f"--loadEngine={engine}", f"--iterations={RUNS}", "--duration=0", "--warmUp=200"]
        script = _WATCHED.format(
            folder=quote([place]),
            root=ROOT,
            first=f"trap 'rm -f {times} {layers}' EXIT",
            command=quote([*words, f"--exportTimes={times}", f"--exportProfile={layers}"]),
            beside="",
            then=f"echo 'edge: times'; cat {times}; echo 'edge: layers'; cat {layers}",
        )
        try:
            output = self._run(script, "profile", timeout_s or _BUILD_S, [])
            latencies, _, text = output.partition("edge: times\n")[2].partition("edge: layers\n")
            total_ms = mean(read_times(latencies, self._line.host))
            return {"profile": OperatorProfile(RUNS, total_ms, read_layers(text, self._line.host)).to_json()}
        except EngineError as error:  # the measurement counts all the same
            return {"profile": None, "profile_note": f"{error.message}: {error.hint}"}

    def _run(self, script: str, what: str, timeout_s: float, hearers: Sequence[Note]) -> str:
        def on_line(text: str) -> None:
            for hearer in hearers:
                hearer(text)

        try:
            status, output = self._line.run(script, on_line=on_line, timeout_s=timeout_s)
        except RemoteTimeoutError:
            hint = "allow it more time: --timeout" if timeout_s < _BUILD_S else "choose a smaller model"
            raise WorkerTimeoutError(
                f"trtexec on {self._line.host} did not {what} within {timeout_s:g} s", hint
            ) from None
        if status == 0:
            return output
        errors = [text for text in output.splitlines() if "[E]" in text]
        lines = errors or output.splitlines()[-1:] or ["it gave no reason"]
        error = EngineError(
            f"trtexec on {self._line.host} did not {what} (status {status}): {_STAMP.sub('', lines[0])[:300]}",
            "--debug shows its full output; a swap file helps if memory is short",
        )
        error.add_note(output[-8192:])
        raise error

    def _row(self, setup: Setup, artifact: Artifact, before: BoardState, after: BoardState) -> MeasureAnswer:
        """Return everything in a row except its times."""
        cores = next(iter(self._facts["cores"]), "")
        return {
            "status": "ok",
            "protocol": {"name": "trtexec"},
            "artifact": str(setup.artifact),
            "format": "tensorrt",
            "precision": artifact.manifest.precision,
            "runtime": "tensorrt",
            "runtime_version": release(self._facts["engine"]),
            "threads": None,
            "device": "cuda",
            "machine": {
                "cpu": self._found.machine,
                "logical_cores": int(cores) if cores.isdigit() else None,
                "memory_bytes": before.memory_bytes,
                "os": next(iter(self._facts["os"]), None),
                "python": None,
                "board": self._found.model,
                "emulated": before.emulated,
            },
            "input": {"kind": "trtexec", "sha256": None},
            "output": {"name": None, "kind": None},
            "conditions": {"before": before.conditions, "after": after.conditions},
            "top": [],
            "raw": None,
        }


def _progress(note: Note) -> Note:
    """Return a function that passes the lines worth showing on to `note`."""

    def on_line(text: str) -> None:
        if _STAMP.match(text) or text.startswith("another measurement"):
            note(_STAMP.sub("", text)[:200])

    return on_line


class _Loop:
    """The start of trtexec's timed loop, on this machine's clock, and its seconds; trtexec reports them at its end."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.seconds: float | None = None

    def read_line(self, text: str) -> None:
        match = _LOOP.match(_STAMP.sub("", text))
        if match:
            self.seconds = float(match.group(1))
            self.began = time.time() - self.seconds


def read_times(text: str, host: str) -> list[float]:
    """Parse the output of `--exportTimes`, a list with one object per run. Raises EngineError for anything else."""
    try:
        samples = [float(one["latencyMs"]) for one in json.loads(text)]
    except (ValueError, TypeError, KeyError, RecursionError):
        samples = []
    if not samples or not all(0 <= sample < float("inf") for sample in samples):
        raise EngineError(f"trtexec on {host} wrote no times", "--debug shows its full output")
    return samples


def read_layers(text: str, host: str) -> list[OperatorTime]:
    """Parse the output of `--exportProfile`: the number of runs, then an object for each layer of the engine.

    Written by `Profiler::exportJSONProfile` in samples/common/sampleReporting.cpp of github.com/NVIDIA/TensorRT.
    """
    try:
        layers = [one for one in json.loads(text) if "name" in one]
        found = [
            OperatorTime(name=str(one["name"]), type="", placement="GPU", ms=float(one["averageMs"])) for one in layers
        ]
    except (ValueError, TypeError, KeyError, RecursionError):
        found = []
    if not found:
        raise EngineError(f"trtexec on {host} wrote no times of layers", "--debug shows its full output")
    return found


def _options(protocol: Mapping[str, JsonValue]) -> list[str]:
    """Return the options of trtexec that are closest to the protocol."""
    if protocol.get("name") == "published":
        return [f"--iterations={protocol.get('runs') or 250}", "--duration=0", "--warmUp=1000"]
    seconds = min(_STEADY_S, float(str(protocol.get("max_s") or _STEADY_S)))
    return [f"--iterations={protocol.get('min_runs') or 130}", f"--duration={max(1, round(seconds))}", "--warmUp=1000"]


def release(lines: Sequence[str]) -> str | None:
    """Return TensorRT's release, from its package (8.2.1-1+cuda10.2) or from trtexec's output ([TensorRT v8201])."""
    for text in lines:
        match = re.match(r"libnvinfer\d+ (\d+(?:\.\d+)+)", text)
        if match:
            return match.group(1)
    number = next((int(found) for found in re.findall(r"TensorRT v(\d+)", " ".join(lines))), None)
    if number is None:
        return None
    major, rest = divmod(number, 1000 if number < 10000 else 10000)
    return f"{major}.{rest // 100}.{rest % 100}"
