"""The notes below the table: the meaning of its numbers, the correctness of the predictions, and the best setup."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from edge.benchmark.warnings import OTHER_CORES, machine_findings, other_cores
from edge.table.agreement import FP32_DIFFERENCE, TableAgreement
from edge.table.bundle import Bundle
from edge.table.compare_outputs import OutputDiff
from edge.table.recipes import with_sources
from edge.table.rows import TableRow
from edge.table.setups import THIS_MACHINE

_PUBLISHED_SETUP = "keras-predict"
_SCORES = (
    "Score is the top class's probability. Raw is what each script prints: the published table mixes a float softmax "
    "(0.9294), a saturated uint8 softmax (255/256 = 0.9961) and a dequantized logit ((222 − 58) × 0.09889254 = "
    "16.2184), for which no probability was published."
)


def notes_of(
    rows: Sequence[TableRow],
    bundle: Bundle,
    agreed: Mapping[str, TableAgreement],
    alike: Mapping[str, OutputDiff] = MappingProxyType({}),
) -> list[str]:
    """Return the notes, each a paragraph; the best setup is last."""
    lines = [_SCORES, _protocol(rows, bundle)]
    if not bundle.trained:
        lines.append(
            "The weights are random: the times are valid, but the predictions are meaningless and are not evaluated "
            "(use `edge table --fetch-weights`, or --weights FILE)."
        )
    elif not agreed and any(row.kind == "measured" for row in rows):
        lines.append(
            "The predictions were not compared: that needs labeled pictures, and the predictions of float Keras."
        )
    lines += _by_trtexec(rows)
    lines += _answers(rows, agreed)
    lines += _beside_here(rows, alike)
    lines += _costs_of_right_answers(rows)
    lines += _in_browser(rows)
    sources = dict.fromkeys(row.measured.energy_source for row in rows if row.measured and row.joules is not None)
    lines += [f"Energy of one classification, including idle power, from {source}." for source in sources]
    lines += _disturbances(rows)
    lines += [f"{names}: {hint}." for hint, names in _failures(rows).items()]
    lines += [f"Not built here: {names}, because {reason}." for reason, names in _not_built(rows, bundle).items()]
    return [*lines, *_best(rows, agreed)]


def best_row(rows: Sequence[TableRow], agreed: Mapping[str, TableAgreement]) -> TableRow | None:
    """Return the fastest measured row with correct predictions; if nothing was evaluated, the fastest row."""
    right = [row for row in rows if row.kind == "measured" and _gives_right_answers(row, agreed)]
    return max(right, key=lambda row: row.fps or 0.0, default=None)


def _disturbances(rows: Sequence[TableRow]) -> list[str]:
    """List what made the measured times worse than they can be on this machine, each with its remedy."""
    measured = [row.measured for row in rows if row.kind == "measured" and row.measured]
    timed = [row.measured for row in rows if row.time_s is not None and row.kind == "measured" and row.measured]
    busy = [row.setup for row in timed if other_cores(row) > OTHER_CORES]
    hosts = dict.fromkeys(row.host for row in measured)
    lines = [
        f"{host or 'This machine'}: {doubt.what}; {doubt.remedy}."
        for host in hosts
        for doubt in machine_findings([row for row in measured if row.host == host])
    ]
    if busy:
        most = max(map(other_cores, timed))
        lines.append(
            f"Other processes kept up to {most:.1f} cores busy during the measurement, so {len(busy)} of {len(timed)} "
            "setups are slower here than they can be; stop them (`top` shows them) and measure again."
        )
    return lines


def _failures(rows: Sequence[TableRow]) -> dict[str, str]:
    """Return hint → the setups that failed with it."""
    hints: dict[str, list[str]] = {}
    for row in rows:
        if row.kind == "failed" and row.measured and row.measured.hint:
            hints.setdefault(row.measured.hint, []).append(_short(row))
    return {hint: "; ".join(names) for hint, names in hints.items()}


def _not_built(rows: Sequence[TableRow], bundle: Bundle) -> dict[str, str]:
    """Return reason → the models that could not be built and that rows, or sources of their models, need."""
    lacking = {row.model for row in rows if row.model}
    reasons: dict[str, list[str]] = {}
    for recipe in with_sources(lacking):
        if recipe.id in bundle.missing:
            reasons.setdefault(bundle.missing[recipe.id], []).append(recipe.id)
    return {reason: ", ".join(names) for reason, names in reasons.items()}


def _protocol(rows: Sequence[TableRow], bundle: Bundle) -> str:
    by_host = {row.measured.host: row for row in rows if row.kind == "measured" and row.measured}
    measured = next(iter(by_host.values()), None)
    if measured is None or measured.measured is None:
        return "Nothing was measured."
    rounds = len(measured.measured.rounds)
    machines = "; ".join(_machine(row, host) for host, row in by_host.items())
    return (
        f"Measured on {machines}: {measured.runs} "
        f"classifications of one picture ({bundle.picture}) after one warm-up run and a pause of 1 s; "
        f"median of {rounds} round{'s' if rounds > 1 else ''}, each in its own process. Weights: {bundle.weights}."
    )


def _by_trtexec(rows: Sequence[TableRow]) -> list[str]:
    names = [_short(row) for row in rows if row.measured and (row.measured.protocol or {}).get("name") == "trtexec"]
    what = (
        "times reported by the board's own trtexec, with random inputs: copy to the GPU, compute, copy back. "
        "The outputs were not checked."
    )
    return [f"{'; '.join(names)}: {what}"] if names else []


def _machine(row: TableRow, host: str | None) -> str:
    machine = (row.measured and row.measured.machine) or {}
    what = f"{machine.get('board') or machine.get('cpu')} ({machine.get('logical_cores')} cores, {machine.get('os')})"
    return f"{host}: {what}" if host else what


def _host(row: TableRow) -> str | None:
    return row.measured.host if row.measured else None


def _short(row: TableRow) -> str:
    """Return the setup's title, without the machine if that is this one."""
    return row.setup.removeprefix(f"{THIS_MACHINE}, ")


def _answers(rows: Sequence[TableRow], agreed: Mapping[str, TableAgreement]) -> list[str]:
    """Describe the agreement with float Keras, one line for all setups with the same result."""
    groups: dict[tuple[object, ...], list[TableRow]] = {}
    for row in rows:
        if row.id in agreed:
            one = agreed[row.id]
            key = (one.pictures, one.precision, one.own_weights, one.is_right, one.same_top1, one.correct)
            groups.setdefault(key, []).append(row)
    if not groups:
        return []
    largest = max(agreed.values(), key=lambda one: one.pictures)
    head = (
        f"Predictions for {largest.pictures} evaluation pictures, compared with float Keras, which classifies "
        f"{largest.reference_correct} of them correctly:"
    )
    return [
        head,
        *(_describe_agreement(group, [agreed[row.id] for row in group], largest.pictures) for group in groups.values()),
    ]


def _beside_here(rows: Sequence[TableRow], alike: Mapping[str, OutputDiff]) -> list[str]:
    """Compare the outputs of boards with this machine's, one line for all setups with the same result."""
    groups: dict[str, list[TableRow]] = {}
    for row in rows:
        if row.id in alike:
            result = _describe_diff(alike[row.id]) + _other_version(row, alike[row.id])
            groups.setdefault(result, []).append(row)
    if not groups:
        return []
    head = (
        "Outputs compared with those of the same artifacts and engines for the same pictures on this machine "
        f"({_architecture(alike)}):"
    )
    return [head, *(f"- {result}: {_titles(group)}" for result, group in groups.items())]


def _other_version(row: TableRow, one: OutputDiff) -> str:
    """Note that the versions of the engine differ: a board's own pip chooses the version."""
    there = row.measured.runtime_version if row.measured else None
    return "" if there == one.runtime_version else f" (the engine is {there} there, {one.runtime_version} here)"


def _architecture(alike: Mapping[str, OutputDiff]) -> str:
    return next(iter(alike.values())).architecture


def _describe_diff(one: OutputDiff) -> str:
    if one.is_equal:
        return f"bit-identical on {one.pictures}"
    top = f"same top-1 on {one.same_top1} of {one.pictures}, {one.differing} of {one.values} values differ"
    if one.max_steps is not None:
        return f"{top}, by {one.max_steps} step{'s' if one.max_steps > 1 else ''} of the quantized output at most"
    if one.max_difference is None:
        return f"{top}, and some are not numbers"
    return f"{top}, by {one.max_difference:.1e} at most"


def _describe_agreement(rows: Sequence[TableRow], agreed: Sequence[TableAgreement], most: int) -> str:
    one = agreed[0]
    of_fewer = "" if one.pictures == most else f" of {one.pictures}"
    parts = [
        "" if one.is_right else "WRONG",
        "has its own weights" if one.own_weights else f"same top-1 on {one.same_top1}{of_fewer}",
        f"{one.correct}{of_fewer} correct",
    ]
    if one.precision == "fp32":
        largest = max(each.max_difference for each in agreed)
        parts.append(f"probabilities within {largest:.1e} (allowed: {FP32_DIFFERENCE:.0e})")
    return f"- {', '.join(filter(None, parts))}: {_titles(rows)}"


def _titles(rows: Sequence[TableRow]) -> str:
    """Join the titles without their thread counts, which do not change predictions."""
    return "; ".join(dict.fromkeys(re.sub(r", \d+ threads?$", "", _short(row)) for row in rows))


def _costs_of_right_answers(rows: Sequence[TableRow]) -> list[str]:
    """Say what the precise int8 kernels cost on a CPU whose fast kernels saturate."""
    by_id = {row.id: row for row in rows if row.kind == "measured"}
    lines = []
    for name, row in by_id.items():
        precise = by_id.get(name.replace("-int8-fast-", "-int8-"))
        if "-int8-fast-" in name and precise and precise.time_s and row.time_s:
            lines.append(
                f"This CPU has no int8 dot product: {row.setup} would be {precise.time_s / row.time_s:.2f}× as fast "
                "as the precise setting, with the predictions above."
            )
    return lines


def _in_browser(rows: Sequence[TableRow]) -> list[str]:
    """Name the browser of each of its rows, and compare it with the native row of the same model and threads."""
    by_id = {row.id: row for row in rows if row.kind == "measured"}
    lines = []
    for name, row in by_id.items():
        measured, native = row.measured, by_id.get(name.removeprefix("browser-"))
        if measured is None or measured.browser is None:
            continue
        line = f"{_short(row)}: {measured.runtime} {measured.runtime_version} in {measured.browser.get('name')}"
        if native is not None and native is not row and native.time_s and row.time_s:
            line += f", {row.time_s / native.time_s:.1f}× the time of {_short(native)}"
        lines.append(line + ".")
    return lines


def _gives_right_answers(row: TableRow, agreed: Mapping[str, TableAgreement]) -> bool:
    if not agreed:
        return True
    agreement = agreed.get(row.id)
    return agreement is not None and agreement.is_right and not agreement.own_weights


def _best(rows: Sequence[TableRow], agreed: Mapping[str, TableAgreement]) -> list[str]:
    hosts = dict.fromkeys(_host(row) for row in rows if row.kind == "measured")
    return [line for host in hosts for line in _best_of([row for row in rows if _host(row) == host], agreed, host)]


def _best_of(rows: Sequence[TableRow], agreed: Mapping[str, TableAgreement], host: str | None) -> list[str]:
    if any(row.measured and (row.measured.machine or {}).get("emulated") for row in rows):
        return []  # times on an emulated processor are meaningless
    best = best_row(rows, agreed)
    if best is None or best.time_s is None or best.fps is None:
        return []
    name = best.setup.removeprefix(f"{host or THIS_MACHINE}, ")
    line = f"Best for {host or THIS_MACHINE}: {name}, {best.fps:.1f} fps"
    baseline = next((row for row in rows if row.kind == "measured" and row.id.startswith(_PUBLISHED_SETUP)), None)
    if baseline is not None and baseline.time_s is not None and baseline is not best:
        ratio = baseline.time_s / best.time_s
        line += f", {ratio:.1f}× as fast as the published setup (Keras predict)"
    return [line + "."]
