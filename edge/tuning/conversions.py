"""Convert a model to every format and precision that an engine of this machine opens, so that each can be tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import edge
from converters.registry import all_converters
from runtimes.artifact import Artifact
from runtimes.errors import EdgeError
from runtimes.registry import for_format

# Worth trying for speed, in this order; int8 needs calibration data.
_PRECISIONS = ("fp32", "fp16", "int8")


def convert_all(
    model: Path, folder: Path, calibration: Path | None, on_text: Callable[[str], None]
) -> Iterator[tuple[str, Path | str]]:
    """Yield a name for each conversion, with its artifact or the reason why there is none.

    Artifacts that are in `folder` already, from an earlier call with the same model, are taken as they are. A
    conversion whose proof fails is a reason.
    """
    for target, precision in _other_formats(model, with_int8=calibration is not None):
        name = f"{model.stem}-{target}-{precision}"
        out = folder / name
        if (out / "manifest.json").is_file():
            yield name, out
            continue
        on_text(f"converting to {target} in {precision}")
        try:
            found = edge.convert(model, out, format=target, precision=precision, calibration=calibration)
        except EdgeError as error:
            yield name, error.message
        else:
            yield name, found.artifact or out


def _other_formats(model: Path, *, with_int8: bool) -> Iterator[tuple[str, str]]:
    """Yield formats that an installed engine opens, and precisions, except for the model's own."""
    own = _format_and_precision(model)
    for target in sorted({one.target for one in all_converters()}):
        precisions = {
            one for converter in all_converters() if converter.target == target for one in converter.precisions
        }
        for precision in _PRECISIONS:
            skipped = (target, precision) == own or (precision == "int8" and not with_int8)
            if precision in precisions and not skipped and _is_ready(target):
                yield target, precision


def _format_and_precision(model: Path) -> tuple[str, str] | None:
    try:
        manifest = Artifact.open(model).manifest
    except EdgeError:  # a kind of source that is not an artifact, such as a folder of Hugging Face
        return None
    return manifest.format, manifest.precision


def _is_ready(target: str) -> bool:
    try:
        for_format(target)
    except EdgeError:
        return False
    return True
