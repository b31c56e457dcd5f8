"""The benchmark harness: setups in, rows out.

    from edge.benchmark import Setup, measure_all, rows_of

    one_thread = EngineOptions(threads=1)
    setups = [Setup(id="mobilenet 1", title="MobileNetV2", artifact=Path("mobilenet.onnx"), options=one_thread)]
    rows = rows_of(measure_all(setups, rounds=2))

`measure_all` yields one `Measurement` per setup and round as soon as it is available; `rows_of` combines them into one
row per setup, with statistics; `findings` lists reasons to doubt the results, `compare` compares two runs, and
`edge.benchmark.report` formats the rows.
"""

from edge.benchmark.compare import Comparison, compare
from edge.benchmark.harness import Measurement, Setup, failure, measure_all
from edge.benchmark.rows import Row, compute_statistics, read_rows, rows_of
from edge.benchmark.warnings import Finding, findings

__all__ = [
    "Comparison",
    "Finding",
    "Measurement",
    "Row",
    "Setup",
    "compare",
    "compute_statistics",
    "failure",
    "findings",
    "measure_all",
    "read_rows",
    "rows_of",
]
