"""Check what `edge table` needs: its packages, and MobileNetV2's trained weights."""

from __future__ import annotations

from collections.abc import Iterator

from edge.doctor.snapshot import Check, Finding, Snapshot
from runtimes import registry
from runtimes.errors import InputError

# What the extra `table` of pyproject.toml installs; each entry lists equivalent packages.
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


def packages(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for the packages of the table's rows: rows without theirs are left out."""
    missing = [names[0] for names in _PACKAGES if not any(name in snapshot.packages for name in names)]
    if missing:
        yield Finding(
            level="note",
            what=f"edge table would leave out rows, because {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed",
            why="each of its rows needs an engine, and the converter that writes the engine's format",
            fix=registry.install_hint("table"),
        )
    else:
        yield Finding(level="ok", what="all packages that edge table needs")


def pictures(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for Pillow, which decodes pictures."""
    if "pillow" not in snapshot.packages:
        yield Finding(
            level="warning",
            what="Pillow is not installed",
            why="edge run and edge table cannot read pictures without it",
            fix=registry.install_hint("pictures"),
        )


def weights(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for trained weights: without them the table measures speed, but answers are meaningless."""
    try:
        path = snapshot.trained_weights()
    except InputError as error:
        yield Finding(
            level="error", what=error.message, why="edge table reads MobileNetV2's weights from there", fix=error.hint
        )
        return
    if path is not None:
        yield Finding(level="ok", what=f"MobileNetV2's trained weights: {path}")
        return
    yield Finding(
        level="note",
        what="MobileNetV2's trained weights are not on this machine",
        why="edge table then measures a network with random weights: its times are valid, its answers are meaningless",
        fix="edge table --fetch-weights (14 MB), or edge table --weights FILE",
    )


CHECKS: tuple[Check, ...] = (packages, pictures, weights)
