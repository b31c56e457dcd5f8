"""TFLite int8 → a model for the Edge TPU: checked, and compiled if the user's own compiler is on PATH.

Without the compiler, the result is a model that is ready to be compiled, and the command for that.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import ConversionOutput, Converter, CrossCheck, CrossCheckResult, ProxyModel, Requirement
from converters.check.report import Report
from converters.edgetpu.compiler import PROGRAM, WHERE, Compilation, compile_model, find_compiler
from converters.library_calls import loading
from converters.options import ConvertOptions, option
from runtimes.errors import EngineError, RefusedError, UsageError

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from runtimes.arrays import Array, Arrays
    from runtimes.artifact.json_fields import JsonObject

_LITERT = Requirement("ai_edge_litert", "litert")
# tflite-runtime 2.7 reads one scale of a dense layer that has one for each output: it loads such a file without an
# error and computes wrong values, like the compiler. LiteRT, which runs the verification, reads all of them.
_OLD_ENVIRONMENT = "tflite_2_7"
OLD_ENGINE = "tflite-runtime 2.7.0"
_OLD_TIMEOUT_S = 1800.0
_OLD_HINT = (
    "the Edge TPU compiler reads no newer files: convert with int8 inputs and outputs, a fixed batch, no new operators"
)


class TfliteToEdgetpu(Converter):
    """The source must be fully int8 already and use operators that the compiler supports; nothing is quantized here.

    Weights outside the FlatBuffer, as in large files and from some quantizers, are moved inside.
    """

    source = "tflite"
    target = "edgetpu"
    precisions = ("int8",)
    input_precision = "int8"

    @dataclass(frozen=True, kw_only=True)
    class Options(ConvertOptions):
        """The share of the model that must run on the Edge TPU, and an additional verification."""

        title = "for the Edge TPU"

        min_mapped: float | None = option(
            None,
            "fail if a smaller share of the model runs on the Edge TPU, such as 0.9",
            metavar="SHARE",
            type=float,
            implies="int8",
        )
        old_runtime: bool = option(
            False, "also verify on a TFLite runtime as old as the Edge TPU compiler", implies="int8"
        )

    def environments(self, options: ConvertOptions) -> tuple[str, ...]:
        """The environment of the runtime as old as the compiler, if requested for verification."""
        return (_OLD_ENVIRONMENT,) if self.Options.of(options).old_runtime else ()

    def convert(
        self,
        model: Path,
        out: Path,
        options: ConvertOptions,
        calibration: Calibration | None,  # noqa: ARG002 - nothing is quantized here
    ) -> ConversionOutput:
        """Write `<model name>_edgetpu.tflite`, or without the compiler `<model name>.tflite`.

        Raises RefusedError, naming node and fix, for a model that the compiler would reject, or of which less than
        `options.min_mapped` would run on the Edge TPU; see `converters.base.Converter`.
        """
        from converters.edgetpu.mapping import check_edgetpu

        own = self.Options.of(options)
        self.check_precision(own.precision)
        _check_floor(own.min_mapped)
        with loading(model, "TFLite"):
            model, notes = _inside(model, own)
            report = check_edgetpu(model)
        _refuse(model, report)
        _check_prediction(report, own.min_mapped)
        program = find_compiler()
        made = _ready(model, out, report) if program is None else _compile(program, model, out, report, own)
        made = replace(made, notes=(*notes, *made.notes))
        if not own.old_runtime:
            return made
        return replace(made, cross_check=old_cross_check(model))


def _inside(model: Path, options: ConvertOptions) -> tuple[Path, tuple[str, ...]]:
    """Return the model with all data inside the FlatBuffer, which the compiler requires, and any notes."""
    from converters.edgetpu.requirements import has_outside
    from converters.tflite.reader import read_tflite

    if not has_outside(read_tflite(model)):
        return model, ()
    _LITERT.check("moving weights into the FlatBuffer")
    from converters.tflite.writer import write_inline

    folder = Path(options.scratch or tempfile.mkdtemp(prefix="edge-")) / "inside"
    folder.mkdir(parents=True, exist_ok=True)
    return write_inline(model, folder / model.name), ("weights outside the FlatBuffer were moved into it",)


def _refuse(model: Path, report: Report) -> None:
    if report.refusals:
        first = report.refusals[0]
        what = "would compute wrong values with" if report.accelerated else "does not take"
        raise RefusedError(f"the Edge TPU {what} {model.name}: {first.reason}", first.fix)
    if not report.accelerated:
        cause = report.first_break
        words = f": node {cause.index} {cause.op}: {cause.reason}" if cause else ""
        raise RefusedError(f"nothing of {model.name} would run on the Edge TPU{words}", cause.fix if cause else "")


def _check_floor(floor: float | None) -> None:
    if floor is not None and not 0 <= floor <= 1:
        raise UsageError(f"--min-mapped is {floor:g}", "give a share between 0 and 1, such as 0.9")


def _check_prediction(report: Report, floor: float | None) -> None:
    """Raise RefusedError if the predicted share of operations or multiply-adds is below the limit."""
    share, macs = len(report.accelerated) / len(report.nodes), report.macs_share
    if floor is None or min(share, share if macs is None else macs) >= floor:
        return
    done = "" if macs is None else f" and {macs:.0%} of the multiply-adds"
    what = f"{share:.0%} of the operations{done} would run on the Edge TPU, less than the requested {floor:.0%}"
    cause = report.first_break
    hint = f"node {cause.index} {cause.op}: {cause.reason}; {cause.fix}" if cause else "lower --min-mapped"
    raise RefusedError(what, hint)


def _ready(model: Path, out: Path, report: Report) -> ConversionOutput:
    """Return the checked model, not compiled."""
    place = Path(shutil.copyfile(model, out / model.name))
    command = f"{PROGRAM} -s {shlex.quote(place.name)}"
    facts: JsonObject = {"ready": True, "compiled": False, "command": command, "expected": _expected(report)}
    left = (
        f"not compiled: {PROGRAM} is not on this machine; the file is ready for it",
        f"compile it {WHERE}: {command}",
    )
    return ConversionOutput(
        model=place, format="tflite", facts={"edgetpu": facts}, notes=tuple(report.warnings), remaining_commands=left
    )


def _compile(
    program: str, model: Path, out: Path, report: Report, options: TfliteToEdgetpu.Options
) -> ConversionOutput:
    """Read the compiled model back and compare it with the prediction."""
    from converters.edgetpu.compiled_model import read_compiled
    from converters.tflite.reader import read_tflite

    done = compile_model(program, model, out)
    compiled = read_compiled(read_tflite(done.model))
    if compiled is None:
        raise EngineError(f"{PROGRAM} wrote {done.model.name} with nothing compiled", "see `edge check`")
    _check_mapped(done, options.min_mapped)
    facts = {
        "edgetpu": {
            "compiled": True,
            "compiler": done.version,
            "mapped": done.mapped,
            "operations": done.total,
            "left": dict(sorted(done.left.items())),
            "expected": _expected(report),
            **compiled.as_dict(),
        }
    }
    notes = (*_differences(report, compiled.cpu_ops), *report.warnings)
    return ConversionOutput(model=done.model, proxy=ProxyModel(model, "tflite"), facts=facts, notes=notes)


def _check_mapped(done: Compilation, floor: float | None) -> None:
    """Check the compiler's result, which may map less than predicted."""
    if floor is None or not done.total or done.mapped / done.total >= floor:
        return
    left = ", ".join(f"{row.count} × {row.operation} ({row.status})" for row in done.rows if row.operation in done.left)
    what = f"{done.mapped} of {done.total} operations were mapped, less than the requested {floor:.0%}"
    raise RefusedError(what, f"left on the CPU: {left}")


def _expected(report: Report) -> JsonObject:
    """Return the prediction of `edge check`, for the manifest."""
    return {
        "mapped": len(report.accelerated),
        "operations": len(report.nodes),
        "macs_share": None if report.macs_share is None else round(report.macs_share, 6),
        "left": dict(sorted(Counter(node.op for node in report.on_host).items())),
        **{key: value for key, value in report.extra.get("cache", {}).items() if key != "usable_bytes"},
    }


def _differences(report: Report, left: Mapping[str, int]) -> list[str]:
    """Return a note if the compiler left other operations on the CPU than predicted."""
    expected, found = Counter(node.op for node in report.on_host), Counter(dict(left))
    if expected == found:
        return []
    return [f"the compiler left {_list_operators(found)} on the CPU, `edge check` expected {_list_operators(expected)}"]


def _list_operators(ops: Counter[str]) -> str:
    return ", ".join(f"{count} × {op}" for op, count in sorted(ops.items())) or "nothing"


def old_tflite_answers(model: Path, inputs: Arrays) -> Arrays:
    """Run a `.tflite` on tflite-runtime 2.7; returns {output name: real values, float32 [n, *shape]} in order.

    inputs: Stacked [n, *shape] in the model's dtypes, one for each input in the model's order.

    It creates its environment (Python 3.9) if necessary. Raises InputError for a file that this runtime does not
    read, and HostError if the environment cannot be created.
    """
    from converters.environments import environment
    from runtimes.arrays import load_arrays, save_arrays

    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        given, answered = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        save_arrays(given, {f"{place:04d}": values for place, values in enumerate(inputs.values())})
        job = {"model": str(model.resolve()), "inputs": str(given), "outputs": str(answered)}
        answer = environment(_OLD_ENVIRONMENT).run(job, _OLD_TIMEOUT_S, f"{OLD_ENGINE} on {model}", _OLD_HINT)
        arrays = load_arrays(answered)
        return {
            output["name"]: _dequantize(arrays[f"{place:04d}"], output["scale"], output["zero_point"])
            for place, output in enumerate(answer["outputs"])
        }


def old_cross_check(model: Path) -> CrossCheck:
    """Return a cross-check of the result with the old runtime, which runs `model`, with the same inputs."""

    def ask(feeds: Arrays, outputs: Sequence[str]) -> CrossCheckResult:
        answers = old_tflite_answers(model, feeds)
        return CrossCheckResult(engine=OLD_ENGINE, answers=dict(zip(outputs, answers.values(), strict=True)))

    return ask


def _dequantize(values: Array, scale: float, zero_point: int) -> Array:
    from runtimes.artifact.manifest import Quantization
    from runtimes.tensors import dequantize

    return dequantize(values, Quantization((scale,), (zero_point,), None) if scale else None)
