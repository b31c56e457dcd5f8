"""TFLite int8 → a model for the Edge TPU: checked, and compiled where the user's own compiler is on PATH.

Without the compiler the result is the model that is ready for it, with the command that is left to give.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.check.report import Report
from converters.edgetpu.compiled import read_compiled
from converters.edgetpu.compiler import PROGRAM, WHERE, Compilation, compile_model, find_compiler
from converters.edgetpu.mapping import check_edgetpu
from converters.edgetpu.requirements import has_outside
from converters.old_tflite import ENVIRONMENT, old_witness
from converters.quiet import loading
from converters.steps import Made, StandIn, StepOptions, check_library, check_precision
from converters.tflite_graph import read_tflite
from converters.tflite_packing import write_inline
from runtimes.errors import EngineError, RefusedError, UsageError

if TYPE_CHECKING:
    from converters.calibration import Calibration


class Step:
    """Nothing is quantised here: the source is full int8 already, and its operators are what the compiler knows.

    Weights that stand outside the FlatBuffer, as large files and some quantisers have them, are put inside.
    """

    source = "tflite"
    target = "edgetpu"
    precisions = ("int8",)
    requires: tuple[str, ...] = ()
    takes = "int8"

    def environments(self, options: StepOptions) -> tuple[str, ...]:
        """See `converters.steps.environments_of`: on request a runtime of the compiler's age answers in the proof."""
        return (ENVIRONMENT,) if options.old_runtime else ()

    def convert(
        self,
        model: Path,
        out: Path,
        options: StepOptions,
        calibration: Calibration | None,  # noqa: ARG002 - nothing is quantised here
    ) -> Made:
        """Write `<model name>_edgetpu.tflite`, or without the compiler `<model name>.tflite`.

        RefusedError, naming node and fix, for a model that the compiler would not take, and where less than
        `options.min_mapped` would run on the Edge TPU; see `converters.steps.Step`.
        """
        check_precision(self, options.precision)
        _check_floor(options.min_mapped)
        with loading(model, "TFLite"):
            model, notes = _inside(model, options)
            report = check_edgetpu(model)
        _refuse(model, report)
        _hold_floor(report, options.min_mapped)
        program = find_compiler()
        made = _ready(model, out, report) if program is None else _compiled(program, model, out, report, options)
        made = replace(made, notes=(*notes, *made.notes))
        return replace(made, witness=old_witness(model)) if options.old_runtime else made


def _inside(model: Path, options: StepOptions) -> tuple[Path, tuple[str, ...]]:
    """The model with all that it needs inside the FlatBuffer, where the compiler looks; and whether that took doing."""
    if not has_outside(read_tflite(model)):
        return model, ()
    check_library("ai_edge_litert", "putting weights inside the FlatBuffer")
    folder = Path(options.scratch or tempfile.mkdtemp(prefix="edge-")) / "inside"
    folder.mkdir(parents=True, exist_ok=True)
    return write_inline(model, folder / model.name), ("weights that stood outside the FlatBuffer were put inside",)


def _refuse(model: Path, report: Report) -> None:
    if report.refusals:
        first = report.refusals[0]
        raise RefusedError(f"the Edge TPU compiler does not take {model.name}: {first.reason}", first.fix)
    if not report.accelerated:
        cause = report.first_break
        words = f": node {cause.index} {cause.op}: {cause.reason}" if cause else ""
        raise RefusedError(f"nothing of {model.name} would run on the Edge TPU{words}", cause.fix if cause else "")


def _check_floor(floor: float | None) -> None:
    if floor is not None and not 0 <= floor <= 1:
        raise UsageError(f"--min-mapped is {floor:g}", "give a share between 0 and 1, such as 0.9")


def _hold_floor(report: Report, floor: float | None) -> None:
    """What the check foresees: RefusedError where operations or multiply-adds fall below the floor."""
    share, macs = len(report.accelerated) / len(report.nodes), report.macs_share
    if floor is None or min(share, share if macs is None else macs) >= floor:
        return
    done = "" if macs is None else f" and {macs:.0%} of the multiply-adds"
    what = f"{share:.0%} of the operations{done} would run on the Edge TPU, less than the {floor:.0%} asked for"
    cause = report.first_break
    hint = f"node {cause.index} {cause.op}: {cause.reason}; {cause.fix}" if cause else "lower --min-mapped"
    raise RefusedError(what, hint)


def _ready(model: Path, out: Path, report: Report) -> Made:
    """The checked model itself: what the compiler takes, and not compiled."""
    place = Path(shutil.copyfile(model, out / model.name))
    command = f"{PROGRAM} -s {shlex.quote(place.name)}"
    facts = {"edgetpu": {"ready": True, "compiled": False, "command": command, "expected": _expected(report)}}
    left = (
        f"not compiled: {PROGRAM} is not on this machine; the file is ready for it",
        f"compile it {WHERE}: {command}",
    )
    return Made(place, format="tflite", facts=facts, notes=tuple(report.warnings), left=left)


def _compiled(program: str, model: Path, out: Path, report: Report, options: StepOptions) -> Made:
    """What the compiler made, read back and held against what was expected."""
    done = compile_model(program, model, out)
    compiled = read_compiled(read_tflite(done.model))
    if compiled is None:
        raise EngineError(f"{PROGRAM} wrote {done.model.name} with nothing compiled in it", "see `edge check`")
    _hold_floor_of(done, options.min_mapped)
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
    return Made(done.model, stand_in=StandIn(model, "tflite"), facts=facts, notes=notes)


def _hold_floor_of(done: Compilation, floor: float | None) -> None:
    """What the compiler did: it may leave out what the check took for mapped."""
    if floor is None or not done.total or done.mapped / done.total >= floor:
        return
    left = ", ".join(f"{row.count} × {row.operation} ({row.status})" for row in done.rows if row.operation in done.left)
    what = f"{done.mapped} of {done.total} operations were mapped, less than the {floor:.0%} asked for"
    raise RefusedError(what, f"left on the CPU: {left}")


def _expected(report: Report) -> dict[str, Any]:
    """The forecast of `edge check`, for the manifest."""
    return {
        "mapped": len(report.accelerated),
        "operations": len(report.nodes),
        "macs_share": None if report.macs_share is None else round(report.macs_share, 6),
        "left": dict(sorted(Counter(node.op for node in report.on_host).items())),
        **{key: value for key, value in report.extra.get("cache", {}).items() if key != "usable_bytes"},
    }


def _differences(report: Report, left: Mapping[str, int]) -> list[str]:
    """A line where the compiler left other operations on the CPU than the check foresaw."""
    expected, found = Counter(node.op for node in report.on_host), Counter(dict(left))
    if expected == found:
        return []
    return [f"the compiler left {_listed(found)} on the CPU, `edge check` expected {_listed(expected)}"]


def _listed(ops: Counter[str]) -> str:
    return ", ".join(f"{count} × {op}" for op, count in sorted(ops.items())) or "nothing"
