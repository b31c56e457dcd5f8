"""How good is the winner of `edge tune`, and what does the search cost, compared with measuring everything?

    python tests/benchmarks/tuning.py MODEL [MODEL ...]

The full grid is every model with every engine, number of threads and combination of settings that the search knows,
measured by `edge.bench` with its defaults; settings that fail the artifact's proof are left out, as in the search. Then
the winner of the search and the best of the grid are measured in turn, which decides. What must hold: the winner's
time is at most 1.03× that of the best, and the search takes at most a fifth of the grid's time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import edge
from edge.benchmark.compare import values_in_turn
from edge.benchmark.harness import Setup, measure_all
from edge.benchmark.round_intervals import paired_ratio
from edge.benchmark.rows import rows_of
from edge.tuning.candidates import first_candidates, thread_counts, variants
from edge.workers.process import run_job
from runtimes import host
from runtimes.jobs import VerifyJob

MAX_RATIO, MAX_SHARE = 1.03, 0.2
_ROUNDS = 12  # of the two in turn


def grid(models: Sequence[Path]) -> Iterator[Setup]:
    """Yield every combination, with every subset of the settings."""
    threads = thread_counts(int(host.facts()["cpu"]["usable_cores"] or 1))
    for plain in first_candidates(models, [], threads):
        choices: dict[str, list[str | None]] = {}
        for one in variants(plain):
            for name, value in one.options.settings.items():
                choices.setdefault(name, [None]).append(value)
        for values in product(*choices.values()):
            settings = {name: value for name, value in zip(choices, values, strict=True) if value is not None}
            title = ", ".join([plain.title, *(f"{name}={value}" for name, value in settings.items())])
            options = replace(plain.options, settings=settings)
            yield replace(plain, id=title, title=title, protocol={"name": "steady"}, options=options)


def is_right(setup: Setup) -> bool:
    """Return whether the setup passes the proof of its artifact."""
    return run_job(VerifyJob(str(setup.artifact), setup.runtime, setup.options), timeout_s=600.0).passed


def main() -> int:
    """Print the two times, the winners and their ratio. Returns 1 if what must hold does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="artifacts of one model")
    models = parser.parse_args().models

    start = time.monotonic()
    tuned = edge.tune(models)
    searched_s = time.monotonic() - start
    print(f"search: {tuned.winner.title}, {tuned.winner.median_ms:.4g} ms, {searched_s:.0f} s")

    start = time.monotonic()
    everything = {one.id: one for one in grid(models) if is_right(one)}
    rows = rows_of(list(measure_all(list(everything.values()), 2, 600.0)))
    grid_s = time.monotonic() - start
    best = min((row for row in rows if row.median_ms is not None), key=lambda row: row.median_ms or 0.0)
    print(f"grid:   {best.title}, {best.median_ms:.4g} ms, {len(everything)} ways in {grid_s:.0f} s")

    ratio = 1.0
    if best.setup != tuned.winner.setup:
        winner = next(one.setup for one in tuned.trials if one.status == "winner")
        pair = [replace(winner, protocol={"name": "steady"}), everything[best.setup]]
        first, second = rows_of(list(measure_all(pair, _ROUNDS, 600.0)))
        new, old, statistic = values_in_turn(first, second)
        found = paired_ratio(new, old, 0.95)
        assert found is not None
        ratio = found.value
        print(f"in turn: {ratio:.3f} [{found.low:.3f}, {found.high:.3f}], {statistic} of {_ROUNDS} rounds each")
    share = searched_s / grid_s
    print(f"winner / best {ratio:.3f} (at most {MAX_RATIO}), time {share:.2f} of the grid's (at most {MAX_SHARE})")
    return int(ratio > MAX_RATIO or share > MAX_SHARE)


if __name__ == "__main__":
    raise SystemExit(main())
