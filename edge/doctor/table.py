"""What `edge table` needs: its packages, and MobileNetV2's trained weights."""

from __future__ import annotations

from collections.abc import Iterator

from edge.doctor.finding import Check, Finding
from edge.doctor.situation import Situation
from runtimes import registry
from runtimes.errors import InputError

# What the extra `table` of pyproject.toml installs; a package, or any of several that do the same.
_PACKAGES = (
    ("keras",),
    ("tensorflow-cpu", "tensorflow"),
    ("onnxruntime", "onnxruntime-gpu"),
    ("ai-edge-litert", "tflite-runtime"),
    ("openvino",),
    ("onnx",),
    ("tf2onnx",),
    ("nncf",),
    ("safetensors",),
)


def packages(situation: Situation) -> Iterator[Finding]:
    """The table measures what is installed and says of the rest how to add it."""
    missing = [names[0] for names in _PACKAGES if not any(name in situation.packages for name in names)]
    if missing:
        yield Finding(
            "note",
            f"edge table would leave out rows, for want of {', '.join(missing)}",
            "each of its rows needs an engine, and the converter that makes the engine's format",
            registry.install_hint("table"),
        )
    else:
        yield Finding("ok", "all packages that edge table needs")


def pictures(situation: Situation) -> Iterator[Finding]:
    """Pictures are decoded by Pillow."""
    if "pillow" not in situation.packages:
        yield Finding(
            "warning",
            "Pillow is not installed",
            "edge run and edge table cannot read pictures without it",
            registry.install_hint("pictures"),
        )


def weights(situation: Situation) -> Iterator[Finding]:
    """Without trained weights the table measures speed, and answers mean nothing."""
    try:
        place = situation.trained_weights()
    except InputError as error:
        yield Finding("error", error.message, "edge table takes MobileNetV2's weights from there", error.hint)
        return
    if place is not None:
        yield Finding("ok", f"MobileNetV2's trained weights: {place}")
        return
    yield Finding(
        "note",
        "MobileNetV2's trained weights are not on this machine",
        "edge table then measures a network with random weights: its times are right, its answers mean nothing",
        "edge table --fetch-weights (14 MB), or edge table --weights FILE",
    )


CHECKS: tuple[Check, ...] = (packages, pictures, weights)
