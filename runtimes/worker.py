"""The child side of a worker process: jobs in, answers out. `python -m runtimes.worker` serves `HANDLERS`.

Everything that touches an engine or a model nobody vouches for happens in such a process, so that a crash
ends the process and not the command. The parent side is `edge.workers`.

    stdin   one JSON object a line: {"job": "describe", "artifact": PATH, ...}; its end ends the process
    stdout  one JSON object a line: any number of {"progress": {...}}, then the answer, or an error as
            `EdgeError.as_dict()` gives it, with the class's name as "kind"
    stderr  whatever engines print, on their stdout too

Every job takes `artifact`, and may take `runtime` (engine id) and `options` {"threads", "device", "settings"}.
The job "run" leaves its model open for the next one, which may ask for the same; every other job finds none open.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, TextIO

import numpy as np

from runtimes.arrays import Arrays, load_arrays
from runtimes.artifact import Artifact
from runtimes.errors import EdgeError, InputError, UsageError, WorkerError, first_line
from runtimes.open_model import OpenModel, WarmModel
from runtimes.registry import for_format
from runtimes.session import RunOptions, Runtime, Session

Job = Mapping[str, Any]
Report = Callable[[Mapping[str, Any]], None]
Handler = Callable[[Job, Report], Dict[str, Any]]

_OPEN = OpenModel()  # of this process: what "run" has opened


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer jobs until stdin ends. A handler takes the job and `report`, which sends a progress object."""
    jobs, answers = private_pipes()
    lock = threading.Lock()  # an engine may report from a thread of its own

    def send(answer: str) -> None:
        with lock:
            answers.write(answer + "\n")
            answers.flush()

    def report(progress: Mapping[str, Any]) -> None:
        send(json.dumps({"progress": progress}))

    try:
        for line in jobs:
            send(_answer(handlers, line, report))
    finally:
        _OPEN.close()


def options_of(job: Job, report: Report) -> RunOptions:
    """The job's `options`; what it leaves out is the engine's choice. What the engine is at is reported as a phase."""
    told = job.get("options") or {}
    settings = told.get("settings") or {}
    return RunOptions(told.get("threads"), told.get("device") or "cpu", settings, lambda text: report({"phase": text}))


def engine_of(job: Job) -> tuple[Artifact, Runtime]:
    """The job's artifact, and the engine to open it with."""
    artifact = Artifact.open(Path(job["artifact"]))
    return artifact, for_format(artifact.manifest.format, job.get("runtime"))


def describe(job: Job, report: Report) -> dict[str, Any]:
    """Answers {"runtime", "runtime_version", "inputs", "outputs"}: the specs as in a manifest."""
    artifact, engine = engine_of(job)
    with closing(engine.open(artifact, options_of(job, report))) as session:
        specs = {"inputs": _plain(session.inputs), "outputs": _plain(session.outputs)}
    return {"runtime": engine.id, "runtime_version": engine.version(), **specs}


def run(job: Job, report: Report) -> dict[str, Any]:
    """Run every sample of `inputs` (.npz, stacked) and write the outputs, as the model gives them, to `outputs`.

    Answers {"runtime", "runtime_version", "first_ms", "latency_ms"}: one latency for each sample, of a model that is
    warm, and how long its first inference took when it was opened, in this job or in one before.
    """
    artifact, engine = engine_of(job)
    samples = load_arrays(Path(job["inputs"]))
    with _OPEN.using(artifact, engine, options_of(job, report)) as model:
        outputs, times = _run_samples(model, samples, report)
    save_arrays(Path(job["outputs"]), outputs)
    return {"runtime": engine.id, "runtime_version": engine.version(), **times}


def verify(job: Job, report: Report) -> dict[str, Any]:
    """Hold the artifact against its digests and its self-check.

    Answers {"passed", "metrics", "message", "runtime", "runtime_version"}.
    """
    from runtimes.selfcheck import check

    artifact = Artifact.open(Path(job["artifact"]))
    artifact.verify_digests()
    if artifact.manifest.format == "gguf":
        from runtimes.text_selfcheck import verify_text

        return verify_text(artifact, job.get("runtime"))
    artifact, engine = engine_of(job)
    with closing(engine.open(artifact, options_of(job, report))) as session:
        verdict = check(artifact, session)
    return {
        "passed": verdict.passed,
        "metrics": dict(verdict.metrics),
        "message": verdict.message,
        "runtime": engine.id,
        "runtime_version": engine.version(),
    }


def measure(job: Job, report: Report) -> dict[str, Any]:
    """Time the model as the job's `protocol` says; the answer is described in `runtimes.measure`."""
    from runtimes.measure import measure as measure_job

    return measure_job(job, report)


def measure_text(job: Job, report: Report) -> dict[str, Any]:
    """Time a language model; the answer is described in `runtimes.text_measure`."""
    from runtimes.text_measure import measure_text as measure_job

    return measure_job(job, report)


def bandwidth(job: Job, report: Report) -> dict[str, Any]:
    """How fast this machine reads memory, see `runtimes.text_measure`."""
    from runtimes.text_measure import bandwidth as bandwidth_job

    return bandwidth_job(job, report)


def quantize(job: Job, report: Report) -> dict[str, Any]:
    """Write the GGUF file `artifact` anew as `out` in the type `type`; one progress object for each tensor."""
    from runtimes.llama.quantize import quantize_file

    def on_tensor(done: int, total: int, name: str) -> None:
        report({"doing": name, "done": done, "total": total})

    source, target = Path(job["artifact"]), Path(job["out"])
    quantize_file(source, target, job["type"], job.get("threads"), bool(job.get("again")), on_tensor)
    return {"file": str(target)}


def perplexity(job: Job, report: Report) -> dict[str, Any]:
    """Perplexity of `before` and of `artifact` on the file `text`; answers {"tokens", "before", "after", "ratio"}."""
    from runtimes.perplexity import compared

    return compared(Path(job["before"]), Path(job["artifact"]), Path(job["text"]), job.get("runtime"), report)


HANDLERS: dict[str, Handler] = {
    "describe": describe,
    "run": run,
    "verify": verify,
    "measure": measure,
    "measure_text": measure_text,
    "bandwidth": bandwidth,
    "quantize": quantize,
    "perplexity": perplexity,
}


def stacked(samples: Arrays, session: Session) -> tuple[Arrays, int]:
    """The samples under the model's own input names, and how many there are.

    A model with one input takes the only array there is, as engines name the same tensor differently.
    """
    if len(samples) == len(session.inputs) == 1:
        samples = {session.inputs[0].name: next(iter(samples.values()))}
    counts = {array.shape[0] if array.ndim else 0 for array in samples.values()}
    if len(counts) != 1 or counts == {0}:
        raise InputError(f"the inputs hold {sorted(counts)} samples", "stack the same number of samples, 1 or more")
    return samples, counts.pop()


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write an `.npz` under exactly this name (numpy itself would add a suffix); InputError where it cannot be."""
    try:
        with path.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type] # numpy's stubs see allow_pickle
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}", "choose a folder that is writable") from None


def _run_samples(model: WarmModel, samples: Arrays, report: Report) -> tuple[Arrays, dict[str, Any]]:
    session = model.session
    named, count = stacked(samples, session)
    first_ms = model.warm_up({name: array[0] for name, array in named.items()})
    rows, latency = [], []
    for index in range(count):
        feeds = {name: array[index] for name, array in named.items()}
        start = time.perf_counter_ns()
        rows.append(session.run(feeds))
        latency.append((time.perf_counter_ns() - start) / 1e6)
        report({"done": index + 1, "total": count})
    outputs = {spec.name: np.stack([row[spec.name] for row in rows]) for spec in session.outputs}
    return outputs, {"first_ms": first_ms, "latency_ms": latency}


def _plain(specs: Any) -> Any:
    return [
        {
            "name": spec.name,
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "quantization": spec.quantization and vars(spec.quantization),
        }
        for spec in specs
    ]


def _answer(handlers: Mapping[str, Handler], line: str, report: Report) -> str:
    try:
        job = json.loads(line)
        handler = _handler(handlers, job)
        if job["job"] != "run":
            _OPEN.close()  # its memory and its accelerator are for whatever comes now
        return json.dumps(handler(job, report))
    except EdgeError as error:
        return _error_answer(error, type(error).__name__)
    except MemoryError:
        return _error_answer(WorkerError("ran out of memory"), "MemoryError")
    except Exception as error:  # an engine's error that no adapter mapped, or a mistake of ours: told, not hidden
        traceback.print_exc()
        unexpected = WorkerError(f"failed with {type(error).__name__}: {first_line(error)}", "see it with --debug")
        return _error_answer(unexpected, type(error).__name__)


def _error_answer(error: EdgeError, kind: str) -> str:
    return json.dumps({**error.as_dict(), "kind": kind})


def _handler(handlers: Mapping[str, Handler], job: Any) -> Handler:
    name = job.get("job") if isinstance(job, dict) else None
    if not isinstance(name, str) or name not in handlers:
        raise UsageError(f"this worker has no job {name!r}", f"its jobs: {', '.join(sorted(handlers))}")
    return handlers[name]


def private_pipes() -> tuple[TextIO, TextIO]:
    """Our own copies of stdin and stdout; the numbers 0 and 1 then lead nowhere and to stderr.

    Engines print from C++ to number 1, and whatever they start inherits it: neither may reach the answers.
    """
    sys.stdout.flush()
    jobs, answers = os.dup(0), os.dup(1)  # os.dup's copies are not inherited by what a process starts
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    # Not closed with the file object: the parent takes the end of the answers for the end of the process.
    return os.fdopen(jobs, encoding="utf-8"), os.fdopen(answers, "w", encoding="utf-8", closefd=False)


if __name__ == "__main__":
    serve(HANDLERS)
