"""Measure an artifact on an engine in this process by a protocol. Every sample is kept.

The answer to the job "measure" is a JSON object. Keys are added, never renamed; an unknown value is null:

    status           "ok"
    protocol         {"name", …}: all parameters of the protocol
    artifact, format, precision           the model; precision is "unknown" for a bare file
    runtime, runtime_version, threads, device, settings     the engine and its options
    samples_ms       each timed run, in order; readers compute the median
    warmup_ms        each warm-up run, beginning with the first inference
    total_s          wall time of the timed loop
    import_ms        importing the engine; load_ms: opening the model; first_ms: the first inference
    peak_rss_bytes   peak memory of this process until the end of the loop
    energy_j         used during the loop, including idle power; energy_source names the source, or energy_note the
                     reason why there is none
    began_at         this machine's clock when the loop began, in seconds of Unix time
    other_cores      cores that other processes kept busy from the warm-up to the end of the loop; null if that took
                     under 0.5 s
    conditions       {"before", "after"}: `runtimes.host.conditions` before the engine is imported, and after the loop
    machine          {"cpu", "logical_cores", "memory_bytes", "os", "python", "board", "emulated"}
    input            {"kind": "picture" | "synthetic" | "arrays", "sha256"} of the input, the same in every run
    output           {"name", "kind"} of the first output; kind is "probability", "logit" or null
    profile          with the job's `profile`: the times of the operators, see `operator_times`; null if the engine does
                     not report them, with the reason in profile_note
    top, raw         the top classes and the raw score, if the manifest describes the output
"""

from __future__ import annotations

import gc
import hashlib
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np

from runtimes.arrays import Array, Arrays, load_arrays, save_arrays
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import UsageError
from runtimes.host import EnergyMeter, conditions, facts, peak_rss_bytes, usable_cores
from runtimes.host.contention import cores_of_others, cpu_clock
from runtimes.job_server import engine_of, run_options, samples_by_input
from runtimes.jobs import MeasureJob, Report
from runtimes.joined_session import open_like_source
from runtimes.measurement.answer import MachineSummary, MeasureAnswer, ScoredClass
from runtimes.measurement.operator_times import RUNS
from runtimes.measurement.protocols import Before, Protocol, Timings, as_dict, protocol_from_dict
from runtimes.measurement.sample_journal import SampleJournal
from runtimes.measurement.throughput import ThroughputSummary, batch_feeds, measure_throughput
from runtimes.registry import is_found, is_installed, missing
from runtimes.session import Engine, RunOptions, Session, TensorEngine, example_feeds, format_shape
from runtimes.shapes import free_axes, suggestion, with_shapes
from runtimes.stateful_session import StatefulSession
from runtimes.tasks.classification import ClassScores
from runtimes.verification.selfcheck import answers


def measure(job: MeasureJob, report: Report) -> MeasureAnswer:
    """Run one measurement."""
    keep = SampleJournal(Path(job.keep) if job.keep else None, job.to_json())
    protocol = protocol_from_dict(job.protocol)
    artifact, engine = engine_of(job.artifact, job.runtime)
    options = run_options(job.options, report)
    before = conditions()
    report({"phase": "loading", "at": time.time()})
    import_ms = time_import(engine)
    start = time.perf_counter_ns()
    with open_like_source(engine, artifact, options) as session:
        load_ms = (time.perf_counter_ns() - start) / 1e6
        feeds, kind = _feeds(job, artifact, session)
        known: MeasureAnswer = {
            **_setup(job, artifact, engine, options, session, protocol),
            "import_ms": import_ms,
            "load_ms": load_ms,
            "machine": machine(),
            "input": {"kind": kind, "sha256": digest_of(feeds)},
        }

        def begin(warmup: list[float]) -> None:
            # Values that are not known yet keep their state so far, in case the measurement is interrupted.
            keep.begin({**known, "conditions": {"before": before, "after": before}, **_unfinished(warmup)})

        timed = _time(protocol, session, feeds, report, begin, keep)
        found: MeasureAnswer = {
            "status": "ok",
            **known,
            **timed,
            "conditions": {"before": before, "after": conditions()},
            **scores(artifact, session.outputs[0], session.run(feeds)),
        }
        _evaluate(job, session, report)
    if job.profile:
        states = session.held if isinstance(session, StatefulSession) else {}
        found = {**found, **_profile(engine, artifact, options, {**feeds, **states}, report)}
    if job.streams is not None:
        found = {**found, "throughput": _throughput(job, engine, artifact, options, feeds, report)}
    if job.batch is not None:
        found["batch"] = job.batch
    keep.finish(found)
    return found


def time_import(engine: Engine) -> float:
    """Import the engine's library; returns the duration in ms. It takes seconds for TensorFlow, apart from loading."""
    if not is_installed(engine):
        raise missing(engine)
    start = time.perf_counter_ns()
    for name in filter(None, engine.requires.split("|")):
        if is_found(name):
            import_module(name)
            break
    return (time.perf_counter_ns() - start) / 1e6


def _feeds(job: MeasureJob, artifact: Artifact, session: Session) -> tuple[Arrays, str]:
    """Return the input of all runs, and its kind."""
    if job.inputs:
        samples, kind = load_arrays(Path(job.inputs)), job.input_kind
    elif artifact.manifest.selfcheck is not None and not job.shapes:
        samples = artifact.selfcheck()[0]
        kind = "picture" if artifact.manifest.selfcheck.inputs == "pictures" else "synthetic"
    else:
        inputs = with_shapes(session.inputs, job.shapes)
        _check_sizes(inputs)
        return batch_feeds(example_feeds(inputs), inputs, job.batch), "synthetic"
    named, _ = samples_by_input(samples, session)
    feeds = {name: np.asarray(array[0], order="C") for name, array in named.items()}
    return batch_feeds(feeds, session.inputs, job.batch), kind


def _check_sizes(inputs: Sequence[TensorSpec]) -> None:
    """Refuse a free size: the speed at 1 × 1 pixel says nothing about the model's."""
    free = [spec for spec in inputs if free_axes(spec)]
    if free:
        sizes = " ".join(suggestion(spec, {}) for spec in free)
        what = f"the size of input '{free[0].name}' is free: {format_shape(free[0].shape)}"
        raise UsageError(what, f"name the size to measure, such as {sizes}, or give real inputs with --input")


def _time(
    protocol: Protocol, session: Session, feeds: Arrays, report: Report, begin: Before, keep: SampleJournal
) -> MeasureAnswer:
    # The garbage collector stays on, as in production: the reference cycles that a binding creates are part of its
    # cost. But objects created by imports, a million for TensorFlow, are frozen: otherwise a few runs would include
    # a collection pause of 100 ms.
    gc.collect()
    gc.freeze()
    started = []
    clock = cpu_clock()  # from the warm-up on: loops of fast models are too short for the system's counters

    def before(warmup: list[float]) -> None:
        begin(warmup)
        started.append((EnergyMeter(), time.time()))

    timings = protocol.time(lambda: session.run(feeds), report, before, keep.times)
    meter, began_at = started[0]
    energy, others = meter.finish(), cores_of_others(clock, cpu_clock())
    return {
        **_times(timings),
        "other_cores": others,
        "peak_rss_bytes": peak_rss_bytes(),
        "began_at": began_at,
        **energy,
    }


def _times(timings: Timings) -> MeasureAnswer:
    return {
        "first_ms": timings.warmup_ms[0],
        "warmup_ms": timings.warmup_ms,
        "samples_ms": timings.samples_ms,
        "total_s": timings.total_s,
    }


def _unfinished(warmup: list[float]) -> MeasureAnswer:
    return {
        "peak_rss_bytes": None,
        "energy_j": None,
        "energy_source": None,
        "energy_note": None,
        "began_at": None,
        "other_cores": None,
        "output": None,
        "raw": None,
        "first_ms": warmup[0],
        "warmup_ms": warmup,
        "top": [],
    }


def _setup(
    job: MeasureJob, artifact: Artifact, engine: TensorEngine, options: RunOptions, session: Session, protocol: Protocol
) -> MeasureAnswer:
    return {
        "protocol": as_dict(protocol),
        "artifact": job.artifact,
        "format": artifact.manifest.format,
        "precision": artifact.manifest.precision,
        "runtime": engine.id,
        "runtime_version": engine.version(),
        "threads": session.threads if session.threads is not None else options.threads,
        "device": options.device,
        "settings": dict(options.settings),
    }


def machine() -> MachineSummary:
    """Return the key `machine` of every answer."""
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


def digest_of(feeds: Arrays) -> str:
    """Return the digest of one sample of every input."""
    digest = hashlib.sha256()
    for name, array in sorted(feeds.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def scores(artifact: Artifact, spec: TensorSpec, answer: Mapping[str, Array]) -> MeasureAnswer:
    """Return the decoded first output, `spec`, if the manifest describes how to decode it."""
    meaning = artifact.manifest.output
    found: MeasureAnswer = {
        "output": {"name": spec.name, "kind": meaning.kind if meaning else None},
        "top": [],
        "raw": None,
    }
    values = answer[spec.name]
    # Otherwise NaN from a broken model would produce JSON that other programs reject.
    if meaning is None or not np.isfinite(values.astype(np.float64)).all():
        return found
    labels = artifact.labels()
    # Use the shape of this output: a free batch dimension may have any size.
    decoder = ClassScores(replace(spec, shape=values.shape), meaning, None if labels is None else tuple(labels))
    result = decoder.decode(answer)
    top: list[ScoredClass] = [
        {"index": one.index, "label": one.label, "probability": one.probability} for one in result.classes
    ]
    return {**found, "top": top, "raw": result.raw}


def _profile(
    engine: TensorEngine, artifact: Artifact, options: RunOptions, feeds: Arrays, report: Report
) -> MeasureAnswer:
    report({"phase": "profiling"})
    try:
        return {"profile": engine.profile(artifact, options, feeds, RUNS).to_json()}
    except UsageError as error:  # the engine has no profiler: the measurement counts all the same
        return {"profile": None, "profile_note": f"{error.message}: {error.hint}"}


def _throughput(
    job: MeasureJob, engine: TensorEngine, artifact: Artifact, options: RunOptions, feeds: Arrays, report: Report
) -> ThroughputSummary:
    streams = job.streams or usable_cores()
    threads = options.threads or max(1, usable_cores() // streams)
    report({"phase": f"running {streams} streams"})
    each = replace(options, threads=threads)
    return measure_throughput(lambda: open_like_source(engine, artifact, each), feeds, streams, threads, job.batch or 1)


def _evaluate(job: MeasureJob, session: Session, report: Report) -> None:
    if not job.evaluate or not job.outputs:
        return
    report({"phase": "evaluating"})
    save_arrays(Path(job.outputs), answers(session, load_arrays(Path(job.evaluate))))
