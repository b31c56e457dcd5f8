"""ONNX → what a board needs to build a TensorRT engine: a shaped ONNX model, a build script, a Python builder.

An engine works only on the kind of GPU and the release that built it, so the board builds it: `build.sh` with the
board's own trtexec, `build_engine.py` with its tensorrt module. Here the graph is proven with ONNX Runtime.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.quiet import converting
from converters.steps import Made, StandIn, StepOptions, check_options
from converters.tensorrt.quantising import cache_text, input_names, largest_values, prepared, with_scales
from converters.tensorrt.releases import Release
from converters.tensorrt.script import script
from converters.tensorrt.shaping import in_half, refuse_unsupported, shaped, write
from runtimes import tensorrt_build

if TYPE_CHECKING:
    from converters.calibration import Calibration

CACHE = "calibration.cache"
SCRIPT = "build.sh"
BUILDER = "build_engine.py"


class Step:
    """Writes `<model name>.onnx`, `build.sh` and `build_engine.py`; implicit int8 adds `calibration.cache`."""

    source = "onnx"
    target = "tensorrt"
    precisions = ("fp32", "fp16", "int8")
    requires = ("onnx", "onnxruntime")

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Made:
        """Shape the graph for `options.release`, the newest of a Jetson where none is given.

        RefusedError naming each node that the release cannot build; see `converters.steps.Step`.
        """
        check_options(self, options, calibration)
        release = Release.asked(options.release)
        if options.implicit:
            release.check_implicit()
        refuse_unsupported(model, release)
        proto = shaped(model, release, options.opset, options.batch)
        path = out / f"{model.stem}.onnx"
        with converting(model, "ONNX Runtime's quantiser"):
            if options.precision == "int8" and calibration is not None:
                stand_in = _quantised(proto, path, release, options, calibration)
            else:
                stand_in = _floating(proto, path, release, options)
        notes = (*refuse_unsupported(path, release, is_shaped=True), *_notes(path, stand_in))
        _write_builders(path, release, options)
        return Made(path, None, stand_in, _facts(release, options), notes, _left(release))


def _floating(proto: Any, path: Path, release: Release, options: StepOptions) -> StandIn | None:
    """fp16 is a flag of the builder, or where there are no flags any more, written into the graph."""
    if options.precision == "fp32":
        return StandIn(write(proto, path), "onnx")
    half = in_half(proto)
    if release.is_strongly_typed:
        return StandIn(write(half, path), "onnx")
    write(proto, path)
    return _beside(half, path, options)


def _quantised(
    proto: Any, path: Path, release: Release, options: StepOptions, calibration: Calibration
) -> StandIn | None:
    """Scales in the graph; for implicit int8 in a cache beside the float graph, which the same ranges in QDQ prove."""
    names = input_names(proto)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        float_model = prepared(write(proto, scratch / "float.onnx"), scratch)
        with_qdq = with_scales(float_model, scratch / "qdq.onnx", calibration, names)
        if not options.implicit:
            return StandIn(write(with_qdq, path), "onnx")
        largest = largest_values(scratch / "float.onnx", scratch, calibration, names)
    path.with_name(CACHE).write_text(cache_text(largest, release), encoding="ascii")
    write(proto, path)
    return _beside(with_qdq, path, options)


def _beside(proto: Any, path: Path, options: StepOptions) -> StandIn | None:
    """A stand-in that is no part of the result."""
    if options.scratch is None:
        return None
    folder = Path(options.scratch) / "stand-in"
    folder.mkdir(parents=True, exist_ok=True)
    return StandIn(write(proto, folder / path.name), "onnx")


def _notes(path: Path, stand_in: StandIn | None) -> tuple[str, ...]:
    if stand_in is None or stand_in.model == path:
        return ()
    what = "a graph of the same precision was run in its place: which layers TensorRT computes in it, the board decides"
    return (what,)


def _write_builders(path: Path, release: Release, options: StepOptions) -> None:
    cache = CACHE if options.implicit else None
    place = path.with_name(SCRIPT)
    place.write_text(script(path.name, release, options.precision, cache), encoding="utf-8")
    place.chmod(0o755)
    shutil.copyfile(tensorrt_build.__file__, path.with_name(BUILDER))


def _facts(release: Release, options: StepOptions) -> dict[str, Any]:
    return {"tensorrt": {"release": release.text, "cache": CACHE if options.implicit else None}}


def _left(release: Release) -> tuple[str, ...]:
    return (
        f"the engine is built on the board, with {release}: copy the folder there and run sh {SCRIPT}",
        f"or python3 {BUILDER}, which keeps one engine for each GPU, CUDA and TensorRT",
    )
