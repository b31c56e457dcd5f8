"""The lines below the table: what its numbers are, whether the answers are right, and which setup is best."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from edge.bench.findings import OTHER_CORES, machine_findings, other_cores
from edge.table.answers import FP32_DIFFERENCE, Agreement
from edge.table.beside import Likeness
from edge.table.bundle import Bundle
from edge.table.recipes import with_sources
from edge.table.rows import Row
from edge.table.setups import THIS_MACHINE

PUBLISHED_WAY = "keras-predict"
_SCORES = (
    "Score is the top class's probability. Raw is what each script prints: the published table mixes a float softmax "
    "(0.9294), a saturated uint8 softmax (255/256 = 0.9961) and a dequantised logit ((222 − 58) × 0.09889254 = "
    "16.2184), for which no probability was published."
)


def notes_of(
    rows: Sequence[Row],
    bundle: Bundle,
    agreed: Mapping[str, Agreement],
    alike: Mapping[str, Likeness] = MappingProxyType({}),
) -> list[str]:
    """All lines, each a paragraph; the best setup last."""
    lines = [_SCORES, _protocol(rows, bundle)]
    if not bundle.trained:
        lines.append(
            "The weights are random: times are this machine's, answers mean nothing and are not evaluated "
            "(`edge table --fetch-weights`, or --weights FILE)."
        )
    elif not agreed and any(row.kind == "measured" for row in rows):
        lines.append("The answers were not compared: that takes labelled pictures, and float Keras' answers to them.")
    lines += _by_trtexec(rows)
    lines += _answers(rows, agreed)
    lines += _beside_here(rows, alike)
    lines += _costs_of_right_answers(rows)
    sources = dict.fromkeys(row.data["energy_source"] for row in rows if row.joules is not None)
    lines += [f"Energy of one classification, idle power included, by {source}." for source in sources]
    lines += _disturbances(rows)
    lines += [f"{names}: {hint}." for hint, names in _failures(rows).items()]
    lines += [f"Not made here: {names}, because {reason}." for reason, names in _unmade(rows, bundle).items()]
    return [*lines, *_best(rows, agreed)]


def best_row(rows: Sequence[Row], agreed: Mapping[str, Agreement]) -> Row | None:
    """The fastest measured row that gives our weights' answers; where nothing was evaluated, the fastest."""
    right = [row for row in rows if row.kind == "measured" and _gives_right_answers(row, agreed)]
    return max(right, key=lambda row: row.fps or 0.0, default=None)


def _disturbances(rows: Sequence[Row]) -> list[str]:
    """What made these times worse than the machine's own, each with its remedy."""
    measured = [dict(row.data) for row in rows if row.kind == "measured"]
    timed = [dict(row.data) for row in rows if row.time_s is not None and row.kind == "measured"]
    busy = [row["setup"] for row in timed if other_cores(row) > OTHER_CORES]
    hosts = dict.fromkeys(row.get("host") for row in measured)
    lines = [
        f"{host or 'This machine'}: {doubt.what}; {doubt.remedy}."
        for host in hosts
        for doubt in machine_findings([row for row in measured if row.get("host") == host])
    ]
    if busy:
        most = max(map(other_cores, timed))
        lines.append(
            f"Other processes kept up to {most:.1f} cores busy meanwhile, so that {len(busy)} of {len(timed)} "
            "setups are slower here than they can be; stop them (`top` shows them) and measure again."
        )
    return lines


def _failures(rows: Sequence[Row]) -> dict[str, str]:
    """Hint → the setups that failed with it."""
    hints: dict[str, list[str]] = {}
    for row in rows:
        if row.kind == "failed" and row.data.get("hint"):
            hints.setdefault(row.data["hint"], []).append(_short(row))
    return {hint: "; ".join(names) for hint, names in hints.items()}


def _unmade(rows: Sequence[Row], bundle: Bundle) -> dict[str, str]:
    """Reason → the models that rows lack, and those among their sources that could not be made."""
    lacking = {row.data["model"] for row in rows if row.data.get("model")}
    reasons: dict[str, list[str]] = {}
    for recipe in with_sources(lacking):
        if recipe.id in bundle.missing:
            reasons.setdefault(bundle.missing[recipe.id], []).append(recipe.id)
    return {reason: ", ".join(names) for reason, names in reasons.items()}


def _protocol(rows: Sequence[Row], bundle: Bundle) -> str:
    by_host = {row.data.get("host"): row for row in rows if row.kind == "measured"}
    measured = next(iter(by_host.values()), None)
    if measured is None:
        return "Nothing was measured."
    rounds = len(measured.data["rounds"])
    machines = "; ".join(_machine(row, host) for host, row in by_host.items())
    return (
        f"Measured on {machines}: {measured.runs} "
        f"classifications of one picture ({bundle.picture}) after one to warm up and a pause of 1 s; "
        f"median of {rounds} round{'s' if rounds > 1 else ''}, a process for each. Weights: {bundle.weights}."
    )


def _by_trtexec(rows: Sequence[Row]) -> list[str]:
    names = [_short(row) for row in rows if (row.data.get("protocol") or {}).get("name") == "trtexec"]
    what = "times of the board's own trtexec, fed with random numbers: to the GPU, computing, back. No answer was seen."
    return [f"{'; '.join(names)}: {what}"] if names else []


def _machine(row: Row, host: str | None) -> str:
    machine = row.data["machine"]
    what = f"{machine.get('board') or machine['cpu']} ({machine['logical_cores']} cores, {machine['os']})"
    return f"{host}: {what}" if host else what


def _short(row: Row) -> str:
    """The setup's own title: without the machine, where that is this one."""
    return row.setup.removeprefix(f"{THIS_MACHINE}, ")


def _answers(rows: Sequence[Row], agreed: Mapping[str, Agreement]) -> list[str]:
    """One line for the setups that answer alike."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.id in agreed:
            one = agreed[row.id]
            alike = (one.pictures, one.precision, one.own_weights, one.is_right, one.same_top1, one.correct)
            groups.setdefault(alike, []).append(row)
    if not groups:
        return []
    some = max(agreed.values(), key=lambda one: one.pictures)
    head = (
        f"Answers to {some.pictures} evaluation pictures, beside those of float Keras, which names "
        f"{some.reference_correct} of them correctly:"
    )
    return [head, *(_said(group, [agreed[row.id] for row in group], some.pictures) for group in groups.values())]


def _beside_here(rows: Sequence[Row], alike: Mapping[str, Likeness]) -> list[str]:
    """One line for the setups of boards whose answers are as like this machine's."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.id in alike:
            how = _how_like(alike[row.id]) + _other_version(row, alike[row.id])
            groups.setdefault(how, []).append(row)
    if not groups:
        return []
    head = f"The same artifacts and engines answered the same pictures on this machine ({_architecture(alike)}):"
    return [head, *(f"- {how}: {_titles(group)}" for how, group in groups.items())]


def _other_version(row: Row, one: Likeness) -> str:
    """A board's own pip chooses its engine."""
    there = row.data["runtime_version"]
    return "" if there == one.runtime_version else f" (the engine is {there} there, {one.runtime_version} here)"


def _architecture(alike: Mapping[str, Likeness]) -> str:
    return next(iter(alike.values())).architecture


def _how_like(one: Likeness) -> str:
    if one.is_equal:
        return f"equal to the bit on {one.pictures}"
    top = f"same top-1 on {one.same_top1} of {one.pictures}, {one.differing} of {one.values} values differ"
    if one.max_steps is not None:
        return f"{top}, by {one.max_steps} step{'s' if one.max_steps > 1 else ''} of the quantised output at most"
    if one.max_difference is None:
        return f"{top}, and some are no numbers"
    return f"{top}, by {one.max_difference:.1e} at most"


def _said(rows: Sequence[Row], agreed: Sequence[Agreement], most: int) -> str:
    one = agreed[0]
    of_fewer = "" if one.pictures == most else f" of {one.pictures}"
    parts = [
        "" if one.is_right else "NOT RIGHT",
        "weights of its own" if one.own_weights else f"same top-1 on {one.same_top1}{of_fewer}",
        f"{one.correct}{of_fewer} correct",
    ]
    if one.precision == "fp32":
        largest = max(each.max_difference for each in agreed)
        parts.append(f"probabilities within {largest:.1e} (allowed: {FP32_DIFFERENCE:.0e})")
    return f"- {', '.join(filter(None, parts))}: {_titles(rows)}"


def _titles(rows: Sequence[Row]) -> str:
    """The setups, whatever their threads: those do not change an answer."""
    return "; ".join(dict.fromkeys(re.sub(r", \d+ threads?$", "", _short(row)) for row in rows))


def _costs_of_right_answers(rows: Sequence[Row]) -> list[str]:
    """What the precise int8 kernels cost where the fast ones saturate."""
    by_id = {row.id: row for row in rows if row.kind == "measured"}
    lines = []
    for name, row in by_id.items():
        precise = by_id.get(name.replace("-int8-fast-", "-int8-"))
        if "-int8-fast-" in name and precise and precise.time_s and row.time_s:
            lines.append(
                f"This CPU has no int8 dot product: {row.setup} would be {precise.time_s / row.time_s:.2f}× as fast "
                "as the precise setting, at the answers above."
            )
    return lines


def _gives_right_answers(row: Row, agreed: Mapping[str, Agreement]) -> bool:
    if not agreed:
        return True
    agreement = agreed.get(row.id)
    return agreement is not None and agreement.is_right and not agreement.own_weights


def _best(rows: Sequence[Row], agreed: Mapping[str, Agreement]) -> list[str]:
    hosts = dict.fromkeys(row.data.get("host") for row in rows if row.kind == "measured")
    return [
        line for host in hosts for line in _best_of([row for row in rows if row.data.get("host") == host], agreed, host)
    ]


def _best_of(rows: Sequence[Row], agreed: Mapping[str, Agreement], host: str | None) -> list[str]:
    if any((row.data.get("machine") or {}).get("emulated") for row in rows):
        return []  # nothing is fast or slow there
    best = best_row(rows, agreed)
    if best is None or best.time_s is None or best.fps is None:
        return []
    name = best.setup.removeprefix(f"{host or THIS_MACHINE}, ")
    line = f"Best for {host or THIS_MACHINE}: {name}, {best.fps:.1f} fps"
    published_way = next((row for row in rows if row.kind == "measured" and row.id.startswith(PUBLISHED_WAY)), None)
    if published_way is not None and published_way.time_s is not None and published_way is not best:
        ratio = published_way.time_s / best.time_s
        line += f", {ratio:.1f}× as fast as the published way (Keras predict)"
    return [line + "."]
