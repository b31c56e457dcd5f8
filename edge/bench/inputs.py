"""What a benchmark feeds: an `.npz` as it is, or a picture, made into the model's input as `edge run` does."""

from __future__ import annotations

import sys
from pathlib import Path

from edge.bare_given import Given
from edge.classify import Engine, prepare
from edge.pictures import load_pixels
from edge.preprocessing import Said
from edge.workers import Worker
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.tensors import pixels_to_input
from runtimes.worker import save_arrays


def stacked_inputs(given: Path, artifact: Artifact, said: Said, engine: Engine, target: Path) -> tuple[Path, str]:
    """The `.npz` to feed from, and what it holds: "arrays", or "picture", which is then written to `target`.

    What is assumed of a bare model is said on stderr; UsageError, naming the options, for what must be said.
    """
    if not given.is_file():
        raise InputError(f"{given} is not a file", "give a picture, or an .npz of stacked inputs")
    if given.suffix == ".npz":
        return given, "arrays"
    manifest = _complete(artifact, said, engine).manifest
    assert manifest.preprocess is not None
    tensor = pixels_to_input(load_pixels(given, manifest.preprocess), manifest.inputs[0], manifest.preprocess)
    save_arrays(target, {manifest.inputs[0].name: tensor[None]})
    return target, "picture"


def _complete(artifact: Artifact, said: Said, engine: Engine) -> Artifact:
    """The artifact with a manifest that says how a picture goes in."""
    if artifact.manifest.preprocess is not None and artifact.manifest.inputs and said == Said():
        return artifact
    with Worker() as worker:
        classifier = prepare(artifact, Given(said), worker, engine)
    for line in classifier.assumptions:
        print(f"assumed: {line}", file=sys.stderr)
    return classifier.artifact
