"""The lines below the table: what its numbers are, whether the answers are right, and which setup is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge.table.answers import FP32_DIFFERENCE, Agreement
from edge.table.bundle import Bundle
from edge.table.rows import Row

PUBLISHED_WAY = "keras-predict"
_SCORES = (
    "Score is the top class's probability. Raw is what each script prints: the published table mixes a float softmax "
    "(0.9294), a saturated uint8 softmax (255/256 = 0.9961) and a dequantised logit ((222 − 58) × 0.09889254 = "
    "16.2184), for which no probability was published."
)


def notes_of(rows: Sequence[Row], bundle: Bundle, agreed: Mapping[str, Agreement]) -> list[str]:
    """All lines, each a paragraph; the best setup last."""
    lines = [_SCORES, _protocol(rows, bundle)]
    if not bundle.trained:
        lines.append(
            "The weights are random: times are this machine's, answers mean nothing and are not evaluated "
            "(`edge table --fetch-weights`, or --weights FILE)."
        )
    lines += _answers(rows, agreed)
    lines += _costs_of_right_answers(rows)
    lines += [f"{row.setup}: {row.data['hint']}." for row in rows if row.kind == "failed" and row.data.get("hint")]
    return [*lines, *_best(rows, agreed)]


def best_row(rows: Sequence[Row], agreed: Mapping[str, Agreement]) -> Row | None:
    """The fastest measured row whose answers are right; where nothing was evaluated, the fastest."""
    right = [row for row in rows if row.kind == "measured" and _is_right(row, agreed)]
    return max(right, key=lambda row: row.fps or 0.0, default=None)


def _protocol(rows: Sequence[Row], bundle: Bundle) -> str:
    measured = next((row for row in rows if row.kind == "measured"), None)
    if measured is None:
        return "Nothing was measured."
    rounds = len(measured.data["rounds"])
    machine = measured.data["machine"]
    return (
        f"Measured on {machine['cpu']} ({machine['logical_cores']} cores, {machine['os']}): {measured.runs} "
        f"classifications of one picture ({bundle.picture}) after one to warm up and a pause of 1 s; "
        f"median of {rounds} round{'s' if rounds > 1 else ''}, a process for each. Weights: {bundle.weights}."
    )


def _answers(rows: Sequence[Row], agreed: Mapping[str, Agreement]) -> list[str]:
    """One line for each setup's answers, setups that answer alike together."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        if row.id in agreed:
            groups.setdefault(_said(row, agreed[row.id]), []).append(row.setup.removeprefix("this machine, "))
    if not groups:
        return []
    some = next(iter(agreed.values()))
    head = (
        f"Answers on {some.pictures} evaluation pictures beside float Keras, which names {some.reference_correct} "
        f"of them correctly (fp32 is right within {FP32_DIFFERENCE:g}):"
    )
    return [head, *(f"- {said}: {'; '.join(names)}" for said, names in groups.items())]


def _said(row: Row, agreement: Agreement) -> str:
    verdict = "" if agreement.is_right(str(row.data["precision"])) else "NOT RIGHT, "
    difference = f"probabilities within {agreement.max_difference:.0e}" if agreement.max_difference < 0.01 else ""
    parts = [
        f"{verdict}same top-1 on {agreement.same_top1} of {agreement.pictures}",
        f"{agreement.correct} correct",
        difference,
    ]
    return ", ".join(part for part in parts if part)


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


def _is_right(row: Row, agreed: Mapping[str, Agreement]) -> bool:
    if not agreed:
        return True
    agreement = agreed.get(row.id)
    return agreement is not None and agreement.is_right(str(row.data["precision"]))


def _best(rows: Sequence[Row], agreed: Mapping[str, Agreement]) -> list[str]:
    best = best_row(rows, agreed)
    if best is None or best.time_s is None or best.fps is None:
        return []
    line = f"Best for this machine: {best.setup.removeprefix('this machine, ')}, {best.fps:.1f} fps"
    published_way = next((row for row in rows if row.kind == "measured" and row.id.startswith(PUBLISHED_WAY)), None)
    if published_way is not None and published_way.time_s is not None and published_way is not best:
        ratio = published_way.time_s / best.time_s
        line += f", {ratio:.1f}× as fast as the published way (Keras predict)"
    return [line + "."]
