"""The worker process of conversions with an accuracy check: `python -m edge.evaluation.worker`.

It serves the jobs of `converters.worker`. Its conversions compare the top-1 accuracy of the result with that of the
source (`edge.evaluation.accuracy`), and are repeated with some layers in higher precision if it falls too far.
"""

from __future__ import annotations

from converters.pipeline.request import ConvertRequest, ConvertResult
from converters.worker import HANDLERS as CONVERTER_HANDLERS
from converters.worker import convert as run_conversion
from edge.evaluation.accuracy import accuracy_gate
from runtimes.job_server import Handler, handler, serve
from runtimes.jobs import Report


def convert(request: ConvertRequest, report: Report) -> ConvertResult:
    """Run a conversion, and measure its accuracy if the request has labeled inputs."""
    return run_conversion(request, report, accuracy_gate)


HANDLERS: dict[str, Handler] = {**CONVERTER_HANDLERS, "convert": handler(ConvertRequest, convert)}

if __name__ == "__main__":
    serve(HANDLERS)
