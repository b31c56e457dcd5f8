"""How often is a comparison wrong? Simulated, without a clock. See README.md in this folder."""

import sys
from collections import Counter

import numpy as np

from tests.edge.benchmark.simulated_rounds import KINDS, in_turn, two_sessions

SIMULATIONS = 2000
MAX_FALSE, FEWEST_FOUND = 0.05, 0.95


def counted(verdicts: list[str]) -> Counter[str]:
    return Counter({verdict: count / len(verdicts) for verdict, count in Counter(verdicts).items()})


def main(simulations: int) -> int:
    holds = True
    print(f"{simulations} seeded simulations of each kind; a setup against itself, then 5 % slower\n")
    print("| rounds | called faster or slower | no difference | rounds used | 5 % slower: found | rounds used |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind in KINDS:
        random = np.random.default_rng(16)
        same = [in_turn(kind, random) for _ in range(simulations)]
        slower = [in_turn(kind, random, 0.05) for _ in range(simulations)]
        one, other = counted([item.verdict for item in same]), counted([item.verdict for item in slower])
        wrong, equal, found = one["faster"] + one["slower"], one["no difference"], other["slower"]
        used = [np.mean([item.rounds[0] for item in items]) for items in (same, slower)]
        print(f"| {kind} | {wrong:.1%} | {equal:.0%} | {used[0]:.1f} | {found:.1%} | {used[1]:.1f} |", flush=True)
        holds &= wrong <= MAX_FALSE and found >= FEWEST_FOUND
    print("\n| against a file, sessions 1 % apart | called faster or slower | one session only | 10 % slower: found |")
    print("|---|---:|---:|---:|")
    for rounds in (5, 10, 20):
        random = np.random.default_rng(16)
        one = counted([two_sessions(rounds, random).verdict for _ in range(simulations)])
        other = counted([two_sessions(rounds, random, 0.1).verdict for _ in range(simulations)])
        wrong = one["faster"] + one["slower"]
        print(f"| {rounds} rounds each | {wrong:.1%} | {one['one session only']:.0%} | {other['slower']:.1%} |")
        holds &= wrong <= MAX_FALSE and other["slower"] >= FEWEST_FOUND
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else SIMULATIONS))
