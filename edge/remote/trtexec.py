"""TensorRT on a board through NVIDIA's `trtexec`, where no Python there can do it: that of JetPack 4 is 3.6.

The board builds the engine by the artifact's own `build.sh` and keeps it beside the model, under a name made of what
it depends on: the artifact, TensorRT and CUDA, the board and its system. trtexec then times it, with random
inputs, and says nothing of what came out: such a row has times, and no answers.

Whoever leaves ends what he began there: trtexec is killed when stdin ends. A line that is cut, not closed, lets it
end by itself; an engine that was built meanwhile is there the next time.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edge.bench.harness import Measurement, OnProgress, Setup, failure
from edge.remote import engines, ina
from edge.remote.ina import Power
from edge.remote.install import Installer
from edge.remote.ssh import Line, NoAnswer, quoted
from edge.remote.survey import ROOT, Survey
from edge.workers import TimedOut
from runtimes.artifact import Artifact
from runtimes.errors import EdgeError, EngineError, HostError

Note = Callable[[str], None]

_BUILD_S = 3600.0  # a Nano takes many minutes for a large network
_MOST = 64 * 2**20  # of times as JSON: half a million runs
_STEADY_S = 10.0  # at most; trtexec has no rule by which it ends
_SCRIPT = "build.sh"
# trtexec's stamp before each line: [11/25/2026-10:00:00] [I]
_STAMP = re.compile(r"^\[[^\]]*\] \[[A-Z]\] ?")
# What it says as soon as the timed loop is over: Timing trace has 2077 queries over 3.0039 s
_LOOP = re.compile(r"Timing trace has \d+ queries over (\d+(?:\.\d+)?) s")
_FACTS = r"""
echo "os $(. /etc/os-release 2>/dev/null; echo "$PRETTY_NAME")"
echo "cores $(nproc 2>/dev/null)"
{{ dpkg-query -W -f '${{Package}} ${{Version}}\n' 'libnvinfer[0-9]*'
   {trtexec} --help | grep -m 1 RUNNING
   nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader
}} 2>/dev/null | sed 's/^/engine /'
"""
# `trtexec` must be the very process that `kill` ends, so the command is a simple one.
_WATCHED = """
cd {folder} || exit 1
{first}
exec 9>"$HOME/{root}/lock"
if command -v flock >/dev/null; then
  flock -n 9 || {{ echo "somebody else measures on this board; waiting"; flock 9; }}
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
    """Whether the setup is one that TensorRT is to run."""
    try:
        return setup.runtime in (None, "tensorrt") and Artifact.open(setup.artifact).manifest.format == "tensorrt"
    except EdgeError:  # the row that it becomes says why
        return False


def is_needed(found: Survey) -> bool:
    """Whether the board has trtexec, and no Python with TensorRT that could run a worker."""
    python = found.python
    return found.trtexec is not None and (python is None or not engines.is_there("tensorrt", python))


def measure_all(
    line: Line,
    found: Survey,
    setups: Sequence[Setup],
    rounds: int,
    timeout_s: float | None,
    on_progress: OnProgress | None,
) -> Iterator[Measurement]:
    """Measure every setup once a round; a setup that fails is not tried again."""
    tool = _Trtexec(line, found)
    failed: set[str] = set()
    for number in range(rounds):
        for setup in (one for one in setups if one.id not in failed):
            try:
                values = tool.measured(setup, timeout_s, _note(setup, number, on_progress))
            except EdgeError as error:
                failed.add(setup.id)
                values = failure(error)
            yield Measurement(setup, number, values)


def _note(setup: Setup, number: int, on_progress: OnProgress | None) -> Note:
    return lambda text: on_progress(setup, number, text) if on_progress and text else None


class _Trtexec:
    """The tool on one board, at the other end of an open line."""

    def __init__(self, line: Line, found: Survey) -> None:
        if not found.pythons:
            raise HostError(f"{line.host} has no Python, which receives what is sent", "sudo apt-get install python3")
        self._line, self._found = line, found
        self._program = found.trtexec or ""
        self._installer = Installer(line, found, found.pythons[0])
        self._facts = self._ask()

    def measured(self, setup: Setup, timeout_s: float | None, note: Note) -> dict[str, Any]:
        """One measurement as `runtimes.measure` answers it, as far as trtexec tells it."""
        artifact = Artifact.open(setup.artifact)
        note(f"copying {artifact.path.name}")
        place = "~/" + self._installer.artifact(setup.artifact)
        if artifact.is_bare:  # an engine as it is, built on a board like this
            place, engine = place.rpartition("/")[0], artifact.model.name
        else:
            engine = f"{artifact.model.stem}-{self._key(artifact)}.engine"
            self._build(place, artifact.model.with_suffix(".engine").name, engine, note)
        options, loop, power = _options(setup.protocol), _Loop(), Power()
        samples = self._times(
            place, [f"--loadEngine={engine}", *options], timeout_s, [_progress(note), loop.hear, power.hear]
        )
        told = {"settings": {"trtexec": " ".join(options)}, "began_at": loop.began}
        energy = power.told(loop.began, loop.seconds)
        return {**self._told(setup, artifact), **told, **energy, **_statistics(samples)}

    def _ask(self) -> dict[str, list[str]]:
        """{"os": […], "cores": […], "engine": [lines that name TensorRT, CUDA and the GPU]}."""
        _, text = self._line.run(_FACTS.format(trtexec=quoted([self._program])))
        facts: dict[str, list[str]] = {"os": [], "cores": [], "engine": []}
        for entry in text.splitlines():
            key, _, value = entry.partition(" ")
            facts.setdefault(key, []).append(value.strip())
        return facts

    def _key(self, artifact: Artifact) -> str:
        """What an engine depends on. Of a Jetson, its model and its release of Linux tell the GPU and CUDA."""
        parts = [json.dumps(dict(artifact.manifest.files), sort_keys=True), artifact.manifest.precision]
        parts += [self._found.model or "", self._found.jetson or "", *self._facts["engine"]]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _build(self, place: str, made: str, engine: str, note: Note) -> None:
        """Have the engine there; whole or not at all, as it gets its name when it is finished."""
        script = _WATCHED.format(
            folder=quoted([place]),
            root=ROOT,
            first=f"[ ! -f {quoted([engine])} ] || exit 0",
            command=quoted(["sh", _SCRIPT]),
            beside="",
            then=f"mv -f {quoted([made, engine])}",
        )
        self._run(script, "build the engine", _BUILD_S, [_progress(lambda text: note(f"building: {text}"))])

    def _times(
        self, place: str, options: Sequence[str], timeout_s: float | None, hearers: Sequence[Note]
    ) -> list[float]:
        """Latencies in ms: input to the GPU, computing, output from it. trtexec leaves waiting in its queue out."""
        times = f"times-{uuid.uuid4().hex[:12]}.json"
        readings = f"{times}.power"
        script = _WATCHED.format(
            folder=quoted([place]),
            root=ROOT,
            first=f"trap 'rm -f {times} {readings}' EXIT\n{ina.function()}",
            command=quoted([self._program, *options, f"--exportTimes={times}"]),
            beside=ina.sampling(readings),
            then=f"{ina.telling(readings)}; echo 'edge: times'; head -c {_MOST} {times}",
        )
        said = self._run(script, "measure", timeout_s or _BUILD_S, hearers)
        return read_times(said.partition("edge: times\n")[2], self._line.host)

    def _run(self, script: str, what: str, timeout_s: float, hearers: Sequence[Note]) -> str:
        def hear(text: str) -> None:
            for hearer in hearers:
                hearer(text)

        try:
            status, said = self._line.run(script, hear=hear, timeout_s=timeout_s)
        except NoAnswer:
            hint = "allow it more time: --timeout" if timeout_s < _BUILD_S else "choose a smaller model"
            raise TimedOut(f"trtexec on {self._line.host} did not {what} within {timeout_s:g} s", hint) from None
        if status == 0:
            return said
        lines = [text for text in said.splitlines() if "[E]" in text] or said.splitlines()[-1:] or ["it said nothing"]
        error = EngineError(
            f"trtexec on {self._line.host} did not {what} (status {status}): {_STAMP.sub('', lines[0])[:300]}",
            "see all that it said with --debug; a swap file helps where memory is short",
        )
        error.add_note(said[-8192:])
        raise error

    def _told(self, setup: Setup, artifact: Artifact) -> dict[str, Any]:
        """All that a row says beside its times."""
        unknown = {"governor": None, "throttling": None, "temperature_c": None, "load_average": None}
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
                "memory_bytes": None,
                "os": next(iter(self._facts["os"]), None),
                "python": None,
                "board": self._found.model,
                "emulated": False,
            },
            "input": {"kind": "trtexec", "sha256": None},
            "output": {"name": None, "kind": None},
            "conditions": {"before": unknown, "after": unknown},
            "top": [],
            "raw": None,
        }


def _progress(note: Note) -> Note:
    """What of a script's lines people are told."""

    def hear(text: str) -> None:
        if _STAMP.match(text) or text.startswith("somebody else"):
            note(_STAMP.sub("", text)[:200])

    return hear


class _Loop:
    """When trtexec's timed loop began by this machine's clock, and its seconds: it is told when it is over."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.seconds: float | None = None

    def hear(self, text: str) -> None:
        told = _LOOP.match(_STAMP.sub("", text))
        if told:
            self.seconds = float(told.group(1))
            self.began = time.time() - self.seconds


def read_times(text: str, host: str) -> list[float]:
    """The samples in what `--exportTimes` wrote: a list of objects, one for each run; EngineError for anything else."""
    try:
        samples = [float(one["latencyMs"]) for one in json.loads(text)]
    except (ValueError, TypeError, KeyError, RecursionError):
        samples = []
    if not samples or not all(0 <= sample < float("inf") for sample in samples):
        raise EngineError(f"trtexec on {host} wrote no times", "see all that it said with --debug")
    return samples


def _options(protocol: Mapping[str, Any]) -> list[str]:
    """As near to the protocol as trtexec comes."""
    if protocol.get("name") == "published":
        return [f"--iterations={protocol.get('runs') or 250}", "--duration=0", "--warmUp=1000"]
    seconds = min(_STEADY_S, float(protocol.get("max_s") or _STEADY_S))
    return [f"--iterations={protocol.get('min_runs') or 130}", f"--duration={max(1, round(seconds))}", "--warmUp=1000"]


def _statistics(samples: list[float]) -> dict[str, Any]:
    return {"samples_ms": samples, "warmup_ms": [], "total_s": sum(samples) / 1e3}


def release(lines: Sequence[str]) -> str | None:
    """TensorRT's release: as its package has it (8.2.1-1+cuda10.2), else as trtexec says it ([TensorRT v8201])."""
    for text in lines:
        match = re.match(r"libnvinfer\d+ (\d+(?:\.\d+)+)", text)
        if match:
            return match.group(1)
    number = next((int(found) for found in re.findall(r"TensorRT v(\d+)", " ".join(lines))), None)
    if number is None:
        return None
    major, rest = divmod(number, 1000 if number < 10000 else 10000)
    return f"{major}.{rest // 100}.{rest % 100}"
