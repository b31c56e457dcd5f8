"""Build MobileNetV2 1.0/224, the network of the published table, from weights.

weights = find_weights()
model = build(folder, weights, "keras")
"""

from __future__ import annotations

from pathlib import Path

from edge.inference.facts import class_names
from edge.table.mobilenet_v2.architecture import SIZE
from edge.table.mobilenet_v2.random_weights import generated_picture
from edge.table.mobilenet_v2.weights import WeightsOrigin, data_folder, download, find_weights, load_weights, weights_of
from runtimes.artifact.manifest import OutputMeaning, Preprocess
from runtimes.errors import UsageError

__all__ = [
    "FRAMEWORKS",
    "LABELS",
    "WeightsOrigin",
    "build",
    "data_folder",
    "download",
    "find_weights",
    "generated_picture",
    "load_weights",
    "meaning",
    "preprocess",
    "weights_of",
]

LABELS = "labels.txt"
# Framework → the layout of its input.
FRAMEWORKS = {"keras": "NHWC", "torch": "NCHW"}


def build(folder: Path, weights: WeightsOrigin, framework: str) -> Path:
    """Write the model and its labels file into the existing `folder`; returns the model file's path.

    `framework` is "keras" (`mobilenet_v2.keras`) or "torch" (`mobilenet_v2.pt2`). Output: probabilities.
    The same weights give the same bytes. Raises EngineMissingError if the framework is not installed.
    """
    _check(framework)
    (folder / LABELS).write_text("\n".join(labels(weights)) + "\n", encoding="utf-8")
    if framework == "keras":
        from edge.table.mobilenet_v2.keras_model import write_keras

        return write_keras(load_weights(weights), folder / "mobilenet_v2.keras")
    from edge.table.mobilenet_v2.torch_model import write_torch

    return write_torch(load_weights(weights), folder / "mobilenet_v2.pt2")


def preprocess(framework: str) -> Preprocess:
    """Return the preprocessing of a picture: shorter side 256, center crop 224, bilinear, RGB, p / 127.5 − 1."""
    _check(framework)
    return Preprocess(
        resize="shorter_side",
        size=256,
        crop=(SIZE, SIZE),
        method="bilinear",
        layout=FRAMEWORKS[framework],
        color="RGB",
        mean=(127.5,) * 3,
        scale=(1 / 127.5,) * 3,
    )


def meaning(weights: WeightsOrigin) -> OutputMeaning:
    """Return the meaning of the output's values."""
    return OutputMeaning("probability", weights.label_offset, LABELS)


def labels(weights: WeightsOrigin) -> list[str]:
    """Return one name per class."""
    return ["background"] * weights.label_offset + class_names()


def _check(framework: str) -> None:
    if framework not in FRAMEWORKS:
        raise UsageError(f"MobileNetV2 is not built for '{framework}'", f"frameworks: {', '.join(FRAMEWORKS)}")
