"""A result that is right too seldom: the layers to blame, and the same model with those in higher precision."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from converters.blame import SAMPLES, KeepsLayers, Layer, growing
from converters.calibration import Calibration
from converters.route import Done
from converters.steps import Made


def blamed(done: tuple[Done, ...]) -> list[Layer]:
    """The layers of the step that quantised, the worst first; empty where none did or it cannot tell."""
    for one in done:
        calibration = one.task.calibration
        if calibration is not None and isinstance(one.task.step, KeepsLayers):
            few = Calibration({name: values[:SAMPLES] for name, values in calibration.samples.items()})
            return one.task.step.layer_errors(one.task.model, one.made.model, one.task.options, few)
    return []


def can_keep(done: tuple[Done, ...]) -> bool:
    """Whether the last step can leave layers in higher precision; what follows it (a compiler) could not take them."""
    return bool(done) and done[-1].task.calibration is not None and isinstance(done[-1].task.step, KeepsLayers)


def mended(last: Done, layers: list[Layer]) -> Iterator[tuple[tuple[str, ...], Made]]:
    """The last step once more and again, with more and more layers kept, each time into an empty folder."""
    for keep in growing(layers):
        _empty(last.task.folder)
        yield keep, replace(last.task, options=replace(last.task.options, keep=keep)).run()


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
