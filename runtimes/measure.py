"""One measurement: an artifact on an engine in this process, timed as a protocol says. Every sample is kept.

The answer to the job "measure" is ready for JSON. Keys are added, never renamed; a value that cannot be told is null:

    status           "ok"
    protocol         {"name", …}: all that the protocol was told
    artifact, format, precision           what was run; precision is "unknown" for a bare file
    runtime, runtime_version, threads, device, settings     what ran it, and how
    samples_ms       each timed run, in order; the median is computed by whoever reads them
    warmup_ms        each run before, the first inference first
    total_s          wall time of the timed loop
    import_ms        importing the engine; load_ms: opening the model; first_ms: the first inference
    peak_rss_bytes   the most memory this process held until the loop's end
    energy_j         drawn during the loop, idle power included, by what energy_source names; else energy_note says why
    began_at         the clock of this machine when the loop began, seconds of Unix time
    other_cores      how many cores other processes kept busy during the loop; null where it was under 0.5 s
    conditions       {"before", "after"}: `runtimes.host.conditions` before the engine is imported, and after the loop
    machine          {"cpu", "logical_cores", "memory_bytes", "os", "python", "board", "emulated"}
    input            {"kind": "picture" | "synthetic" | "arrays", "sha256"} of what was fed, the same in every run
    output           {"name", "kind"} of the first output; kind is "probability", "logit" or null
    top, raw         the likeliest classes and the raw score, where the manifest tells what the output means
"""

from __future__ import annotations

import gc
import hashlib
import time
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from runtimes.arrays import Array, Arrays, load_arrays
from runtimes.artifact import Artifact
from runtimes.contention import cores_of_others, cpu_clock
from runtimes.host import EnergyMeter, conditions, facts, peak_rss_bytes
from runtimes.keep import Keep
from runtimes.protocols import Before, Protocol, Timings, as_dict, protocol_of
from runtimes.registry import is_installed, missing
from runtimes.selfcheck import answers
from runtimes.session import Engine, RunOptions, Runtime, Session, example_feeds
from runtimes.tensors import probabilities, raw_score, top_classes
from runtimes.worker import Job, Report, engine_of, options_of, save_arrays, stacked


def measure(job: Job, report: Report) -> dict[str, Any]:
    """Do one measurement; the job takes

    protocol     {"name": "steady" | "published", …}, see `runtimes.protocols`
    inputs       PATH.npz of stacked inputs, of which sample 0 is fed; else the artifact's own self-check's, else
                 seeded synthetic ones
    input_kind   what `inputs` are: "picture", or "arrays" where it is left out
    evaluate     PATH.npz of stacked inputs to run afterwards, untimed; their real outputs go to
    outputs      PATH.npz, float32, stacked
    keep         a folder to write samples down in as they are taken, see `runtimes.keep`
    """
    keep = Keep(Path(job["keep"]) if job.get("keep") else None, job)
    protocol = protocol_of(job.get("protocol") or {})
    artifact, engine = engine_of(job)
    options = options_of(job, report)
    before = conditions()
    report({"phase": "loading", "at": time.time()})
    import_ms = time_import(engine)
    start = time.perf_counter_ns()
    with closing(engine.open(artifact, options)) as session:
        load_ms = (time.perf_counter_ns() - start) / 1e6
        feeds, kind = _feeds(job, artifact, session)
        known = {
            **_setup(job, artifact, engine, options, session, protocol),
            "import_ms": import_ms,
            "load_ms": load_ms,
            "machine": machine(),
            "input": {"kind": kind, "sha256": _digest(feeds)},
        }

        def begin(warmup: list[float]) -> None:
            # What is not known yet stands as it was, for whoever reads this of a measurement that broke off.
            keep.begin({**known, "conditions": {"before": before, "after": before}, **_unfinished(warmup)})

        timed = _timed(protocol, session, feeds, report, begin, keep)
        found = {
            "status": "ok",
            **known,
            **timed,
            "conditions": {"before": before, "after": conditions()},
            **_scores(artifact, session, session.run(feeds)),
        }
        _evaluate(job, session, report)
    keep.finish(found)
    return found


def time_import(engine: Engine) -> float:
    """Import the engine's library, and how long that took in ms: TensorFlow takes seconds, and it is no loading."""
    if not is_installed(engine):
        raise missing(engine)
    start = time.perf_counter_ns()
    for name in filter(None, engine.requires.split("|")):
        if find_spec(name) is not None:
            import_module(name)
            break
    return (time.perf_counter_ns() - start) / 1e6


def _feeds(job: Job, artifact: Artifact, session: Session) -> tuple[Arrays, str]:
    """What is fed in every run, and what kind of input that is."""
    if job.get("inputs"):
        samples, kind = load_arrays(Path(job["inputs"])), job.get("input_kind") or "arrays"
    elif artifact.manifest.selfcheck is not None:
        samples = artifact.selfcheck()[0]
        kind = "picture" if artifact.manifest.selfcheck.inputs == "pictures" else "synthetic"
    else:
        return example_feeds(session.inputs), "synthetic"
    named, _ = stacked(samples, session)
    return {name: np.ascontiguousarray(array[0]) for name, array in named.items()}, kind


def _timed(
    protocol: Protocol, session: Session, feeds: Arrays, report: Report, begin: Before, keep: Keep
) -> dict[str, Any]:
    # The garbage collector stays on, as in the program that the model will serve: the cycles that a binding makes
    # are part of its price. But what the imports left behind, a million objects for TensorFlow, is frozen out of
    # its walks: in a process that lives for minutes they would hit a few runs with a pause of 100 ms.
    gc.collect()
    gc.freeze()
    started = []

    def before(warmup: list[float]) -> None:
        begin(warmup)
        started.append((EnergyMeter(), cpu_clock(), time.time()))

    timings = protocol.time(lambda: session.run(feeds), report, before, keep.times)
    meter, clock, began_at = started[0]
    energy, others = meter.finish(), cores_of_others(clock, cpu_clock())
    return {
        **_times(timings),
        "other_cores": others,
        "peak_rss_bytes": peak_rss_bytes(),
        "began_at": began_at,
        **energy,
    }


def _times(timings: Timings) -> dict[str, Any]:
    return {
        "first_ms": timings.warmup_ms[0],
        "warmup_ms": timings.warmup_ms,
        "samples_ms": timings.samples_ms,
        "total_s": timings.total_s,
    }


def _unfinished(warmup: list[float]) -> dict[str, Any]:
    unknown = (
        *("peak_rss_bytes", "energy_j", "energy_source", "energy_note", "began_at", "other_cores"),
        *("output", "raw"),
    )
    return {**dict.fromkeys(unknown), "first_ms": warmup[0], "warmup_ms": warmup, "top": []}


def _setup(
    job: Job, artifact: Artifact, engine: Runtime, options: RunOptions, session: Session, protocol: Protocol
) -> dict[str, Any]:
    return {
        "protocol": as_dict(protocol),
        "artifact": str(job["artifact"]),
        "format": artifact.manifest.format,
        "precision": artifact.manifest.precision,
        "runtime": engine.id,
        "runtime_version": engine.version(),
        "threads": session.threads if session.threads is not None else options.threads,
        "device": options.device,
        "settings": dict(options.settings),
    }


def machine() -> dict[str, Any]:
    """What was measured on: the key `machine` of every answer."""
    found = facts()
    return {
        "cpu": found["cpu"]["model"],
        "logical_cores": found["cpu"]["logical_cores"],
        "memory_bytes": found["memory"]["total_bytes"],
        "os": found["os"]["name"],
        "python": found["os"]["python"],
        "board": found["board"]["model"],
        "emulated": found["os"]["emulated"],
    }


def _digest(feeds: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(feeds.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _scores(artifact: Artifact, session: Session, answer: Mapping[str, Array]) -> dict[str, Any]:
    """What the model said, where its manifest tells how to read it."""
    spec, meaning = session.outputs[0], artifact.manifest.output
    found: dict[str, Any] = {"output": {"name": spec.name, "kind": meaning and meaning.kind}, "top": [], "raw": None}
    values = answer[spec.name]
    # Without this, a broken model's NaN would make JSON that other programs refuse.
    if meaning is None or not np.isfinite(values.astype(np.float64)).all():
        return found
    shares = probabilities(values, spec, meaning)
    return {**found, "top": top_classes(shares, meaning, artifact.labels()), "raw": raw_score(values, spec)}


def _evaluate(job: Job, session: Session, report: Report) -> None:
    if not job.get("evaluate"):
        return
    report({"phase": "evaluating"})
    save_arrays(Path(job["outputs"]), answers(session, load_arrays(Path(job["evaluate"]))))
