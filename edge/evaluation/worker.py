"""The worker process of conversions with an accuracy check: `python -m edge.evaluation.worker`.

It serves the jobs of `converters.worker`. Its conversions compare the result with the source on labeled inputs, by
top-1 accuracy (`edge.evaluation.accuracy`) or by the metric of the task (`edge.evaluation.task_gate`), and are repeated
with some layers in higher precision if it falls too far.
"""

from __future__ import annotations

from converters.pipeline.gate import Gate
from converters.pipeline.reference import Reference
from converters.pipeline.request import ConvertRequest, ConvertResult
from converters.sources.source import OpenedSource
from converters.worker import HANDLERS as CONVERTER_HANDLERS
from converters.worker import convert as run_conversion
from edge.evaluation.accuracy import make_accuracy_gate
from edge.evaluation.task_gate import make_task_gate
from runtimes.job_server import Handler, handler, serve
from runtimes.jobs import Report
from runtimes.session import Session


def convert(request: ConvertRequest, report: Report) -> ConvertResult:
    """Run a conversion, and measure its accuracy if the request has labeled inputs."""
    return run_conversion(request, report, _gate)


def _gate(request: ConvertRequest, source: OpenedSource, reference: Reference, session: Session) -> Gate:
    if request.task is not None and request.evaluation is not None and request.evaluation.suffix != ".npz":
        return make_task_gate(request, source, reference, session)
    assert request.evaluation is not None
    return make_accuracy_gate(request.evaluation, request.max_drop, reference, session)


HANDLERS: dict[str, Handler] = {**CONVERTER_HANDLERS, "convert": handler(ConvertRequest, convert)}

if __name__ == "__main__":
    serve(HANDLERS)
