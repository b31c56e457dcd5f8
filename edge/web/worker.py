"""The worker that verifies and measures artifacts in a browser: `python -m edge.web.worker`.

It answers two jobs of `runtimes.worker`, and starts the browser itself; the setting `browser` names the program. The
page checks its outputs itself; the worker checks them again, with the code that every other engine uses.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.web.chromium import run_page
from edge.web.jobs import PageJob
from edge.web.server import browser_facts
from runtimes.arrays import Arrays, load_arrays, save_arrays
from runtimes.artifact import Artifact
from runtimes.errors import InputError, ProofError, UsageError
from runtimes.host import conditions
from runtimes.job_server import Handler, handler, serve
from runtimes.jobs import EngineOptions, MeasureJob, Report, VerifyAnswer, VerifyJob
from runtimes.measurement.answer import MeasureAnswer
from runtimes.measurement.tensor_model import digest_of, machine, scores
from runtimes.verification.rows import pad
from runtimes.verification.selfcheck import Verdict, judge

SETTINGS = {"browser": "the program of Chromium or Chrome"}
DEVICES = ("cpu", "webgpu")


def verify(job: VerifyJob, report: Report) -> VerifyAnswer:
    """Verify an artifact in a browser: digests, and the first, second and 100th inference."""
    artifact = _artifact(job.artifact, job.runtime)
    answer = _run(artifact, PageJob(kind="verify", threads=job.options.threads), job.options, report)
    verdict = _judge(artifact, answer)
    return VerifyAnswer(
        passed=verdict.passed,
        metrics=verdict.metrics,
        message=verdict.message,
        runtime=answer["runtime"],
        runtime_version=f"{answer['runtime_version']} in {answer['browser']['name']}",
    )


def measure(job: MeasureJob, report: Report) -> MeasureAnswer:
    """Time the model in a browser; the answer is described in `runtimes.measurement.tensor_model`."""
    artifact = _artifact(job.artifact, job.runtime)
    before = conditions()
    page_job = PageJob(
        kind="measure",
        device=_device(job.options),
        threads=job.options.threads,
        protocol=job.protocol,
        inputs=Path(job.inputs) if job.inputs else None,
        evaluate=Path(job.evaluate) if job.evaluate else None,
    )
    answer = _run(artifact, page_job, job.options, report)
    verdict = _judge(artifact, answer)
    if not verdict.passed:
        raise ProofError(
            f"the answers in the browser are not those of the source: {verdict.message}", "convert it again"
        )
    if job.evaluate and job.outputs:
        save_arrays(Path(job.outputs), _stack(artifact, answer["outputs"]))
    last = _stack(artifact, [answer["last"]])
    feeds, kind = _inputs(job, artifact)
    keys = (
        "runtime",
        "runtime_version",
        "threads",
        "device",
        "browser",
        "warmup_ms",
        "samples_ms",
        "total_s",
        "load_ms",
        "first_ms",
    )
    found: Any = {
        "status": "ok",
        "protocol": dict(job.protocol),
        "artifact": job.artifact,
        "format": artifact.manifest.format,
        "precision": artifact.manifest.precision,
        "settings": dict(job.options.settings),
        "machine": machine(),
        "input": {"kind": kind, "sha256": digest_of(feeds)},
        "conditions": {"before": before, "after": conditions()},
        **{key: answer[key] for key in keys},
        **_scores(artifact, {name: values[0] for name, values in last.items()}),
    }
    answered: MeasureAnswer = found
    return answered


def _artifact(path: str, runtime: str | None) -> Artifact:
    artifact = Artifact.open(Path(path))
    engine = engine_id(artifact)
    if runtime not in (None, engine):
        raise UsageError(f"{path} runs on {engine} in a browser, not on {runtime}", "leave out --runtime")
    return artifact


def engine_id(artifact: Artifact) -> str:
    """Return the engine that the artifact's page uses. Raises InputError for an artifact without a page."""
    facts: Any = browser_facts(artifact)
    return str(facts["engine"])


def _device(options: EngineOptions) -> str:
    if options.device not in DEVICES:
        raise UsageError(f"a browser has no device '{options.device}'", f"its devices: {', '.join(DEVICES)}")
    return options.device


def _run(artifact: Artifact, job: PageJob, options: EngineOptions, report: Report) -> Any:
    unknown = sorted(set(options.settings) - set(SETTINGS))
    if unknown:
        raise UsageError(f"a browser has no setting '{unknown[0]}'", f"its settings: browser ({SETTINGS['browser']})")
    report({"phase": "opening the browser"})
    return run_page(
        artifact, job, browser=options.settings.get("browser"), on_phase=lambda phase: report({"phase": phase})
    )


def _judge(artifact: Artifact, answer: Any) -> Verdict:
    """Check the page's outputs for the self-check, in every inference that it ran; the first failure counts."""
    rule = artifact.manifest.selfcheck
    if rule is None:
        raise InputError(f"{artifact.model} has no self-check", "write the artifact again with edge convert")
    _, expected = artifact.selfcheck()
    verdict = Verdict(passed=False, message="the page did not run its self-check")
    for outputs in answer["proofs"]:
        rows = [list(row) for row in zip(*outputs, strict=True)]
        verdict = judge(rule, expected, _stack(artifact, rows), artifact.manifest.precision)
        if not verdict.passed:
            break
    return verdict


def _stack(artifact: Artifact, rows: Sequence[Sequence[str]]) -> Arrays:
    """Return outputs by name, stacked, from the values of each output of each sample in base64."""
    found = {}
    for place, spec in enumerate(artifact.manifest.outputs):
        free = [axis for axis, size in enumerate(spec.shape) if isinstance(size, str)]
        sizes = [size if isinstance(size, int) else 1 for size in spec.shape]
        if free:
            sizes[free[-1]] = -1  # whatever the values fill, such as rows whose number depends on the picture
        values = [np.frombuffer(base64.b64decode(row[place]), "<f4").reshape(sizes) for row in rows]
        found[spec.name] = pad(values, free[-1]) if free else np.stack(values)
    return found


def _inputs(job: MeasureJob, artifact: Artifact) -> tuple[Arrays, str]:
    """Return the input of all runs, and its kind."""
    stored = load_arrays(Path(job.inputs)) if job.inputs else artifact.selfcheck()[0]
    rule = artifact.manifest.selfcheck
    kind = job.input_kind if job.inputs else "picture" if rule and rule.inputs == "pictures" else "synthetic"
    return {name: values[0] for name, values in stored.items()}, kind


def _scores(artifact: Artifact, answer: Arrays) -> MeasureAnswer:
    spec = artifact.manifest.outputs[0]
    return scores(artifact, replace(spec, dtype="float32", quantization=None), answer)


HANDLERS: Mapping[str, Handler] = {"verify": handler(VerifyJob, verify), "measure": handler(MeasureJob, measure)}

if __name__ == "__main__":
    serve(HANDLERS)
