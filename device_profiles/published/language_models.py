"""Published speeds of language models, each row with its source (`language_models.csv`)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FILE = Path(__file__).parent / "language_models.csv"
# The largest ratio of parameter counts within a class: 6.74e9 (LLaMA 7B) and 7.6e9 are one class, 8.03e9 is not.
_SAME_SIZE = 1.15
WEIGHT_CLASSES = (4, 8, 16)  # bits


@dataclass(frozen=True, kw_only=True)
class PublishedSpeed:
    """A published row; values that were not published are None.

    parameters: The parameter count.
    bits: The class of the weights: 4, 8 or 16.
    read_tok_s: Tokens per second of processing a prompt of `prompt_tokens`.
    write_tok_s: Tokens per second of generating `gen_tokens`.
    bandwidth_gb_s: The bandwidth of the memory that holds the weights.
    kind: Who measured: "vendor", "community table", "engineer", ...
    """

    device: str
    accelerator: str
    model: str
    parameters: float
    bits: int
    quant: str
    runtime: str
    runtime_version: str
    prompt_tokens: int | None
    gen_tokens: int | None
    read_tok_s: float | None
    write_tok_s: float
    bandwidth_gb_s: float | None
    year: str
    kind: str
    source: str
    note: str


@cache
def published_speeds() -> tuple[PublishedSpeed, ...]:
    """Return all rows, in the order of the file."""
    with _FILE.open(encoding="utf-8", newline="") as stream:
        return tuple(_row(values) for values in csv.DictReader(stream))


def speeds_of_class(parameters: float, bits_per_weight: float) -> list[PublishedSpeed]:
    """Return the rows of models of similar size and the same weight class, fastest first."""
    bits = weight_class(bits_per_weight)
    near = [
        row
        for row in published_speeds()
        if row.bits == bits
        and max(row.parameters, parameters) <= _SAME_SIZE * max(1.0, min(row.parameters, parameters))
    ]
    return sorted(near, key=lambda row: -row.write_tok_s)


def weight_class(bits_per_weight: float) -> int:
    """Return 4, 8 or 16: Q4_K_M (4.8 bits per weight) and Q5_0 (5.5) count as 4-bit; Q8_0 has 8.5."""
    return 4 if bits_per_weight < 6 else 8 if bits_per_weight < 12 else 16


def _row(values: dict[str, str]) -> PublishedSpeed:
    return PublishedSpeed(
        device=values["device"],
        accelerator=values["accelerator"],
        model=values["model"],
        parameters=float(values["params_b"]) * 1e9,
        bits=int(values["bits"]),
        quant=values["quant"],
        runtime=values["runtime"],
        runtime_version=values["runtime_version"],
        prompt_tokens=int(values["prompt_tokens"]) if values["prompt_tokens"] else None,
        gen_tokens=int(values["gen_tokens"]) if values["gen_tokens"] else None,
        read_tok_s=float(values["prefill_tok_s"]) if values["prefill_tok_s"] else None,
        write_tok_s=float(values["decode_tok_s"]),
        bandwidth_gb_s=float(values["bandwidth_gb_s"]) if values["bandwidth_gb_s"] else None,
        year=values["year"],
        kind=values["kind"],
        source=values["source"],
        note=values["note"],
    )
