"""The worker's side of the job protocol: one JSON object per line in, answers and progress out.

See `runtimes.worker`.

stdin   one JSON object per line: {"job": "describe", "artifact": PATH, ...}; the process exits at end of file
stdout  one JSON object per line: any number of {"progress": {...}}, then the answer, or an error in the form of
        `EdgeError.as_dict()` plus the class name as "kind"
stderr  everything that engines print to stdout or stderr
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Callable, Mapping, TextIO

from runtimes.arrays import Arrays
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import Fields, JsonValue, to_json
from runtimes.errors import EdgeError, InputError, UsageError, WorkerError, first_line
from runtimes.jobs import EngineOptions, J, Progress, Report
from runtimes.model_cache import ModelCache
from runtimes.registry import for_format
from runtimes.session import RunOptions, Session, TensorEngine

# Takes the JSON job and `report`, returns the JSON answer. `handler` wraps a typed function into one.
Handler = Callable[[Any, Report], Mapping[str, JsonValue]]

_HINT = "both sides must run the same version of edge: update the older one"

_OPEN = ModelCache()  # the model that the last "run" job of this process opened


def handler(kind: type[J], do: Callable[[J, Report], object]) -> Handler:
    """Wrap `do` into a handler: parse the job as a `kind`, and serialize the dataclass that `do` returns."""

    def handle(values: Any, report: Report) -> Mapping[str, JsonValue]:
        job = kind.from_json(Fields(values, f"the job '{kind.name}'", hint=_HINT, error=WorkerError))
        return to_json(do(job, report))

    return handle


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer jobs until stdin closes. A handler takes the job and `report`, which sends a progress object."""
    jobs, answers = private_pipes()
    lock = threading.Lock()  # an engine may report from its own thread

    def send(answer: str) -> None:
        with lock:
            answers.write(answer + "\n")
            answers.flush()

    def report(progress: Progress) -> None:
        send(json.dumps({"progress": progress}))

    try:
        for line in jobs:
            send(_answer(handlers, line, report))
    finally:
        _OPEN.close()


def run_options(options: EngineOptions, report: Report) -> RunOptions:
    """Convert to `RunOptions`. The engine's notes while it opens the model are reported as phases."""
    return RunOptions(
        threads=options.threads,
        device=options.device,
        settings=options.settings,
        note=lambda text: report({"phase": text}),
    )


def engine_of(artifact: str, runtime: str | None) -> tuple[Artifact, TensorEngine]:
    """Return the artifact at this path, and the engine to open it with."""
    opened = Artifact.open(Path(artifact))
    return opened, for_format(opened.manifest.format, runtime)


def samples_by_input(samples: Arrays, session: Session) -> tuple[Arrays, int]:
    """Return the samples by the model's input names, and the number of samples.

    For a model with one input, the only array is used whatever its name: engines name the same tensor differently.
    """
    if len(samples) == len(session.inputs) == 1:
        samples = {session.inputs[0].name: next(iter(samples.values()))}
    counts = {array.shape[0] if array.ndim else 0 for array in samples.values()}
    if len(counts) != 1 or counts == {0}:
        raise InputError(f"the inputs hold {sorted(counts)} samples", "stack the same number of samples, 1 or more")
    return samples, counts.pop()


def _answer(handlers: Mapping[str, Handler], line: str, report: Report) -> str:
    try:
        job = json.loads(line)
        handle = _handler(handlers, job)
        if job["job"] != "run":
            _OPEN.close()  # frees its memory and accelerator for the next job
        return json.dumps(handle(job, report))
    except EdgeError as error:
        return _error_answer(error, type(error).__name__)
    except MemoryError:
        return _error_answer(WorkerError("ran out of memory"), "MemoryError")
    except Exception as error:  # an engine's error that no adapter maps, or a bug of ours
        traceback.print_exc()
        unexpected = WorkerError(
            f"failed with {type(error).__name__}: {first_line(error)}", "run again with --debug for the traceback"
        )
        return _error_answer(unexpected, type(error).__name__)


def _error_answer(error: EdgeError, kind: str) -> str:
    return json.dumps({**error.as_dict(), "kind": kind})


def _handler(handlers: Mapping[str, Handler], job: Any) -> Handler:
    name = job.get("job") if isinstance(job, dict) else None
    if not isinstance(name, str) or name not in handlers:
        raise UsageError(f"this worker has no job {name!r}", f"its jobs: {', '.join(sorted(handlers))}")
    return handlers[name]


def private_pipes() -> tuple[TextIO, TextIO]:
    """Duplicate stdin and stdout for the protocol, and redirect file descriptors 0 to /dev/null and 1 to stderr.

    Engines print from C++ to descriptor 1, and their child processes inherit it. Neither may mix with the answers.
    """
    sys.stdout.flush()
    jobs, answers = os.dup(0), os.dup(1)  # child processes do not inherit os.dup's copies
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    # closefd=False: the parent treats end of file on the answers as the exit of the process.
    return os.fdopen(jobs, encoding="utf-8"), os.fdopen(answers, "w", encoding="utf-8", closefd=False)
