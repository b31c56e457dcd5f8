"""Compare outputs whose number of rows depends on the input's values, as sets of rows.

Samples are padded with NaN to the same number of rows. Rows are matched one to one within a tolerance for each column;
their order does not count. Outputs that have the same number of rows in every sample, such as boxes and their scores,
are matched together: a row is right if it is right in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact.json_fields import JsonObject
from runtimes.artifact.self_check import OutputCheck, Part

# Precision → the share of rows that must match, and of a column's range that a value may be off. A score that is equal
# to a threshold up to rounding may fall on either side of it.
_LIMITS: Mapping[str, tuple[float, float]] = {"fp32": (0.999, 1 / 2048), "fp16": (0.98, 1 / 128)}
_QUANTIZED = (0.8, 1 / 16)
_FEWEST_SAMPLES = 4  # for a loss in every sample to mean something
_SYSTEMATIC = 0.02  # share of the rows that may be missing in all samples alike
_MAX_COLUMNS = 64  # with a range of their own
_MAX_COMPARED = 600  # rows of a sample that are compared with each other; of more, those that do not match in order


@dataclass(frozen=True)
class RowReport:
    """The verdict on outputs that are sets of rows.

    share: The share of rows that match.
    limit: The least share that passes.
    failures: What fails.
    """

    share: float
    limit: float
    failures: tuple[str, ...]

    def as_dict(self) -> JsonObject:
        """Return the report as JSON."""
        return {"matched": self.share, "limit": self.limit}


def pad(samples: Sequence[Array], axis: int) -> Array:
    """Stack float arrays that differ in the size of `axis`; absent rows are NaN, and values that are NaN infinite."""
    size = max(sample.shape[axis] for sample in samples)
    return np.stack([_longer(np.where(np.isnan(one), np.inf, one), axis, size) for one in samples])


def padded_axis(values: Array, shape: Sequence[int | str]) -> int | None:
    """Return the axis of a sample along which [n, ...] is padded with NaN; None if there is none.

    It is one of the free axes (a name) of `shape`: of a sample without any row, each axis might be padded.
    """
    absent = np.isnan(values)
    if absent.reshape(len(values), -1).any(axis=1).all() or not absent.any():
        return None  # the sample with the most rows is not padded
    free = (axis for axis, size in enumerate(shape, 1) if isinstance(size, str))
    for axis in free:
        rows = np.moveaxis(absent, axis, 1).reshape(*absent.shape[:1], absent.shape[axis], -1)
        if bool((rows.all(axis=2) == rows.any(axis=2)).all()):
            return axis - 1
    return None


def same_size(first: Array, second: Array) -> tuple[Array, Array]:
    """Pad both arrays with NaN to the same shape, if they have the same rank."""
    if first.ndim == second.ndim:
        for axis in range(first.ndim):
            size = max(first.shape[axis], second.shape[axis])
            first, second = _longer(first, axis, size), _longer(second, axis, size)
    return first, second


def row_check(name: str, axis: int, expected: Array, *, exact: bool) -> OutputCheck:
    """Return the check of an output with rows along `axis`: first that axis, then the range of each column.

    exact: Whether the values are labels and indices, which must be equal.
    """
    rows = np.concatenate(_rows(expected, axis))
    width = rows.shape[1]
    size = 1 if not exact and 0 < width <= _MAX_COLUMNS else max(1, width)
    across = 1 - axis if expected.ndim == 3 else axis
    parts = []
    for start in range(0, width, size):
        span = 0.0 if exact or not len(rows) else float(np.ptp(rows[:, start : start + size]))
        parts.append(Part(axis=across, start=start, stop=start + size, span=float(f"{span:.6g}")))
    return OutputCheck(name, "rows", (Part(axis=axis, start=0, stop=expected.shape[axis + 1], span=0.0), *parts))


def judge_rows(
    precision: str, checks: Sequence[OutputCheck], expected: Arrays, given: Arrays
) -> dict[tuple[str, ...], RowReport]:
    """Match the outputs of these checks; returns a report for each set of outputs that are matched together."""
    groups: dict[tuple[int, ...], list[OutputCheck]] = {}
    for check in checks:
        counts = tuple(len(rows) for rows in _rows(expected[check.name], check.parts[0].axis))
        groups.setdefault(counts, []).append(check)
    return {
        tuple(check.name for check in group): _judge(precision, group, expected, given) for group in groups.values()
    }


def _judge(precision: str, group: Sequence[OutputCheck], expected: Arrays, given: Arrays) -> RowReport:
    limit, off = _LIMITS.get(precision, _QUANTIZED)
    wanted, found = ([_rows(arrays[one.name], one.parts[0].axis) for one in group] for arrays in (expected, given))
    if any(mine[0].shape[1] != other[0].shape[1] for mine, other in zip(wanted, found)):
        return RowReport(0.0, limit, ("its rows have another size in the result",))
    if any(np.isinf(rows).any() for output in found for rows in output):
        return RowReport(0.0, limit, ("holds values that are not finite (NaN or infinity)",))
    samples = range(len(wanted[0]))
    uneven = [i for i in samples if len({len(output[i]) for output in found}) > 1]
    if uneven:
        return RowReport(0.0, limit, ("outputs of one row each differ in their number of rows",))
    tolerance = np.concatenate([_tolerance(check, output[0].shape[1], off) for check, output in zip(group, wanted)])
    counts = [(_join(wanted, i), _join(found, i)) for i in samples]
    matched = [count_matching(mine, other, tolerance) for mine, other in counts]
    total = sum(max(len(mine), len(other)) for mine, other in counts)
    share = sum(matched) / total if total else 1.0
    failures = []
    if share < limit:
        missing = sum(len(mine) for mine, _ in counts) - sum(matched)
        extra = sum(len(other) for _, other in counts) - sum(matched)
        failures.append(
            f"{100 * share:.4g} % of {total:,} rows match, at least {100 * limit:.4g} %: "
            f"{missing:,} of the source's rows are missing or wrong, {extra:,} of the result's are not the source's"
        )
    failures += _lost_everywhere(counts)
    return RowReport(share, limit, tuple(failures))


def _lost_everywhere(counts: Sequence[tuple[Array, Array]]) -> list[str]:
    """Report rows that are missing in every sample, or too many in every sample: ties would go either way."""
    filled = [(len(mine), len(other)) for mine, other in counts if len(mine)]
    if len(filled) < _FEWEST_SAMPLES:
        return []
    apart = sum(mine - other for mine, other in filled) / sum(mine for mine, _ in filled)
    for words, share, all_alike in (
        ("lacks rows", apart, all(other < mine for mine, other in filled)),
        ("has too many rows", -apart, all(other > mine for mine, other in filled)),
    ):
        if all_alike and share > _SYSTEMATIC:
            return [f"the result {words} for every input, {100 * share:.2g} % of them"]
    return []


def count_matching(expected: Array, given: Array, tolerance: Array) -> int:
    """Return how many rows of [k, columns] can be matched one to one within the tolerance of each column."""
    few = min(len(expected), len(given))
    in_order = (np.abs(expected[:few] - given[:few]) <= tolerance).all(axis=1)
    if not in_order.all() and max(len(expected), len(given)) <= _MAX_COMPARED:
        in_order[:] = False  # few enough to try all pairs
    left = np.concatenate([expected[:few][~in_order], expected[few:]])
    others = np.concatenate([given[:few][~in_order], given[few:]])
    if not len(left) or not len(others):
        return int(in_order.sum())
    left, others = left[:_MAX_COMPARED], others[:_MAX_COMPARED]
    fits = np.ones((len(left), len(others)), bool)
    for column in range(left.shape[1]):
        fits &= np.abs(left[:, column : column + 1] - others[:, column]) <= tolerance[column]
    return int(in_order.sum()) + _matching(fits)


def _matching(fits: Array) -> int:
    """Return the size of a maximum matching of the bipartite graph `fits` [k, m] (Kuhn, by augmenting paths)."""
    row_of: dict[int, int] = {}
    column_of: dict[int, int] = {}
    choices = [np.flatnonzero(row).tolist() for row in fits]
    for start in range(len(choices)):
        reached_from: dict[int, int] = {}
        waiting: list[int] = [start]
        end: int | None = None
        while waiting and end is None:
            row = waiting.pop()
            for column in choices[row]:
                if column not in reached_from:
                    reached_from[column] = row
                    if column not in row_of:
                        end = column
                        break
                    waiting.append(row_of[column])
        while end is not None:  # every row on the path takes the column that was reached from it
            row = reached_from[end]
            row_of[end] = row
            before = column_of.get(row)
            column_of[row], end = end, before
    return len(row_of)


def _tolerance(check: OutputCheck, width: int, off: float) -> Array:
    allowed = np.zeros(width)
    for part in check.parts[1:]:
        allowed[part.start : part.stop] = part.span * off
    return allowed


def _join(outputs: Sequence[Sequence[Array]], sample: int) -> Array:
    return np.concatenate([output[sample] for output in outputs], axis=1)


def _rows(values: Array, axis: int) -> list[Array]:
    """Return the rows [k, columns] of each sample, without those that only pad it."""
    rows = np.moveaxis(values.astype(np.float64), axis + 1, 1)
    rows = rows.reshape(*rows.shape[:2], -1 if rows.size else int(np.prod(rows.shape[2:])))
    return [sample[~np.isnan(sample).all(axis=1)] if sample.size else sample[:0] for sample in rows]


def _longer(values: Array, axis: int, size: int) -> Array:
    widths = [(0, size - values.shape[place] if place == axis else 0) for place in range(values.ndim)]
    return np.pad(values, widths, constant_values=np.nan) if size > values.shape[axis] else values
