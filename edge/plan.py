"""From a source to a device or format: the shortest route through the steps there are, or a refusal in one line.

Nothing is opened by an engine here: a refusal comes before any work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from converters.onnx_opset import WRITTEN_OPSET
from converters.source import Source
from converters.steps import Step, StepOptions, environments_of, find_steps, step_id, taken
from converters.target import NEWEST_RUNTIME, Allowed, Refusal, Target
from converters.tensorrt.releases import Release
from runtimes.errors import EdgeError, InputError, RefusedError, UsageError

DEFAULT_PRECISION = "fp32"
# Formats that no route leaves: what such a model is, and what to start from instead.
_ENDS = {
    "edgetpu": ("compiled for the Edge TPU", ".tflite that it was compiled from"),
    "tensorrt": ("made for TensorRT", "model that it was made from"),
}
_OPTIONS = {
    "tensorrt": ("--tensorrt", "--implicit"),
    "edgetpu": ("--min-mapped", "--old-runtime"),
}  # of some formats only
_QUANTISED = ("int8", "w8", "w4")  # no step takes them: the result would be quantised twice


@dataclass(frozen=True)
class Wish:
    """What was asked for: a device, a format or both; None leaves the choice to the device, or to the default.

    `release` is the board's TensorRT where it is not the one in its profile; `implicit`, `min_mapped` and
    `old_runtime` are as in `converters.steps.StepOptions`.
    """

    device: str | None = None
    format: str | None = None
    precision: str | None = None
    opset: int | None = None
    release: str | None = None
    implicit: bool = False
    min_mapped: float | None = None
    old_runtime: bool = False


@dataclass(frozen=True)
class Plan:
    """A route that can be taken: step ids in order (none: packed as it is), what they lead to, and why so.

    `opset` is to be met; None leaves it to the steps, the last of which takes the newest that a release of TensorRT
    reads. `release` is that of the device's engine, `environments` those that steps run in (see
    `converters.environments`).
    """

    format: str
    precision: str
    steps: tuple[str, ...]
    opset: int | None = None
    device: str | None = None
    notes: tuple[str, ...] = ()
    release: str | None = None
    implicit: bool = False
    min_mapped: float | None = None
    environments: tuple[str, ...] = ()
    old_runtime: bool = False


def make_plan(source: Source, wish: Wish, has_calibration: bool = False) -> Plan:
    """Choose format, precision and steps for `source`.

    RefusedError for what the device cannot do, naming the nearest thing that works; UsageError for a format that no
    step leads to and for int8 without calibration data; InputError for a source that is the end of a route.
    """
    if source.format in _ENDS:
        what, start = _ENDS[source.format]
        raise InputError(f"{source.model} is {what} and cannot be converted", f"start from the {start}")
    steps, wish = find_steps(), _completed(wish)
    plan = _for_device(source, wish, steps) if wish.device else _for_format(source, wish, steps)
    plan = _with_options(plan, wish)  # what no data could help comes before the data
    if plan.precision == "int8" and _quantises(plan, steps) and not has_calibration:
        raise UsageError(f"{plan.format} int8 needs calibration data, and none was given", _without_int8(source, plan))
    return replace(plan, environments=_environments(plan, steps))


def _completed(wish: Wish) -> Wish:
    """The wish with the format that its options belong to, and int8 for those that are about int8."""
    for_edgetpu = wish.min_mapped is not None or wish.old_runtime
    given = {"tensorrt": wish.release is not None or wish.implicit, "edgetpu": for_edgetpu}
    meant = next((known for known, asked in given.items() if asked), None)
    quantised = "int8" if wish.implicit or for_edgetpu else None
    return replace(wish, format=wish.format or meant, precision=wish.precision or quantised)


def _environments(plan: Plan, steps: Sequence[Step]) -> tuple[str, ...]:
    options = StepOptions(precision=plan.precision, release=plan.release, old_runtime=plan.old_runtime)
    taking = [step for step in steps if step_id(step) in plan.steps]
    return tuple(dict.fromkeys(name for step in taking for name in environments_of(step, options)))


def _with_options(plan: Plan, wish: Wish) -> Plan:
    """The plan with what only some formats know; UsageError for an option that its format has not."""
    asked = {
        "--tensorrt": wish.release,
        "--implicit": wish.implicit or None,
        "--min-mapped": wish.min_mapped,
        "--old-runtime": wish.old_runtime or None,
    }
    for option, value in asked.items():
        if value is not None and option not in _OPTIONS.get(plan.format, ()):
            raise UsageError(f"{option} says nothing to {plan.format}", "leave it out, or choose the format with --to")
    if plan.format != "tensorrt":
        return replace(plan, min_mapped=wish.min_mapped, old_runtime=wish.old_runtime)
    if wish.implicit:
        Release.read(plan.release or "").check_implicit()
        if plan.precision != "int8":
            raise UsageError(
                f"--implicit is a way to int8, not to {plan.precision}", "ask for --precision int8 with it"
            )
    return replace(plan, implicit=wish.implicit)


def examined(source: Source) -> Source:
    """A bare source with what its file tells: precision and inputs. InputError where the file is broken."""
    from edge.inspection import inspect

    if not source.artifact.is_bare:
        return source
    found = inspect(source.artifact)
    manifest = replace(source.artifact.manifest, precision=found.precision, inputs=found.inputs)
    return replace(source, artifact=replace(source.artifact, manifest=manifest))


def target_of(device: str) -> Target:
    """What a device's profile allows; UsageError for an unknown device, with the nearest names."""
    from device_profiles.profiles import UnknownProfile, load
    from device_profiles.reader import ProfileError

    try:
        profile = load(device)
    except UnknownProfile as error:
        raise UsageError(error.message, error.hint) from None
    except ProfileError as error:
        raise InputError(error.message, error.hint) from None
    return Target(
        device=profile.id,
        formats=tuple(Allowed(one.format, one.precisions, one.max_opset, one.release) for one in profile.formats),
        refusals=tuple(Refusal(one.format, one.asked, one.why, one.instead) for one in profile.refuses),
    )


def find_route(source: Source, model_format: str, precision: str, steps: Sequence[Step]) -> tuple[Step, ...] | None:
    """The shortest chain of steps to `model_format` in `precision`; all but the last run in fp32.

    Empty where the source is just that already; None where no chain leads there.
    """
    if source.format == model_format and source.precision == precision:
        return ()
    for step in steps:  # those that take a quantised model come behind the step that quantises
        if step.target == model_format and precision in step.precisions and taken(step) != DEFAULT_PRECISION:
            before = find_route(source, step.source, taken(step), [one for one in steps if one is not step])
            return None if before is None else (*before, step)
    if source.precision in _QUANTISED:
        return None
    waiting: deque[tuple[Step, ...]] = deque([()])
    seen = {source.format}
    while waiting:
        route = waiting.popleft()
        here = route[-1].target if route else source.format
        for step in (step for step in steps if step.source == here and taken(step) == DEFAULT_PRECISION):
            if step.target == model_format and precision in step.precisions:
                return (*route, step)
            if step.target not in seen and DEFAULT_PRECISION in step.precisions:
                seen.add(step.target)
                waiting.append((*route, step))
    return None


def _quantises(plan: Plan, steps: Sequence[Step]) -> bool:
    return any(step_id(step) in plan.steps and taken(step) != plan.precision for step in steps)


def _for_format(source: Source, wish: Wish, steps: Sequence[Step]) -> Plan:
    if wish.format is None:
        raise UsageError("no target was given", "say --for DEVICE (see `edge devices`) or --to FORMAT")
    precision = wish.precision or (source.precision if source.precision in _QUANTISED else DEFAULT_PRECISION)
    route = find_route(source, wish.format, precision, steps)
    if route is None:
        raise _no_route(source, wish.format, precision, steps)
    plan = _plan(wish.format, precision, route, wish.opset)
    return _released(plan, Release.of_board(None), wish) if wish.format == "tensorrt" else plan


def _released(plan: Plan, board: Release, wish: Wish) -> Plan:
    """The plan for the release of TensorRT that was asked for, else the board's; RefusedError for too new an opset."""
    release = Release.read(wish.release) if wish.release else board
    if wish.opset and wish.opset > release.max_opset:
        what = f"{release} takes ONNX opset {release.max_opset} or lower, not {wish.opset}"
        raise RefusedError(what, f"what works: --opset {release.max_opset}")
    return replace(plan, opset=wish.opset, release=release.text)


def _for_device(source: Source, wish: Wish, steps: Sequence[Step]) -> Plan:
    """The first of the device's formats (or the one asked for) that a route leads to."""
    assert wish.device is not None
    target = target_of(wish.device)
    if wish.precision and not wish.format and target.formats:
        target.check(
            target.formats[0].format, wish.precision
        )  # what its first format refuses is not sought in the others
    allowed = [target.allowed(wish.format)] if wish.format else list(target.formats)
    skipped: list[EdgeError] = []
    for one in allowed:
        try:
            plan = _into(source, target, one, wish, steps)
        except EdgeError as reason:
            skipped.append(reason)
            continue
        return _noted(plan, target, [error.message for error in skipped])
    if not skipped:
        raise RefusedError(f"no format is known that {target.device} takes", "see `edge devices`")
    raise _plainest(skipped)


def _into(source: Source, target: Target, allowed: Allowed, wish: Wish, steps: Sequence[Step]) -> Plan:
    """The plan into one format of a device, in the precision asked for or the device's best that a step writes."""
    if wish.precision:
        target.check_precision(allowed.format, wish.precision)
    limit = _opset(target, allowed)
    if wish.opset and limit and wish.opset > limit and not (allowed.format == "tensorrt" and wish.release):
        what = f"{target.device} takes ONNX opset {limit} or lower, not {wish.opset}"
        raise RefusedError(what, f"what works: --opset {limit}")
    for precision in [wish.precision] if wish.precision else allowed.precisions:
        route = find_route(source, allowed.format, precision, steps)
        if route is not None:
            if route and allowed.release is None:
                target.check(allowed.format, NEWEST_RUNTIME)
            opset = wish.opset or (limit if limit and limit <= WRITTEN_OPSET else None)
            plan = _plan(allowed.format, precision, route, opset, target.device)
            plan = replace(plan, release=allowed.release if route else None)
            known = Release.of_board(allowed.max_opset)
            return _released(plan, known, wish) if allowed.format == "tensorrt" else plan
    raise _no_route(source, allowed.format, wish.precision or allowed.precisions[0], steps)


def _plan(
    model_format: str, precision: str, route: Sequence[Step], opset: int | None, device: str | None = None
) -> Plan:
    if opset is not None and device is None and model_format == "onnx" and not route:
        what = f"the model is ONNX already and is packed as it is, so its opset stays: --opset {opset} cannot be met"
        raise UsageError(what, "leave it out, or export the model from its source with that opset")
    through_onnx = any("onnx" in (step.source, step.target) for step in route)
    if opset is not None and device is None and not through_onnx:
        raise UsageError(f"--opset is ONNX's; the way to {model_format} does not pass through ONNX", "leave it out")
    return Plan(model_format, precision, tuple(map(step_id, route)), opset if through_onnx else None, device)


def _noted(plan: Plan, target: Target, reasons: Sequence[str]) -> Plan:
    """The plan with what it passed over: what the device would run rather."""
    notes = tuple(f"passed over for {plan.format}: {reason}" for reason in reasons)
    return replace(plan, device=target.device, notes=notes)


def _without_int8(source: Source, plan: Plan) -> str:
    """What to do who has no calibration data."""
    known = target_of(plan.device).allowed(plan.format).precisions if plan.device else (DEFAULT_PRECISION,)
    other = next((one for one in known if one != "int8" and find_route(source, plan.format, one, find_steps())), None)
    pictures = "give a folder of pictures of the real task with --calibration"
    return f"{pictures}, or ask for --precision {other}" if other else pictures


def _opset(target: Target, allowed: Allowed) -> int | None:
    """The highest opset for the device; an ONNX file serves every format there that is built from one."""
    limits = [one.max_opset for one in target.formats if one.max_opset and allowed.format in ("onnx", one.format)]
    return min(limits, default=None)


def _plainest(reasons: Sequence[EdgeError]) -> EdgeError:
    """A refusal by the device says more than a step that is not there."""
    return next((one for one in reasons if isinstance(one, RefusedError)), reasons[0])


def _no_route(source: Source, model_format: str, precision: str, steps: Sequence[Step]) -> EdgeError:
    reachable = _reachable(source, steps)
    what = f"nothing here leads from {source.format} {source.precision} to {model_format} {precision}"
    if source.precision in _QUANTISED:
        return UsageError(what, "start from the float model that it was quantised from")
    if not reachable:
        sources = ", ".join(sorted({step.source for step in steps if step.target != "gguf" or model_format == "gguf"}))
        return UsageError(what, f"what works: a source that is {sources}; PyTorch and TensorFlow can export onnx")
    near = [found for found in reachable if model_format in found.split()] or sorted(
        reachable, key=lambda found: precision not in found.split()
    )
    return UsageError(what, f"what works: {', '.join(near)}")


def _reachable(source: Source, steps: Sequence[Step]) -> list[str]:
    """Every `format precision` that a route leads to, as words."""
    wanted = dict.fromkeys((step.target, precision) for step in steps for precision in step.precisions)
    return [" ".join(goal) for goal in wanted if find_route(source, *goal, steps) is not None]
