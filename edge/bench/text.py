"""Language models on the harness: what is measured, and the rows with their speeds, their ceiling and their like.

A row is that of `edge.bench.rows`, over the gaps between generated tokens, and further

    tests            [{"test": "pp512", "tokens", "tok_s": [one for each repetition], "mean_tok_s", "sd_tok_s"}, …]
    ttft_ms          from asking to the first token after the prompt of the test pp, median
    batch_threads, memory, model, tokens_per_joule     see `runtimes.text_measure`
    bytes_per_token  of weights that each generated token reads once
    read_bytes_s     the memory's read bandwidth, measured on this machine with as many threads, best of its rounds
    ceiling_tok_s    read_bytes_s / bytes_per_token: no CPU generates faster, whatever it computes with
    ceiling_share    how much of that was reached
    published        what others printed of models about as large with weights of the same class, fastest first
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from device_profiles.published.language_models import speeds_of_class
from edge.bench.harness import Measurement, Setup
from edge.bench.rows import Row, rows_of
from edge.workers import run_job
from runtimes.errors import EdgeError
from runtimes.gguf_file import read_gguf
from runtimes.stats import median

_SHARED = ("batch_threads", "memory", "model")
_BANDWIDTH_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class TextSetup(Setup):
    """A language model to measure; `load` are `runtimes.text.LoadOptions` by name, the counts are in tokens."""

    load: Mapping[str, Any] = field(default_factory=dict)
    prompt_tokens: int = 512
    gen_tokens: int = 128
    repeats: int = 5

    def job(self, round_number: int) -> dict[str, Any]:  # noqa: ARG002 - every round is the same
        """The job "measure_text" of `runtimes.worker`."""
        return {
            "job": "measure_text",
            "artifact": str(self.artifact),
            "runtime": self.runtime,
            "load": dict(self.load),
            "prompt_tokens": self.prompt_tokens,
            "gen_tokens": self.gen_tokens,
            "repeats": self.repeats,
        }


def text_rows(measurements: Sequence[Measurement]) -> list[Row]:
    """One row for each setup; the memory's bandwidth is measured here, once for each number of threads."""
    bandwidth: dict[int, float | None] = {}
    rows = []
    for row in rows_of(measurements):
        done = [one.values for one in measurements if one.setup.id == row["setup"] and one.is_ok]
        if done:
            threads = done[0]["threads"] or 1
            if threads not in bandwidth:
                bandwidth[threads] = read_bandwidth(threads)
            row |= _measured(row, done) | _ceiling(row, done, bandwidth[threads])
        rows.append(row)
    return rows


def read_bandwidth(threads: int) -> float | None:
    """Bytes a second that this machine's memory gives to so many threads; None where it could not be measured."""
    try:
        answer = run_job({"job": "bandwidth", "threads": threads}, timeout_s=_BANDWIDTH_TIMEOUT_S)
    except EdgeError:  # too little memory for the buffers beside everything else: no ceiling is told then
        return None
    return float(max(answer["bytes_s"]))


def bytes_per_token(model: Path) -> int:
    """Bytes of weights that generating one token reads: all but the embedding, of which it reads a single row.

    Where the embedding is the output layer too (tied), all of it is read.
    """
    tensors = read_gguf(model).tensors
    is_tied = not any(tensor.name == "output.weight" for tensor in tensors)
    return sum(tensor.bytes for tensor in tensors if is_tied or tensor.name != "token_embd.weight")


def _measured(row: Row, done: Sequence[Mapping[str, Any]]) -> Row:
    times = [time for one in done for time in one["ttft_ms"]]
    joules = row["energy_per_run_j"]
    return {
        "tests": _tests(done),
        "ttft_ms": median(times) if times else None,
        "tokens_per_joule": 1 / joules if joules else None,
        **{key: done[0][key] for key in _SHARED},
    }


def _tests(done: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The tests of all rounds together, each with its speeds."""
    speeds: dict[str, Row] = {}
    for test in (test for one in done for test in one["tests"]):
        found = speeds.setdefault(test["test"], {"test": test["test"], "tokens": test["tokens"], "tok_s": []})
        found["tok_s"] += [test["tokens"] / seconds for seconds in test["seconds"]]
    return [_with_statistics(test) for test in speeds.values()]


def _with_statistics(test: Row) -> Row:
    tok_s = test["tok_s"]
    return {**test, "mean_tok_s": fmean(tok_s), "sd_tok_s": stdev(tok_s) if len(tok_s) > 1 else None}


def _ceiling(row: Row, done: Sequence[Mapping[str, Any]], read_bytes_s: float | None) -> Row:
    path = Path(row["artifact"])
    size, model = bytes_per_token(path), done[0]["model"]
    ceiling = read_bytes_s / size if read_bytes_s else None
    speed = next((test["mean_tok_s"] for test in _tests(done) if test["test"].startswith("tg")), None)
    like = speeds_of_class(model["parameters"], 8 * path.stat().st_size / model["parameters"])
    return {
        "bytes_per_token": size,
        "read_bytes_s": read_bytes_s,
        "ceiling_tok_s": ceiling,
        "ceiling_share": speed / ceiling if speed and ceiling else None,
        "published": [asdict(one) for one in like],
    }
