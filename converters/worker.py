"""The worker process of conversions: `python -m converters.worker` serves the jobs of `runtimes.worker`, and more.

A crashing converter only kills this process; the parent reports it as an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from converters.environments.process import kept_processes
from converters.pipeline.convert import convert as run_conversion
from converters.pipeline.gate import MakeGate
from converters.pipeline.request import (
    ConvertRequest,
    ConvertResult,
    ExportedModel,
    ExportJob,
    LlmConvertRequest,
    SamplesAnswer,
    SamplesJob,
)
from converters.sources import exporting_source
from converters.sources.source import Export
from runtimes.arrays import save_arrays
from runtimes.errors import HostError
from runtimes.job_server import Handler, handler, serve
from runtimes.jobs import Report
from runtimes.worker import HANDLERS as RUNTIME_HANDLERS

_SAMPLES_A_REPORT = 10


def convert(request: ConvertRequest, report: Report, make_gate: MakeGate | None = None) -> ConvertResult:
    """Run a conversion, see `pipeline.convert`."""
    with _disk_errors(), kept_processes():
        return run_conversion(request, report, make_gate)


def export(job: ExportJob, _report: Report) -> ExportedModel:
    """Export a model; see `ExportingSource`."""
    return ExportedModel(
        Export(source=exporting_source(job.source), path=Path(job.where), options=job.options).run(job.out)
    )


def samples(job: SamplesJob, report: Report) -> SamplesAnswer:
    """Run the user's code for calibration samples; see `converters.calibration.generator`."""
    from converters.calibration.generator import generate

    def report_count(count: int) -> None:
        if count % _SAMPLES_A_REPORT == 1:
            report({"doing": f"{job.doing} ({count})", "done": 0})

    found = generate(job.where, report_count)
    if job.out:
        save_arrays(job.out, found.arrays)
    return SamplesAnswer(count=len(found), stopped=found.stopped, digest=found.digest)


def convert_text(request: LlmConvertRequest, report: Report) -> ConvertResult:
    """Convert a language model, see `pipeline.language_model`."""
    from converters.pipeline.language_model import convert_text as run_text_conversion

    with _disk_errors():
        return run_text_conversion(request, report)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise HostError(f"cannot read or write{where}: {error.strerror or error}", "is the disk full?") from error


HANDLERS: dict[str, Handler] = {
    **RUNTIME_HANDLERS,
    "convert": handler(ConvertRequest, convert),
    "export": handler(ExportJob, export),
    "samples": handler(SamplesJob, samples),
    "convert_text": handler(LlmConvertRequest, convert_text),
}

if __name__ == "__main__":
    serve(HANDLERS)
