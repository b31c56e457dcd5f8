"""`edge inspect`: show the content of a model file or artifact, without running it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.console.text import printable

if TYPE_CHECKING:
    from edge.inspection import Inspection
    from edge.inspection.report import TaskDescription
    from runtimes.artifact import Artifact, TensorSpec

_MAX_CHANNELS = 3  # of a per-channel quantization
_LONGEST = 200  # characters of a text written by the model's author
_MAX_NAMES = 5  # of classes
_COUNTED = {"keras": "layers", "gguf": "tensors"}  # what is counted instead of operators
_NOT_SHOWN = ("mean", "std", "label_file", "associated_files")  # printed elsewhere


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge inspect`."""
    from edge.cli.options import model_hints

    parser.add_argument("file", type=Path, metavar="FILE", help="a model file or artifact folder")
    model_hints.add_task(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    model_hints.add_preprocessing(parser)


def run(args: argparse.Namespace) -> int:
    """Print the inspection."""
    import edge
    from edge.cli.options.model_hints import preprocess_options_from
    from edge.inspection.report import strict_json

    artifact = edge.Artifact.open(args.file)
    options = preprocess_options_from(args)
    found = edge.inspect(
        args.file, edge.ModelHints(preprocess_options=options, labels=args.labels, task=args.task, rate=args.rate)
    )
    if args.json:
        manifest = None if artifact.is_bare else strict_json(asdict(artifact.manifest))
        print(json.dumps({"file": str(artifact.model), **found.to_json(), "manifest": manifest}, indent=2))
    else:
        print(as_text(artifact, found))
    return 0


def as_text(artifact: Artifact, found: Inspection) -> str:
    """Format the inspection: a heading, then one or more lines for each kind of fact."""
    heading = f"{artifact.model.name}: {found.format}, {found.precision}, {_size(found.size_bytes)}"
    rows = list(_rows(artifact, found))
    width = max(len(key) for key, _ in rows)
    return "\n".join(printable(line) for line in [heading, *(f"  {key:<{width}}  {text}" for key, text in rows)])


def _rows(artifact: Artifact, found: Inspection) -> Iterable[tuple[str, str]]:
    for key, specs in (("input", found.inputs), ("output", found.outputs)):
        yield from ((key, _spec(spec)) for spec in specs)
    yield _COUNTED.get(found.format, "ops"), _counts(found.ops)
    if found.parameter_bytes:
        yield "constants", ", ".join(f"{_size(size)} {dtype}" for dtype, size in _by_count(found.parameter_bytes))
    yield from _edgetpu(found.edgetpu)
    yield from _normalization(found.metadata)
    if found.labels is not None:
        yield "labels", f"{len(found.labels)}: {'; '.join(found.labels[:3])}; …"
    yield from ((key, _value(value)) for key, value in found.metadata.items() if key not in _NOT_SHOWN)
    yield from _manifest(artifact)
    yield from _task(found.task)
    yield from (("note", note) for note in found.notes)


def _spec(spec: TensorSpec) -> str:
    from runtimes.session import format_shape

    text = f"{spec.name}  {spec.dtype}{format_shape(spec.shape)}"
    if spec.quantization is None:
        return text
    pairs = list(zip(spec.quantization.zero_points, spec.quantization.scales, strict=True))[:_MAX_CHANNELS]
    more = ", …" if len(spec.quantization.scales) > len(pairs) else ""
    return f"{text}  real = " + ", ".join(f"(q − {zero}) × {scale:.9g}" for zero, scale in pairs) + more


def _counts(ops: Mapping[str, int]) -> str:
    return f"{sum(ops.values())}: " + ", ".join(f"{name} {count}" for name, count in _by_count(ops))


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _edgetpu(facts: Mapping[str, Any] | None) -> Iterable[tuple[str, str]]:
    if facts is None:
        return
    chips = ", ".join(facts["chips"])
    # The label `cl/` without a number is that of a build that has none.
    compilers = ", ".join(one for one in facts["compiler_versions"] if one.rstrip("/") not in ("", "cl")) or "not named"
    yield "edgetpu", f"runtime {facts['min_runtime_version']} or newer; chip {chips}; compiler {compilers}"
    yield "edgetpu", f"parameters kept on the chip: {_exact(facts['cached_bytes'])}"
    yield "edgetpu", f"parameters sent at every inference: {_exact(facts['streamed_bytes'])}"
    yield "edgetpu", f"memory for activations, per tile: {_exact(facts['narrow_memory_bytes_per_tile'])}"
    on_cpu = _counts(facts["cpu_ops"]) if facts["cpu_ops"] else "none"
    yield "edgetpu", f"custom operators: {facts['custom_ops']}; operators left on the CPU: {on_cpu}"


def _normalization(metadata: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if metadata.get("mean"):
        yield "expects", f"(pixel − {_numbers(metadata['mean'])}) ÷ {_numbers(metadata['std'])}"


def _numbers(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else "[" + ", ".join(f"{value:g}" for value in values) + "]"


def _manifest(artifact: Artifact) -> Iterable[tuple[str, str]]:
    if artifact.is_bare:
        return
    manifest = artifact.manifest
    if manifest.preprocess is not None:
        yield "preprocess", ", ".join(f"{key} {_value(value)}" for key, value in vars(manifest.preprocess).items())
    if manifest.output is not None:
        yield "answers", f"{manifest.output.kind}, label offset {manifest.output.label_offset}"
    if manifest.selfcheck is not None:
        check = manifest.selfcheck
        yield "self-check", f"{check.metric}, tolerance {check.tolerance:g}, on {check.inputs} inputs"
    yield from ((key, _value(value)) for key, value in manifest.proof.items() if not isinstance(value, dict))


def _task(task: TaskDescription | None) -> Iterable[tuple[str, str]]:
    """Return what the model does, each fact with its origin."""
    from runtimes.task import SPECTRUM

    if task is None:
        return
    if not task.origins:
        yield "task", "unknown: the outputs are printed as they are (--task)"
        yield from (("note", line) for line in task.assumptions)
        return
    yield "task", _known(f"{task.id}, decoded by {task.layout}" if task.layout else task.id, task.origins.get("task"))
    if task.labels is not None:
        names = "; ".join(task.labels[:_MAX_NAMES]) + ("; …" if len(task.labels) > _MAX_NAMES else "")
        yield "classes", _known(f"{len(task.labels)}: {names}", task.origins.get("labels"))
    if task.picture is not None:
        height, width = task.picture.crop
        rule = f"(pixel − {_numbers(task.picture.mean)}) × {_numbers(task.picture.scale)}"
        text = f"{width} × {height}, {task.picture.resize}, {task.picture.color}, {rule}"
        yield "picture", _known(text, task.origins.get("picture"))
    if task.sound is not None:
        kind = "rows of a spectrum, from" if task.sound.features == SPECTRUM else "windows of"
        after = f" after the last {task.sound.context:,} of the window before" if task.sound.context else ""
        yield "sound", f"{kind} {task.sound.step:,} samples{after}, {task.sound.rate:,} a second"
        yield from (("state", f"{name}, from {output}") for name, output in sorted(task.sound.states.items()))
    yield from (("assumed", line) for line in task.assumptions)


def _known(text: str, origin: str | None) -> str:
    return f"{text} (from {origin})" if origin else text


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _exact(count: int) -> str:
    return f"{count:,} bytes"


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} bytes"
