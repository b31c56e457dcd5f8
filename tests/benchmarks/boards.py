"""How much time does a board add to the measurement itself? See README.md in this folder.

python -m tests.benchmarks.boards         a real sshd on this machine, behind a delay like a LAN's
python -m tests.benchmarks.boards HOST    a board that ssh knows
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.benchmark import Setup
from edge.remote.board import Board
from edge.remote.fleet import measure_on
from runtimes.measurement.statistics import median
from tests.boards.line import Line, through
from tests.edge.remote import sshd

MAX_S = 3.0
TIMES = 5
LAN_S = 0.001  # in each direction; a cable has half of it, Wi-Fi some more


@contextmanager
def loopback(folder: Path) -> Iterator[str]:
    """Yield the name of a board that is this machine, behind a delay like a LAN's."""
    with sshd.running(folder / "board", folder) as board, through(board, Line(delay_s=LAN_S)) as far:  # type: ignore[arg-type]
        os.environ["EDGE_SSH"] = f"ssh -F {far.config}"
        yield far.name


def seconds(host: str, model: Path) -> float:
    """Return the wall time of one measurement that takes no time on the board, so that all of it is overhead."""
    setup = Setup(
        id="null", title="null", artifact=model, protocol={"name": "published", "runs": 1, "pause_s": 0}, host=host
    )
    start = time.perf_counter()
    (measurement,) = measure_on({host: Board(host, offline=True)}, {host: [setup]}, rounds=1)
    if not measurement.is_ok:
        raise SystemExit(f"{measurement.values['message']}")
    return time.perf_counter() - start


def measure(host: str, folder: Path) -> bool:
    """Print five times, after one that installs what is missing; return whether their median is under the limit."""
    model = folder / "nothing.null"
    model.write_bytes(b"x")
    first = seconds(host, model)
    spent = [seconds(host, model) for _ in range(TIMES)]
    print(f"first {first:.2f} s; then {', '.join(f'{one:.2f}' for one in spent)} s, at most {MAX_S:g}")
    return median(spent) < MAX_S


def main() -> int:
    """Measure the named board, or this machine as one; the status is 0 if the median is under the limit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if len(sys.argv) == 2:
            return 0 if measure(sys.argv[1], folder) else 1
        with loopback(folder) as host:
            return 0 if measure(host, folder) else 1


if __name__ == "__main__":
    sys.exit(main())
