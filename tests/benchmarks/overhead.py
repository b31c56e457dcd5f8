"""How much does the harness itself cost? See README.md in this folder."""

import sys
import tempfile
import time
from pathlib import Path

from edge.benchmark import Setup, measure_all
from runtimes.measurement.statistics import median

MAX_US = 5.0
MAX_SHARE = 0.01  # of one core, including the start of the process and the reading of its samples
WAIT_S = 10


def null_call_us(folder: Path) -> float:
    """Return the median of a call to the engine that does nothing: session, checks, loop and clock."""
    model = folder / "nothing.null"
    model.write_bytes(b"x")
    measurement = next(measure_all([Setup(id="null", title="null", artifact=model)], rounds=1))
    return median(measurement.values["samples_ms"]) * 1e3


def parent_share(folder: Path) -> float:
    """Return the parent's CPU time as a share of the time for which its worker pauses and measures."""
    model = folder / "waiting.null"
    model.write_bytes(b"x")
    protocol = {"name": "published", "runs": 1, "pause_s": WAIT_S}
    wall, used = time.perf_counter(), time.process_time()
    next(measure_all([Setup(id="wait", title="wait", artifact=model, protocol=protocol)], rounds=1))
    return (time.process_time() - used) / (time.perf_counter() - wall)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        call, share = null_call_us(Path(folder)), parent_share(Path(folder))
    claims = {
        f"null runtime    {call:5.2f} µs a call, at most {MAX_US:g}": call < MAX_US,
        f"waiting parent  {share:5.2%} of a core, at most {MAX_SHARE:.0%}": share < MAX_SHARE,
    }
    for words, holds in claims.items():
        print(f"{words:48} {'holds' if holds else 'FAILS'}")
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
