"""How often is a comparison wrong on this machine? Real rounds in turn, not simulated ones.

    python -m tests.benchmarks.calibration_real ARTIFACT [--pairs 40] [--seconds 0.5]

Each pair is the artifact and itself, measured in turn until `edge bench --compare` would stop. Then as many pairs
again, in which every time of one half is made 5 % longer. What must hold: at most 5 of 40 pairs are called faster or
slower, and at least 34 of 40 slower ones are found.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edge.benchmark.compare import MAX_ROUNDS, SLOWER, compare_in_turn, confidence_at, is_decided
from edge.benchmark.harness import Measurement, Setup, measure_all
from edge.benchmark.rows import rows_of
from runtimes.jobs import EngineOptions

PLANTED = 1.05
MAX_FALSE, FEWEST_FOUND = 5 / 40, 34 / 40
_OLD, _NEW = "old", "new"


def verdict(artifact: Path, seconds: float, factor: float) -> str:
    """Compare an artifact with itself, with the times of the new half multiplied by `factor`."""
    protocol = {"name": "steady", "max_s": seconds}
    setups = [
        Setup(id=name, title=name, artifact=artifact, options=EngineOptions(1), protocol=protocol)
        for name in (_NEW, _OLD)
    ]
    baselines = {_NEW: _OLD}

    def decided(done: list[Measurement]) -> bool:
        return is_decided(list(scaled(done, factor)), baselines)

    rows = rows_of(scaled(list(measure_all(setups, MAX_ROUNDS, is_decided=decided)), factor))
    (found,) = compare_in_turn(rows, baselines, confidence_at(len(rows[0].rounds)))
    return found.verdict


def scaled(measurements: list[Measurement], factor: float) -> Iterator[Measurement]:
    """Yield the measurements, those of the new half with longer times."""
    for one in measurements:
        if one.setup.id == _NEW:
            times = [factor * time for time in one.values["samples_ms"]]
            yield replace(one, values={**one.values, "samples_ms": times})
        else:
            yield one


def main() -> int:
    """Print the verdicts of both kinds of pairs. Returns 1 if what must hold does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, metavar="ARTIFACT")
    parser.add_argument("--pairs", type=int, default=40, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S", help="the time of one measurement (0.5)")
    args = parser.parse_args()
    counts = []
    for title, factor in (("the same", 1.0), ("5 % slower", PLANTED)):
        found: Counter[str] = Counter()
        for _ in range(args.pairs):
            found[verdict(args.artifact, args.seconds, factor)] += 1
            print(f"{title}: {dict(found)}", flush=True)
        counts.append(found)
    same, slower = counts
    wrong = (same["faster"] + same["slower"]) / args.pairs
    return int(wrong > MAX_FALSE or slower[SLOWER] / args.pairs < FEWEST_FOUND)


if __name__ == "__main__":
    raise SystemExit(main())
