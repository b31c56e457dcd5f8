"""The child side of a worker process: jobs in, answers out. `python -m runtimes.worker` serves `HANDLERS`.

Everything that touches an engine or an untrusted model runs in such a process, so that a crash kills the worker and
not the command. The parent side is `edge.workers.process`.

    stdin   one JSON object per line: {"job": "describe", "artifact": PATH, ...}; the process exits at end of file
    stdout  one JSON object per line: any number of {"progress": {...}}, then the answer, or an error in the form of
            `EdgeError.as_dict()` plus the class name as "kind"
    stderr  everything that engines print to stdout or stderr

`runtimes.jobs` documents each job and its answer.
The job "run" keeps its model open in case the next job uses the same one; every other job closes it first.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Mapping

import numpy as np

from runtimes.arrays import Arrays, load_arrays, save_arrays
from runtimes.artifact import Artifact
from runtimes.job_server import _OPEN, Handler, engine_of, handler, run_options, samples_by_input, serve
from runtimes.jobs import (
    Bandwidth,
    BandwidthJob,
    DescribeJob,
    Description,
    MeasureJob,
    MeasureTextJob,
    Report,
    RunAnswer,
    RunJob,
    SoakAnswer,
    VerifyAnswer,
    VerifyJob,
)
from runtimes.joined_session import open_like_source
from runtimes.measurement.answer import MeasureAnswer
from runtimes.model_cache import WarmSession
from runtimes.model_files.detect import is_language_model
from runtimes.quantization_jobs import (
    ImportanceAnswer,
    ImportanceJob,
    PerplexityAnswer,
    PerplexityJob,
    QuantizeAnswer,
    QuantizeJob,
)
from runtimes.session import Session
from runtimes.stateful_session import StatefulSession


def describe(job: DescribeJob, report: Report) -> Description:
    """Open the model and describe its inputs and outputs."""
    artifact, engine = engine_of(job.artifact, job.runtime)
    with open_like_source(engine, artifact, run_options(job.options, report)) as session:
        return Description(
            runtime=engine.id,
            runtime_version=engine.version(),
            inputs=tuple(session.inputs),
            outputs=tuple(session.outputs),
        )


def run(job: RunJob, report: Report) -> RunAnswer:
    """Run every sample of `inputs` and write the outputs to `outputs`.

    Reports the latency of each sample on the warm model, and the duration of the model's first inference, which may
    have happened in an earlier job.
    """
    artifact, engine = engine_of(job.artifact, job.runtime)
    samples = load_arrays(Path(job.inputs))
    if job.sequence:
        _OPEN.close()  # frees its memory and accelerator
        with open_like_source(engine, artifact, run_options(job.options, report)) as session:
            outputs, latency_ms = _run_sequence(session, samples, job.states, report)
        save_arrays(Path(job.outputs), outputs)
        return RunAnswer(
            runtime=engine.id, runtime_version=engine.version(), first_ms=latency_ms[0], latency_ms=latency_ms
        )
    with _OPEN.using(artifact, engine, run_options(job.options, report)) as model:
        if model.keeps_state:  # a warm-up would be a step of the sequence
            outputs, latency_ms = _run_sequence(model.session, samples, {}, report)
            first_ms = model.first_ms = model.first_ms or latency_ms[0]
        else:
            outputs, first_ms, latency_ms = _run_samples(model, samples, report)
    save_arrays(Path(job.outputs), outputs)
    return RunAnswer(runtime=engine.id, runtime_version=engine.version(), first_ms=first_ms, latency_ms=latency_ms)


def verify(job: VerifyJob, report: Report) -> VerifyAnswer:
    """Verify the artifact against its digests and its self-check, and that repeated inferences answer the same."""
    from runtimes.verification.selfcheck import check
    from runtimes.verification.soak import soak_artifact

    artifact = Artifact.open(Path(job.artifact))
    artifact.verify_digests()
    if is_language_model(artifact.manifest.format):
        from runtimes.llm.selfcheck import verify_text

        return verify_text(artifact, job.runtime)
    artifact, engine = engine_of(job.artifact, job.runtime)

    def reopen() -> Session:
        return open_like_source(engine, artifact, run_options(job.options, report))

    with reopen() as session:
        soaked = soak_artifact(artifact, session, reopen, job.soak)
        verdict = check(artifact, session)
    failure = soaked.difference if verdict.passed or soaked.difference else verdict.message
    return VerifyAnswer(
        passed=verdict.passed and not soaked.difference,
        metrics=verdict.metrics,
        message=failure or verdict.message,
        runtime=engine.id,
        runtime_version=engine.version(),
        soak=SoakAnswer(soaked.inferences, soaked.memory_growth_bytes),
    )


def bandwidth(job: BandwidthJob, _report: Report) -> Bandwidth:
    """Measure this machine's memory read bandwidth, in several rounds."""
    from runtimes.host.bandwidth import read_bandwidth

    return Bandwidth(read_bandwidth(job.threads))


def quantize(job: QuantizeJob, report: Report) -> QuantizeAnswer:
    """Rewrite a GGUF file with another type, reporting progress per tensor."""
    from runtimes.llm.llama_cpp.importance import read_importance
    from runtimes.llm.llama_cpp.quantize import quantize_file
    from runtimes.llm.llama_cpp.weight_errors import weight_errors

    def on_tensor(done: int, total: int, name: str) -> None:
        report({"doing": name, "done": done, "total": total})

    weights = read_importance(Path(job.imatrix)) if job.imatrix else None
    source, target = Path(job.artifact), Path(job.out)
    quantize_file(
        source, target, job.type, threads=job.threads, again=job.again, importance=weights, on_tensor=on_tensor
    )
    return QuantizeAnswer(job.out, weight_errors(source, target), len(weights or ()))


def importance(job: ImportanceJob, report: Report) -> ImportanceAnswer:
    """Find out from a text which columns of a language model's weights matter."""
    from runtimes.llm.llama_cpp.importance import importance_from_text

    return importance_from_text(job, report)


def perplexity(job: PerplexityJob, report: Report) -> PerplexityAnswer:
    """Compare the perplexity of two models on a text file."""
    from runtimes.llm.perplexity import compare_perplexity

    return compare_perplexity(Path(job.before), Path(job.artifact), Path(job.text), job.runtime, report)


def measure(job: MeasureJob, report: Report) -> MeasureAnswer:
    """Time the model by the job's `protocol`; the answer is described in `runtimes.measurement.tensor_model`."""
    from runtimes.measurement.tensor_model import measure as measure_model

    return measure_model(job, report)


def measure_text(job: MeasureTextJob, report: Report) -> MeasureAnswer:
    """Time a language model; the answer is described in `runtimes.llm.measurement`."""
    from runtimes.llm.measurement import measure_text as measure_model

    return measure_model(job, report)


HANDLERS: Mapping[str, Handler] = {
    "describe": handler(DescribeJob, describe),
    "run": handler(RunJob, run),
    "verify": handler(VerifyJob, verify),
    "measure": handler(MeasureJob, measure),
    "measure_text": handler(MeasureTextJob, measure_text),
    "bandwidth": handler(BandwidthJob, bandwidth),
    "quantize": handler(QuantizeJob, quantize),
    "importance": handler(ImportanceJob, importance),
    "perplexity": handler(PerplexityJob, perplexity),
}


def _run_samples(model: WarmSession, samples: Arrays, report: Report) -> tuple[Arrays, float, list[float]]:
    """Run samples that have nothing to do with one another; returns outputs, the first duration and each one's."""
    session = model.session
    named, count = samples_by_input(samples, session)
    first_ms = model.warm_up({name: np.asarray(array[0]) for name, array in named.items()})
    rows, latency = [], []
    for index in range(count):
        feeds = {name: np.asarray(array[index]) for name, array in named.items()}
        start = time.perf_counter_ns()
        rows.append(session.run(feeds))
        latency.append((time.perf_counter_ns() - start) / 1e6)
        report({"done": index + 1, "total": count})
    outputs = {spec.name: np.stack([row[spec.name] for row in rows]) for spec in session.outputs}
    return outputs, first_ms, latency


def _run_sequence(
    session: Session, samples: Arrays, states: Mapping[str, str], report: Report
) -> tuple[Arrays, list[float]]:
    """Run samples that follow one another, and pass the states on; returns the other outputs, and each duration."""
    model = StatefulSession(session, states)
    named, count = samples_by_input(samples, model)
    rows, latency = [], []
    for index in range(count):
        feeds = {name: np.asarray(array[index]) for name, array in named.items()}
        start = time.perf_counter_ns()
        rows.append(model.run(feeds))
        latency.append((time.perf_counter_ns() - start) / 1e6)
        report({"done": index + 1, "total": count})
    return {spec.name: np.stack([row[spec.name] for row in rows]) for spec in model.outputs}, latency


if __name__ == "__main__":
    serve(HANDLERS)
