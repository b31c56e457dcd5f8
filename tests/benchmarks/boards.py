"""What does a board cost beside the measurement itself? See README.md in this folder.

python tests/benchmarks/boards.py HOST      a board that ssh knows, on which `edge deploy` has been before
"""

import sys
import tempfile
import time
from pathlib import Path

from edge.bench import Setup
from edge.remote.board import Board
from edge.remote.jobs import measure_on
from runtimes.stats import median

MOST_S = 3.0
TIMES = 5


def seconds(host: str, model: Path) -> float:
    """The wall time of one measurement on the board that takes no time itself: all of it is overhead."""
    setup = Setup("null", "null", model, protocol={"name": "published", "runs": 1, "pause_s": 0}, host=host)
    start = time.perf_counter()
    (measurement,) = measure_on({host: Board(host, offline=True)}, {host: [setup]}, rounds=1)
    if not measurement.is_ok:
        raise SystemExit(f"{measurement.values['message']}")
    return time.perf_counter() - start


def main() -> int:
    """Print the median of five, after one that installs what is missing; 0 where it is under the limit."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "nothing.null")
        model.write_bytes(b"x")
        first = seconds(sys.argv[1], model)
        spent = [seconds(sys.argv[1], model) for _ in range(TIMES)]
    print(f"first {first:.2f} s; then {', '.join(f'{one:.2f}' for one in spent)} s, at most {MOST_S:g}")
    return 0 if median(spent) < MOST_S else 1


if __name__ == "__main__":
    sys.exit(main())
