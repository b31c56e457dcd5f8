"""The worker process of conversions: `python -m converters.worker` serves the jobs of `runtimes.worker`, and more.

A converter that crashes ends this process and becomes one line in the parent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.pipeline import convert as run_conversion
from converters.request import Request
from converters.steps import StepOptions
from runtimes.artifact import Artifact, Preprocess
from runtimes.errors import HostError
from runtimes.fields import Fields
from runtimes.worker import HANDLERS as RUNTIME_HANDLERS
from runtimes.worker import Handler, Job, Report, save_arrays, serve

_SAMPLES_A_REPORT = 10


def convert(job: Job, report: Report) -> dict[str, Any]:
    """The job of one conversion: the fields of `Request` by name, `artifact` for its source. See `pipeline.convert`."""
    try:
        return run_conversion(request_of(job), report)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise HostError(f"cannot read or write{where}: {error.strerror or error}", "is the disk full?") from error


def request_of(job: Job) -> Request:
    """The request that a job describes."""
    fields = Fields(dict(job), "the job")
    return Request(
        source=Path(fields.text("artifact")),
        steps=fields.texts("steps"),
        format=fields.text("format"),
        options=StepOptions(**fields.mapping("options")),
        out=Path(fields.text("out")),
        scratch=Path(fields.text("scratch")),
        samples=_path(fields, "samples"),
        preprocess=fields.optional("preprocess", Preprocess.read),
        kind=fields.text("kind") if fields.has("kind") else None,
        label_offset=fields.whole("label_offset") if fields.has("label_offset") else None,
        labels=_path(fields, "labels"),
        kept=fields.text("kept") if fields.has("kept") else "",
        origin=fields.mapping("origin") if fields.has("origin") else None,
        evaluation=_path(fields, "evaluation"),
        max_drop=fields.number("max_drop") if fields.has("max_drop") else 0.01,
    )


def export(job: Job, _report: Report) -> dict[str, Any]:
    """Export the PyTorch model that the fields of `TorchSource` tell into the folder `out`; answers {"model"}."""
    from converters.torch_source import TorchInput, TorchSource
    from converters.torch_source import export as run_export

    inputs = tuple(TorchInput(name, tuple(shape), dtype) for name, shape, dtype in job["inputs"])
    weights = Path(job["weights"]) if job["weights"] else None
    source = TorchSource(job["kind"], job["where"], inputs, weights, job["trusted"])
    return {"model": str(run_export(source, Path(job["out"])))}


def samples(job: Job, report: Report) -> dict[str, Any]:
    """Run the user's code that `artifact` names for calibration samples, and write them to the .npz `out` (null: none).

    Answers {"count", "stopped", "digest"}, as in `converters.generated.Generated`.
    """
    from converters.generated import generate

    def tell(count: int) -> None:
        if count % _SAMPLES_A_REPORT == 1:
            report({"doing": f"{job['doing']} ({count})", "done": 0})

    found = generate(job["artifact"], tell)
    if job["out"]:
        save_arrays(Path(job["out"]), found.arrays)
    return {"count": len(found), "stopped": found.stopped, "digest": found.digest}


def build(job: Job, _report: Report) -> dict[str, Any]:
    """Build MobileNetV2 from `weights` (null: random ones) for `framework` in the folder `out`; answers {"model"}."""
    from converters import mobilenet_v2

    fields = Fields(dict(job), "the job")
    weights = mobilenet_v2.weights_of(_path(fields, "weights"))
    return {"model": str(mobilenet_v2.build(Path(fields.text("out")), weights, fields.text("framework")))}


def logit_head(job: Job, _report: Report) -> dict[str, Any]:
    """Cut the softmax off `artifact` into the folder `out`; answers {"proof"}."""
    from converters.logit_head import write_logit_head

    return {"proof": write_logit_head(Artifact.open(Path(job["artifact"])), Path(job["out"]))}


def convert_text(job: Job, report: Report) -> dict[str, Any]:
    """The job of one language model: the fields of `TextRequest` by name, `artifact` for its source."""
    from converters.text_pipeline import TextRequest
    from converters.text_pipeline import convert_text as run_text_conversion

    fields = Fields(dict(job), "the job")
    request = TextRequest(
        source=Path(fields.text("artifact")),
        kind=fields.text("kind"),
        options=StepOptions(**fields.mapping("options")),
        out=Path(fields.text("out")),
        scratch=Path(fields.text("scratch")),
        base=_path(fields, "base"),
        kept=fields.text("kept"),
    )
    try:
        return run_text_conversion(request, report)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise HostError(f"cannot read or write{where}: {error.strerror or error}", "is the disk full?") from error


def _path(fields: Fields, key: str) -> Path | None:
    return Path(fields.text(key)) if fields.has(key) else None


HANDLERS: dict[str, Handler] = {
    **RUNTIME_HANDLERS,
    "convert": convert,
    "export": export,
    "samples": samples,
    "build": build,
    "logit_head": logit_head,
    "convert_text": convert_text,
}

if __name__ == "__main__":
    serve(HANDLERS)
