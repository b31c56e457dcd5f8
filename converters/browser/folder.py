"""Write a folder that any static host can serve: the model, the page, the engine's files, and the licenses."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import ConversionOutput
from converters.browser.engines import BrowserEngine
from converters.browser.packages import read_file
from converters.options import ConvertOptions, option
from runtimes.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from runtimes.artifact import TensorSpec
    from runtimes.artifact.json_fields import JsonObject

_HERE = Path(__file__).parent
_PAGE = _HERE / "page"
_LICENSES = _HERE / "licenses"
_MAX_SELFCHECK_BYTES = 1_500_000  # every visitor loads it; two pictures of 224 × 224 in float32 take 1.2 MB
_AT_ROOT = ("index.html", "service-worker.js")  # a service worker serves the folder that it is in


@dataclass(frozen=True, kw_only=True)
class BrowserOptions(ConvertOptions):
    """The additional builds of the engine that the folder gets."""

    title = "for the browser"

    compat: bool = option(False, "add the engine's build for browsers without relaxed SIMD (LiteRT.js)")
    webgpu: bool = option(False, "add the engine's build for WebGPU (ONNX Runtime Web; LiteRT.js always has it)")


def builds_of(engine: BrowserEngine, options: ConvertOptions) -> tuple[str, ...]:
    """Return the engine's builds that the options ask for."""
    own = BrowserOptions.of(options)
    asked = [name for name, wanted in (("webgpu", own.webgpu), ("compat", own.compat)) if wanted]
    return tuple(build for build in engine.builds if build in (*engine.default_builds, *asked))


def check_builds(engine: BrowserEngine, options: ConvertOptions) -> None:
    """Raise UsageError for a build that the engine does not have, and for a free batch."""
    if BrowserOptions.of(options).compat and "compat" not in engine.builds:
        raise UsageError(f"--compat does not apply to {engine.title}", "leave it out: it runs without relaxed SIMD")
    if options.batch is None:
        raise UsageError("a model for the browser needs a fixed batch", "leave the batch at 1")


def notes_of(engine: BrowserEngine, options: ConvertOptions) -> tuple[str, ...]:
    """Return notes for a plan: which engine, why, and the sizes."""
    builds = builds_of(engine, options)
    parts = ", ".join(f"{build} {_megabytes(engine.size((build,)))}" for build in builds)
    reasons = {
        "litert_js": "it runs the same .tflite as phones, and int8 fastest",
        "ort_web": "the model is ONNX, and no .tflite is written without an isolated environment",
    }
    return (
        f"engine: {engine.title} {engine.version}, because {reasons[engine.id]}",
        f"size: {_megabytes(engine.size(builds))} for the engine ({parts}; a visitor loads one), and the model",
    )


def check_tensors(engine: BrowserEngine, specs: Sequence[TensorSpec], model: Path) -> None:
    """Raise RefusedError for an input or output that the engine does not take."""
    for spec in specs:
        if spec.dtype not in engine.dtypes:
            known = f"{', '.join(engine.dtypes[:-1])} or {engine.dtypes[-1]}"
            what = f"{engine.title} does not take {spec.dtype}, which '{spec.name}' of {model.name} is"
            raise RefusedError(what, f"export the model with inputs and outputs of {known}")


def write_folder(model: Path, out: Path, engine: BrowserEngine, options: ConvertOptions) -> ConversionOutput:
    """Copy the model into `out` and write everything around it. Errors as in `packages.archive_of`."""
    builds = builds_of(engine, options)
    files = engine.files(builds)
    contents = {file.name: read_file(file) for file in files}  # before anything is written: it may have to be fetched
    place = Path(shutil.copyfile(model, out / model.name))
    _write_page(out)
    target = out / "engine" / engine.id
    target.mkdir(parents=True)
    for file in files:
        content = contents[file.name]
        # mtime 0 and no name: the same file gives the same bytes
        (target / file.name).write_bytes(gzip.compress(content, 9, mtime=0) if file.is_packed else content)
    _write_licenses(out, engine)
    facts: JsonObject = {"engine": engine.id, "version": engine.version, "builds": list(builds)}
    return ConversionOutput(
        model=place,
        format=engine.model_format,
        facts={"browser": facts},
        max_selfcheck_bytes=_MAX_SELFCHECK_BYTES,
    )


def _write_page(out: Path) -> None:
    for path in sorted(_PAGE.rglob("*")):
        name = path.relative_to(_PAGE)
        if path.is_file():
            target = out / name if name.as_posix() in _AT_ROOT else out / "page" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _write_licenses(out: Path, engine: BrowserEngine) -> None:
    file, name = engine.license
    text = (_LICENSES / file).read_text(encoding="utf-8")
    head = f"{engine.title} {engine.version} (folder engine/{engine.id}), {name}:\n\n"
    (out / "LICENSES.txt").write_text(head + text, encoding="utf-8")
    spec = find_spec("onnxruntime") if engine.id == "ort_web" else None
    if spec and spec.origin and (notices := Path(spec.origin).with_name("ThirdPartyNotices.txt")).is_file():
        # The npm package does not include them; the Python package of the same project does.
        (out / "engine" / engine.id / f"{notices.name}.gz").write_bytes(gzip.compress(notices.read_bytes(), 9, mtime=0))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
