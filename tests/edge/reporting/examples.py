"""Rows as `edge bench`, `edge table` and `edge history` have them, without measuring anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from device_profiles.published import published_rows
from edge.benchmark.rows import Round, Row, compute_statistics
from edge.table import rows as table
from edge.table.agreement import TableAgreement
from edge.table.setups import AbsentSetup, TableSetup
from runtimes.measurement.operator_times import OperatorProfile, OperatorTime

NOON = 1796040000.0  # of a day in 2026, in Unix time
CALM = {
    "governor": "performance",
    "load_average": 0.1,
    "temperature_c": 51.0,
    "temperature_sensor": "cpu",
    "throttling": None,
    "mhz": 1800.0,
    "power_mode": None,
    "gpu_clock": None,
}


def samples(median_ms: float, count: int = 250, seed: int = 0) -> list[float]:
    noise = np.random.default_rng(seed).gamma(2.0, 0.02, count)
    return [round(float(median_ms * (0.97 + one)), 6) for one in noise]


def row(
    name: str, median_ms: float, *, rounds: int = 2, conditions: dict[str, Any] | None = None, **others: Any
) -> Row:
    """A measured row with as many rounds of 250 runs."""
    parts = [samples(median_ms, seed=number) for number in range(rounds)]
    state = {**CALM, **(conditions or {})}
    made = {
        "title": name,
        "runtime": "litert",
        "runtime_version": "2.3.0",
        "format": "tflite",
        "artifact": f"out/{name.partition(',')[0]}",
        "model_sha256": "ab" * 32,
        "edge_version": "0.1.0",
        "precision": "int8",
        "threads": 1,
        "device": "cpu",
        "settings": {},
        "protocol": {"name": "published", "runs": 250, "pause_s": 1.0},
        "machine": {
            "cpu": "AMD EPYC",
            "logical_cores": 2,
            "os": "Debian GNU/Linux 12",
            "python": "3.11.7",
            "board": None,
        },
        "input": {"kind": "picture", "sha256": "cd" * 32},
    }
    return Row(
        setup=f"{name}, litert",
        samples_ms=[sample for part in parts for sample in part],
        rounds=[
            Round(
                round=number,
                runs=len(part),
                median_ms=float(np.median(part)),
                total_s=sum(part) / 1000,
                began_at=NOON + 60 * number,
                other_cores=0.0,
                conditions={"before": state, "after": state},
            )
            for number, part in enumerate(parts)
        ],
        total_s=sum(parts[0]) / 1000,
        **vars(compute_statistics([sample for part in parts for sample in part])),
        **{**made, **others},
    )


def profile(count: int = 30) -> Any:
    """A profile of that many operators, the k-th of which takes k microseconds."""
    operators = [OperatorTime(f"conv_{place}", "CONV_2D", "XNNPACK", place / 1000) for place in range(1, count + 1)]
    return OperatorProfile(30, count * (count + 1) / 2000 * 1.05, operators).to_json()


def table_rows(measured: int = 22, runs: int = 250) -> list[table.TableRow]:
    """The ten published rows, as many measured ones, and one that is not there."""
    found = [table.row_of_published(one) for one in published_rows()]
    for place in range(measured):
        title = f"TFLite int8, variant {place} of a model with a long name, {1 + place % 2} threads"
        setup = TableSetup(
            id=f"tflite-int8-{place}-1t", title=title, artifact="tflite-int8", runtime="litert", threads=1 + place % 2
        )
        one = row(title, 8.0 * 1.15**place, threads=1 + place % 2)
        if place == 0:
            one = replace(one, energy_per_run_j=0.153, energy_source="an INA3221", profile=profile())
        agreement = TableAgreement(
            pictures=100,
            same_top1=98,
            max_difference=0.05,
            correct=96 - place % 7,
            reference_correct=96,
            precision="int8",
        )
        found.append(table.row_of_setup(setup, one, True, agreement))
    return [
        *found,
        table.row_of_absent(
            AbsentSetup(id="coral-usb", title="this machine + Coral", needs="a Coral USB Accelerator (none attached)")
        ),
    ]


def table_document(**options: int) -> list[Any]:
    return [one.to_json() for one in table_rows(**options)]


def bench_document(rows: Sequence[Row]) -> list[Any]:
    return [{**one.to_json(), "findings": []} for one in rows]
