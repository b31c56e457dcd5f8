"""Plan a conversion: find the shortest route of converters from a source to a device or format, or explain why there is
none.

No engine opens the model here, so that a request is refused before any work is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from converters.base import Converter
from converters.options import ConvertOptions, flags
from converters.registry import all_converters, converter, target_of_options
from converters.sources.source import OpenedSource
from edge.conversion.target import NEWEST_RUNTIME, AllowedFormat, Target, target_of
from runtimes.errors import EdgeError, InputError, RefusedError, UsageError
from runtimes.model_files.detect import FORMATS, is_language_model

DEFAULT_PRECISION = "fp32"
QUANTIZED = ("int8", "w8", "w4")  # only steps that keep them accept them: the result would be quantized twice


@dataclass(frozen=True, kw_only=True)
class ConversionRequest:
    """The requested target: a device, a format or both; None leaves the choice to the device, or to the default.

    options: The options of the converter. Their own precision is ignored, because `precision` may be left to the
        device.
    """

    device: str | None = None
    format: str | None = None
    precision: str | None = None
    options: ConvertOptions = field(default_factory=ConvertOptions)


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """A route of converters, and the format and precision of its result.

    format: The format of the result.
    steps: Ids of the converters in order; empty if the source is packed unchanged.
    options: The options of the last step.
    device: The target device.
    notes: Explanations for the user, such as why other formats were skipped.
    environments: The isolated environments that steps run in (see `converters.environments`).
    """

    format: str
    steps: tuple[str, ...]
    options: ConvertOptions
    device: str | None = None
    notes: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """The precision of the result."""
        return self.options.precision


def plan_conversion(source: OpenedSource, request: ConversionRequest, has_calibration: bool = False) -> ConversionPlan:
    """Choose the format, precision and steps for `source`.

    Raises RefusedError, with the closest alternative that works, if the device does not support the request; UsageError
    if no route leads to the format, and for int8 without calibration data; InputError if the source is compiled and
    therefore cannot be converted further.
    """
    known = FORMATS.get(source.format)
    if known and known.is_compiled:
        what = f"{source.model} is {known.compiled_for} and cannot be converted"
        raise InputError(what, f"start from the {known.compiled_from}")
    steps, request = all_converters(), _complete(request)
    plan = _for_device(source, request, steps) if request.device else _for_format(source, request, steps)
    _check_options(plan, request)  # before the calibration data, which would not make these options valid
    is_new = source.precision not in QUANTIZED
    if plan.precision == "int8" and is_new and _quantizes(plan, steps) and not has_calibration:
        raise UsageError(f"{plan.format} int8 needs calibration data", _without_int8(source, plan))
    return replace(plan, environments=_environments(plan, steps))


def _complete(request: ConversionRequest) -> ConversionRequest:
    """Complete the request with the format and the precision that its options imply."""
    implied = next((one.implies for one in request.options.own().values() if one.implies), None)
    return replace(
        request, format=request.format or target_of_options(request.options), precision=request.precision or implied
    )


def _environments(plan: ConversionPlan, steps: Sequence[Converter]) -> tuple[str, ...]:
    planned = [step for step in steps if step.id in plan.steps]
    return tuple(dict.fromkeys(name for step in planned for name in step.environments(plan.options)))


def _check_options(plan: ConversionPlan, request: ConversionRequest) -> None:
    """Raise UsageError for options that the format does not have, and the converter's own errors."""
    if request.options.own() and target_of_options(request.options) != plan.format:
        named = flags(request.options.own())[0]
        raise UsageError(f"{named} does not apply to {plan.format}", "leave it out, or choose the format with --to")
    if plan.steps:
        converter(plan.steps[-1]).check_options(plan.options)


def with_inspected_specs(source: OpenedSource) -> OpenedSource:
    """Add the precision and the inputs to a bare source, as read from its file.

    Raises InputError if the file is broken.
    """
    from edge.inspection import inspect

    if not source.artifact.is_bare:
        return source
    found = inspect(source.artifact)
    manifest = replace(source.artifact.manifest, precision=found.precision, inputs=found.inputs)
    return replace(source, artifact=replace(source.artifact, manifest=manifest))


def find_route(
    source: OpenedSource, model_format: str, precision: str, steps: Sequence[Converter]
) -> tuple[Converter, ...] | None:
    """Find the shortest chain of steps to `model_format` in `precision`; all but the last run in fp32.

    Returns an empty tuple if the source already has that format and precision, and None if there is no such chain.
    """
    is_that = source.precision == precision or (source.precision == "unknown" and precision == DEFAULT_PRECISION)
    if source.format == model_format and is_that:
        return ()
    direct = [step for step in steps if _takes_quantized(step, source, model_format, precision)]
    if direct:
        return (direct[0],)
    last = [step for step in steps if step.target == model_format and precision in step.precisions]
    if any(step.reads(precision) != DEFAULT_PRECISION or step.packs for step in last):
        return _route_ending_in(last, source, precision, steps)
    if source.precision in QUANTIZED:
        return None
    waiting: deque[tuple[Converter, ...]] = deque([()])
    seen = {source.format}
    while waiting:
        route = waiting.popleft()
        here = route[-1].target if route else source.format
        for step in (step for step in steps if step.source == here and step.input_precision == DEFAULT_PRECISION):
            is_back = bool(route) and model_format == source.format  # by way of another format, which loses and gains
            if step.target == model_format and precision in step.precisions and not is_back:
                return (*route, step)
            if step.target not in seen and DEFAULT_PRECISION in step.precisions:
                seen.add(step.target)
                waiting.append((*route, step))
    return None


def _route_ending_in(
    last: Sequence[Converter], source: OpenedSource, precision: str, steps: Sequence[Converter]
) -> tuple[Converter, ...] | None:
    """Find the best route that ends in one of `last`, each of which follows the step that writes what it reads.

    The best route needs the fewest isolated environments, then the fewest steps.
    """
    found = []
    for step in last:
        before = find_route(source, step.source, step.reads(precision), [one for one in steps if one is not step])
        if before is not None:
            found.append((*before, step))
    return min(found, key=_cost, default=None)


def _cost(route: Sequence[Converter]) -> tuple[int, int, int]:
    environments = {name for step in route for name in step.environments(step.Options())}
    return len(environments), len(route), route[-1].rank


def _takes_quantized(step: Converter, source: OpenedSource, model_format: str, precision: str) -> bool:
    """Return whether the step converts a source that is quantized already, with its own scales."""
    is_that = (step.source, step.target) == (source.format, model_format) and precision == source.precision
    taken = step.precisions if step.reads_quantized else step.keeps_quantized
    return is_that and precision in QUANTIZED and precision in (*taken, *step.keeps_quantized)


def _quantizes(plan: ConversionPlan, steps: Sequence[Converter]) -> bool:
    return any(step.id in plan.steps and not step.packs and step.input_precision != plan.precision for step in steps)


def _for_format(source: OpenedSource, request: ConversionRequest, steps: Sequence[Converter]) -> ConversionPlan:
    if request.format is None:
        raise UsageError("no target specified", "use --for DEVICE (see `edge devices`) or --to FORMAT")
    precision = request.precision or _default_precision(source, request.format, steps)
    route = find_route(source, request.format, precision, steps)
    if route is None:
        raise _no_route(source, request.format, precision, steps)
    return _plan(request, request.format, precision, route)


def _default_precision(source: OpenedSource, model_format: str, steps: Sequence[Converter]) -> str:
    """Return the source's precision if it is quantized already, the only one that the format has, or fp32."""
    if source.precision in QUANTIZED:
        return source.precision
    written = {precision for step in steps if step.target == model_format for precision in step.precisions}
    return written.pop() if len(written) == 1 else DEFAULT_PRECISION


def _for_device(source: OpenedSource, request: ConversionRequest, steps: Sequence[Converter]) -> ConversionPlan:
    """Plan for the first of the device's formats (or the requested one) that a route leads to."""
    assert request.device is not None
    target = target_of(request.device)
    if request.precision and not request.format and target.formats:
        # A precision that the device refuses in its first format is not looked for in the others.
        target.check(target.formats[0].format, request.precision)
    allowed = [target.allowed(request.format)] if request.format else list(target.formats)
    skipped: list[EdgeError] = []
    for one in allowed:
        try:
            plan = _plan_for_format(source, target, one, request, steps)
        except EdgeError as reason:
            skipped.append(reason)
            continue
        return _add_notes(plan, target, [error.message for error in skipped])
    if not skipped:
        raise RefusedError(f"edge knows no format that {target.device} takes", "see `edge devices`")
    raise _most_helpful(skipped)


def _plan_for_format(
    source: OpenedSource, target: Target, allowed: AllowedFormat, request: ConversionRequest, steps: Sequence[Converter]
) -> ConversionPlan:
    """Plan for one format of a device, in the requested precision or the device's best that a step writes."""
    if request.precision:
        target.check_precision(allowed.format, request.precision)
    limit = _opset(target, allowed)
    opset = request.options.opset
    if opset and limit and opset > limit and request.options.release is None:
        what = f"{target.device} takes ONNX opset {limit} or lower, not {opset}"
        raise RefusedError(what, f"what works: --opset {limit}")
    for precision in [request.precision] if request.precision else allowed.precisions:
        route = find_route(source, allowed.format, precision, steps)
        if route is not None:
            if route and allowed.release is None:
                target.check(allowed.format, NEWEST_RUNTIME)
            return _plan(request, allowed.format, precision, route, target, allowed)
    raise _no_route(source, allowed.format, request.precision or allowed.precisions[0], steps)


def _plan(
    request: ConversionRequest,
    model_format: str,
    precision: str,
    route: Sequence[Converter],
    target: Target | None = None,
    allowed: AllowedFormat | None = None,
) -> ConversionPlan:
    """Return the plan for a route, with the options of its last converter.

    Raises UsageError for an opset that would have no effect.
    """
    opset = request.options.opset
    if opset is not None and target is None and model_format == "onnx" and not route:
        what = f"the model is already ONNX and is packed unchanged, so --opset {opset} would have no effect"
        raise UsageError(what, "leave it out, or export the model from its source with that opset")
    through_onnx = any("onnx" in (step.source, step.target) for step in route)
    if opset is not None and target is None and not through_onnx:
        raise UsageError(f"--opset needs a conversion through ONNX; that to {model_format} is not", "leave it out")
    options = replace(route[-1].Options.of(request.options) if route else ConvertOptions(), precision=precision)
    if route:
        release = allowed.release if allowed else None
        options = route[-1].for_board(options, release, _opset(target, allowed) if target and allowed else None)
    if not through_onnx:
        options = replace(options, opset=None)
    steps = tuple(one.id for one in route)
    return ConversionPlan(format=model_format, steps=steps, options=options, device=target.device if target else None)


def _add_notes(plan: ConversionPlan, target: Target, reasons: Sequence[str]) -> ConversionPlan:
    """Add notes on the formats that the device prefers but that cannot be written."""
    notes = tuple(f"skipped in favor of {plan.format}: {reason}" for reason in reasons)
    return replace(plan, device=target.device, notes=notes)


def _without_int8(source: OpenedSource, plan: ConversionPlan) -> str:
    """Say what to do without calibration data."""
    known = target_of(plan.device).allowed(plan.format).precisions if plan.device else (DEFAULT_PRECISION,)
    other = next(
        (one for one in known if one != "int8" and find_route(source, plan.format, one, all_converters())), None
    )
    pictures = "pass a folder of pictures of the real task with --calibration"
    return f"{pictures}, or use --precision {other}" if other else pictures


def _opset(target: Target, allowed: AllowedFormat) -> int | None:
    """Return the highest ONNX opset for the device; an ONNX file must suit every format that is built from it."""
    limits = [one.max_opset for one in target.formats if one.max_opset and allowed.format in ("onnx", one.format)]
    return min(limits, default=None)


def _most_helpful(reasons: Sequence[EdgeError]) -> EdgeError:
    """Prefer a refusal by the device: it explains more than a missing conversion step."""
    return next((one for one in reasons if isinstance(one, RefusedError)), reasons[0])


def _no_route(source: OpenedSource, model_format: str, precision: str, steps: Sequence[Converter]) -> EdgeError:
    for kind, word, known in (
        ("format", model_format, {step.target for step in steps}),
        ("precision", precision, {one for step in steps for one in step.precisions}),
    ):
        if word not in (*known, source.precision):
            near = get_close_matches(word, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"what works: {', '.join(sorted(known))}"
            return UsageError(f"edge writes no {kind} '{word}'", hint)
    reachable = _reachable(source, steps)
    what = f"edge cannot convert {source.format} {source.precision} to {model_format} {precision}"
    if source.precision in QUANTIZED:
        kept = next((found for found in reachable if found == f"{model_format} {source.precision}"), None)
        works = f", or keep its scales: --to {model_format} --precision {source.precision}" if kept else ""
        return UsageError(what, f"start from the float model that it was quantized from{works}")
    if not reachable:
        is_for_text = is_language_model(model_format)
        sources = ", ".join(sorted({one.source for one in steps if is_for_text or not is_language_model(one.target)}))
        return UsageError(what, f"what works: a source in {sources}; PyTorch and TensorFlow can export onnx")
    near = [found for found in reachable if model_format in found.split()] or sorted(
        reachable, key=lambda found: precision not in found.split()
    )
    return UsageError(what, f"what works: {', '.join(near)}")


def _reachable(source: OpenedSource, steps: Sequence[Converter]) -> list[str]:
    """List every "format precision" that a route leads to."""
    wanted = dict.fromkeys((step.target, precision) for step in steps for precision in step.precisions)
    return [" ".join(goal) for goal in wanted if find_route(source, *goal, steps) is not None]
