"""One conversion from the host's side: pictures are decoded here, all else happens in a worker process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.calibration import MOST, PIXELS
from converters.environments import environment
from converters.hf_folder import PROCESSOR, HfFolder, read_folder
from converters.meaning import read_labels
from converters.source import Source
from converters.staging import ARTIFACT, failed_place, staging
from converters.steps import StepOptions
from converters.torch_source import HUGGING_FACE, TorchSource
from converters.user_code import is_reference
from edge.evaluation import find_labelled, write_evaluation
from edge.generated import write_samples
from edge.pictures import load_all, picture_files
from edge.plan import Plan
from edge.preprocessing import Said, override, preprocess_for
from edge.torch_model import exported
from edge.workers import Worker
from runtimes.artifact import Preprocess, TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.fields import Fields
from runtimes.worker import save_arrays

_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Given:
    """What the user handed over beside the model: calibration data, labels, and what they said of input and output.

    `evaluate` is a folder of labelled pictures (`edge.evaluation`) or an .npz of labelled inputs, on which top-1 may
    fall by `max_drop`, 0 to 1. `torch` is the model itself where it has to be exported first. `pythons` are looked at
    first where an environment has to be made. `calibration` is a folder of pictures, an .npz, or the user's own code.
    """

    calibration: Path | None = None
    labels: Path | None = None
    said: Said = field(default_factory=Said)
    kind: str | None = None
    label_offset: int | None = None
    evaluate: Path | None = None
    max_drop: float = 0.01
    torch: TorchSource | None = None
    pythons: tuple[Path, ...] = ()


def convert(
    source: Source,
    plan: Plan,
    out: Path,
    given: Given,
    force: bool = False,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Convert as planned into the folder `out`: {"artifact", "format", "precision", "files", "proof", "notes", "left"}.

    `out` appears whole or not at all; a result that fails its proof is kept as `<out>.failed` and a ProofError tells.
    """
    with staging(out, force) as work, Worker("converters.worker") as worker:
        _make_environments(plan, given, on_progress or (lambda _progress: None))
        if given.torch is not None:
            source = exported(given.torch, work, worker)
        given, folder = _with_folder(given, work)
        preprocess, notes = _preprocess(source, given.said, folder, worker)
        samples, more = _samples(given.calibration, preprocess, work, on_progress)
        job = {
            "job": "convert",
            "artifact": str(source.artifact.path if not source.artifact.is_bare else source.model),
            "steps": list(plan.steps),
            "format": plan.format,
            "options": asdict(_options(plan)),
            "out": str(work / ARTIFACT),
            "scratch": str(work / "steps"),
            "samples": samples,
            "preprocess": asdict(preprocess) if preprocess else None,
            "kind": given.kind,
            "label_offset": given.label_offset,
            "labels": str(given.labels) if given.labels else None,
            "kept": str(failed_place(out)),
            "evaluation": _evaluation(given, source, preprocess, work),
            "max_drop": given.max_drop,
            "origin": given.torch.origin() if given.torch else None,
        }
        answer = worker.run(job, timeout_s=_TIMEOUT_S, on_progress=on_progress)
    return {"artifact": str(out), **answer, "notes": [*notes, *more, *answer["notes"]]}


def _make_environments(plan: Plan, given: Given, on_progress: Callable[[dict[str, Any]], None]) -> None:
    """Here, where progress is seen, and before anything else: it may take minutes, or not be possible."""
    for name in plan.environments:
        environment(name).create(given.pythons, lambda text: on_progress({"doing": text, "done": 0}))


def _options(plan: Plan) -> StepOptions:
    return StepOptions(
        precision=plan.precision,
        opset=plan.opset,
        release=plan.release,
        implicit=plan.implicit,
        min_mapped=plan.min_mapped,
        old_runtime=plan.old_runtime,
    )


def _with_folder(given: Given, work: Path) -> tuple[Given, HfFolder]:
    """What a Hugging Face folder says of labels and output, where the user said nothing of them."""
    if given.torch is None or given.torch.kind != HUGGING_FACE:
        return given, HfFolder()
    folder = read_folder(Path(given.torch.where))
    labels = given.labels
    if folder.labels and labels is None:
        labels = work / "labels.txt"
        labels.write_text("\n".join(folder.labels) + "\n", encoding="utf-8")
    return replace(given, labels=labels, kind=given.kind or folder.kind), folder


def _preprocess(source: Source, said: Said, folder: HfFolder, worker: Worker) -> tuple[Preprocess | None, list[str]]:
    """What was said, else the manifest or the folder, and notes; the model is opened only where its shapes count."""
    known, notes = source.artifact.manifest.preprocess or folder.preprocess, list(folder.notes)
    if not said.anything and not folder.preprocess:
        return known, notes
    specs = source.artifact.manifest.inputs or _described(source, worker)
    if said.anything and len(specs) != 1:
        raise UsageError(f"the model takes {len(specs)} inputs, not one picture", "leave out --preprocess")
    if folder.preprocess and (len(specs) != 1 or specs[0].shape[2:] != folder.preprocess.crop):
        known = None
        notes.append(f"{PROCESSOR} makes other pictures than the model takes, so it is not used")
    if not said.anything:
        return known, notes
    return override(known, said, specs[0]) if known else preprocess_for(said, specs[0]), notes


def _described(source: Source, worker: Worker) -> tuple[TensorSpec, ...]:
    answer = worker.run({"job": "describe", "artifact": str(source.model)}, timeout_s=_TIMEOUT_S)
    return tuple(TensorSpec.read(spec) for spec in Fields(answer, str(source.model)).children("inputs"))


def _samples(
    calibration: Path | None,
    preprocess: Preprocess | None,
    work: Path,
    on_progress: Callable[[dict[str, Any]], None] | None,
) -> tuple[str | None, list[str]]:
    """The .npz of real inputs for the worker, and notes: an own one, what own code yields, or decoded pictures."""
    if calibration is None:
        return None, []
    place = work / "samples.npz"
    if is_reference(str(calibration)):
        return str(place), write_samples(str(calibration), place, on_progress)
    if calibration.suffix == ".npz":
        if not calibration.is_file():
            raise InputError(f"{calibration} does not exist", "give a folder of pictures or an .npz")
        return str(calibration), []
    paths = picture_files(calibration)
    if preprocess is None:
        raise _no_way()
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), MOST)).astype(int)]
    save_arrays(place, {PIXELS: load_all(chosen, preprocess)})
    return str(place), []


def _evaluation(given: Given, source: Source, preprocess: Preprocess | None, work: Path) -> str | None:
    """The .npz of labelled inputs for the worker: the user's own, or decoded pictures."""
    place = given.evaluate
    if place is None or place.suffix == ".npz":
        if place is not None and not place.is_file():
            raise InputError(f"{place} does not exist", "give a folder of labelled pictures or an .npz")
        return str(place) if place else None
    labelled = find_labelled(place).spread()
    if preprocess is None:
        raise _no_way()
    labels = read_labels(given.labels) if given.labels else source.artifact.labels()
    write_evaluation(work / "evaluation.npz", labelled, preprocess, labels)
    return str(work / "evaluation.npz")


def _no_way() -> UsageError:
    return UsageError(
        "pictures were given, but not how the model takes them",
        "say it with --preprocess, or --mean and --scale (see `edge convert --help`)",
    )
