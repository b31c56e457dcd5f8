"""The benchmark harness: setups in, rows out.

    from edge.bench import Setup, measure_all, rows_of

    setups = [Setup("mobilenet 1", "MobileNetV2, 1 thread", Path("mobilenet.onnx"), options={"threads": 1})]
    rows = rows_of(measure_all(setups, rounds=2))

`measure_all` yields one `Measurement` for each setup and round as soon as it is there; `rows_of` gathers them to one
row for each setup with the statistics; `findings` says what to doubt, `compare` holds two runs against one another,
`edge.bench.report` prints.
"""

from edge.bench.compare import Comparison, compare
from edge.bench.findings import Finding, findings
from edge.bench.harness import Measurement, Setup, failure, measure_all
from edge.bench.rows import Row, read_rows, rows_of, statistics

__all__ = [
    "Comparison",
    "Finding",
    "Measurement",
    "Row",
    "Setup",
    "compare",
    "failure",
    "findings",
    "measure_all",
    "read_rows",
    "rows_of",
    "statistics",
]
