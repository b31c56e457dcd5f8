"""Benchmarks of language models: the setups, and rows with speeds, their upper bound and published speeds.

A row has the fields of `edge.benchmark.rows`, computed from the intervals between generated tokens, and in addition

    tests            [{"test": "pp512", "tokens", "tok_s": [one per repetition], "mean_tok_s", "sd_tok_s"}, …]
    ttft_ms          time from the request to the first token after the prompt of the test pp, median
    batch_threads, memory, model, tokens_per_joule     see `runtimes.llm.measurement`
    bytes_per_token  bytes of weights that each generated token reads once
    read_bytes_s     the memory's read bandwidth, measured on this machine with as many threads, best of its rounds
    ceiling_tok_s    read_bytes_s / bytes_per_token: no CPU generates faster, however fast it computes
    ceiling_share    the share of that bound that was reached
    published        speeds published by others for models of about the same size and weight class, fastest first
    bill             with LlmBenchOptions.bill: time, energy and money for a workload, see `edge.benchmark.bill`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev

from device_profiles.published.language_models import PublishedSpeed, speeds_of_class
from edge.benchmark.bill import COMPLETION_TOKENS, PROMPT_TOKENS, Bill, BillOptions, MeasuredSpeed, compute_bill
from edge.benchmark.harness import Measurement, Setup, short_name
from edge.benchmark.rows import Row, rows_of
from edge.workers.process import run_job
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import JsonObject, JsonValue, to_json
from runtimes.errors import EdgeError, InputError
from runtimes.jobs import BandwidthJob, Job, MeasureTextJob
from runtimes.llm.llama_cpp.memory import trained_context
from runtimes.measurement.answer import MeasureAnswer, ModelSummary
from runtimes.measurement.statistics import median
from runtimes.model_files.gguf import read_gguf

_BANDWIDTH_TIMEOUT_S = 120.0
_PROMPT, _GENERATED = 512, 128  # tokens, the defaults of llama-bench
_BESIDE = 2  # tokens of context that a test needs in addition to its own
_REPEATS = 5
_COUNTS = ("prompt_tokens", "gen_tokens", "repeats")


@dataclass(frozen=True, kw_only=True)
class TextSetup(Setup):
    """A language model to measure; `load` holds `runtimes.llm.session.LoadOptions` by name, the sizes are in tokens."""

    load: Mapping[str, JsonValue] = field(default_factory=dict)
    prompt_tokens: int = 512
    gen_tokens: int = 128
    repeats: int = _REPEATS

    def job(self, round_number: int) -> Job[MeasureAnswer]:  # noqa: ARG002 - every round is the same
        """Return the job of a round."""
        return MeasureTextJob(
            artifact=str(self.artifact),
            runtime=self.runtime,
            load=self.load,
            prompt_tokens=self.prompt_tokens,
            gen_tokens=self.gen_tokens,
            repeats=self.repeats,
        )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The speeds of one test over all rounds, one per repetition, with their mean and standard deviation."""

    test: str
    tokens: int
    tok_s: Sequence[float]

    @property
    def mean_tok_s(self) -> float:
        """The mean."""
        return fmean(self.tok_s)

    @property
    def sd_tok_s(self) -> float | None:
        """The standard deviation; None for a single repetition."""
        return stdev(self.tok_s) if len(self.tok_s) > 1 else None

    def to_json(self) -> JsonObject:
        """Return the object that `edge bench --json` writes."""
        return {**to_json(self), "mean_tok_s": self.mean_tok_s, "sd_tok_s": self.sd_tok_s}


@dataclass(frozen=True, kw_only=True)
class TextRow(Row):
    """The row of a language model; its additional fields are described in the module's docstring."""

    tests: Sequence[Speed] = ()
    ttft_ms: float | None = None
    tokens_per_joule: float | None = None
    batch_threads: int | None = None
    memory: str | None = None
    model: ModelSummary | None = None
    bytes_per_token: int | None = None
    read_bytes_s: float | None = None
    ceiling_tok_s: float | None = None
    ceiling_share: float | None = None
    published: Sequence[PublishedSpeed] = ()
    bill: Bill | None = None

    def to_json(self) -> JsonObject:
        """Return the object that `edge bench --json` writes."""
        values = {**super().to_json(), "tests": [test.to_json() for test in self.tests]}
        if self.bill is None:
            del values["bill"]
        return values

    def speed(self, prefix: str) -> Speed | None:
        """Return the test of prompts (`pp`) or of generation (`tg`); None if it was not run."""
        return next((test for test in self.tests if test.test.startswith(prefix)), None)


@dataclass(frozen=True, kw_only=True)
class LlmBenchOptions:
    """How language models are measured, as llama-bench does it; None leaves the choice to the model or the engine.

    prompt_tokens: The length of the prompt; None is 512, or what fits into the context; 0 skips the test.
    gen_tokens: The number of tokens to generate; None is 128, or what fits into the context; 0 skips the test.
    repeats: Repetitions of each test.
    context: The context length in tokens; None is what the tests need.
    memory, kv_type, workers, settings: As in `runtimes.llm.session.LoadOptions`.
    runtime: The engine; None selects the preferred one.
    threads: One setup for each number of threads.
    rounds: Processes for each setup; one is enough, because the tests are repeated within a process.
    timeout_s: The time limit of one process, in seconds.
    bill: Also compute what a workload costs; the tests then have its lengths unless they are given.
    """

    prompt_tokens: int | None = None
    gen_tokens: int | None = None
    repeats: int | None = None
    context: int | None = None
    memory: str | None = None
    kv_type: str | None = None
    workers: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    runtime: str | None = None
    threads: tuple[int, ...] = ()
    rounds: int = 1
    timeout_s: float = 600.0
    bill: BillOptions | None = None


def text_setups(models: Sequence[Path], options: LlmBenchOptions) -> list[TextSetup]:
    """Return one setup for each model and number of threads."""
    setups = []
    for path in models:
        model = Artifact.open(path).model
        counts = _counts(options, model)
        for threads in options.threads or [None]:
            words = [short_name(path, models), f"{threads} threads" if threads else "", options.memory or ""]
            title = ", ".join(filter(None, words))
            setups.append(
                TextSetup(
                    id=f"{title}, {options.runtime or 'gguf'}",
                    title=title,
                    artifact=model,
                    runtime=options.runtime,
                    load=_load(options, threads, counts),
                    prompt_tokens=counts["prompt_tokens"],
                    gen_tokens=counts["gen_tokens"],
                    repeats=counts.get("repeats", _REPEATS),
                )
            )
    return setups


def _counts(options: LlmBenchOptions, model: Path) -> dict[str, int]:
    """Return the sizes of the tests: the requested ones, else the defaults, limited to what the context holds."""
    most = (options.context or _trained_context(model)) - _BESIDE
    prompt, generated = (_PROMPT, _GENERATED) if options.bill is None else (PROMPT_TOKENS, COMPLETION_TOKENS)
    counts = {"prompt_tokens": min(prompt, most), "gen_tokens": min(generated, most)}
    return counts | {key: value for key in _COUNTS if (value := getattr(options, key)) is not None}


def _trained_context(model: Path) -> int:
    """Return the model's trained context length; if the file cannot be read, its measurement reports the error."""
    try:
        return trained_context(read_gguf(model))
    except InputError:
        return _PROMPT + _BESIDE


def _load(options: LlmBenchOptions, threads: int | None, counts: Mapping[str, int]) -> JsonObject:
    """Return LoadOptions by name.

    The context is what the tests need, as in llama-bench: a longer one only costs time and memory.
    """
    needed = max(counts["prompt_tokens"], counts["gen_tokens"]) + _BESIDE
    values: dict[str, JsonValue] = {
        "context": options.context or max(needed, 64),
        "threads": threads,
        "batch_threads": threads,
        "memory": options.memory,
        "kv_type": options.kv_type,
        "settings": dict(options.settings),
        "workers": list(options.workers) or None,
    }
    return {key: value for key, value in values.items() if value is not None}


def text_rows(measurements: Sequence[Measurement]) -> list[TextRow]:
    """Return one row per setup; this measures the memory's bandwidth, once for each number of threads."""
    bandwidth: dict[int, float | None] = {}
    rows = []
    for row in rows_of(measurements):
        done = [one.values for one in measurements if one.setup.id == row.setup and one.is_ok]
        if not done:
            rows.append(TextRow(**vars(row)))
            continue
        threads = done[0]["threads"] or 1
        if threads not in bandwidth:
            bandwidth[threads] = read_bandwidth(threads)
        rows.append(_text_row(row, done, bandwidth[threads]))
    return rows


def with_bill(row: TextRow, options: BillOptions) -> TextRow:
    """Add the bill to a row; a row that lacks one of the speeds stays as it is."""
    prompt, generation = row.speed("pp"), row.speed("tg")
    if prompt is None or generation is None:
        return row
    watts = row.energy_per_run_j / (row.median_ms / 1e3) if row.energy_per_run_j and row.median_ms else None
    speed = MeasuredSpeed(
        name=row.title,
        prompt_tok_s=prompt.mean_tok_s,
        generation_tok_s=generation.mean_tok_s,
        prompt_test=prompt.test,
        generation_test=generation.test,
        watts=watts,
    )
    return replace(row, bill=compute_bill(speed, options))


def read_bandwidth(threads: int) -> float | None:
    """Measure the memory's read bandwidth in bytes per second with `threads` threads; None if that fails."""
    try:
        answer = run_job(BandwidthJob(threads), timeout_s=_BANDWIDTH_TIMEOUT_S)
    except EdgeError:  # not enough free memory for the buffers; the row then has no ceiling
        return None
    return float(max(answer.bytes_s))


def bytes_per_token(model: Path) -> int:
    """Return the bytes of weights that are read to generate one token: all except the embedding.

    Only one row of the embedding is read, unless it is also the output layer (tied embeddings).
    """
    tensors = read_gguf(model).tensors
    is_tied = not any(tensor.name == "output.weight" for tensor in tensors)
    return sum(tensor.bytes for tensor in tensors if is_tied or tensor.name != "token_embd.weight")


def _text_row(row: Row, done: Sequence[MeasureAnswer], read_bytes_s: float | None) -> TextRow:
    path, model = Path(done[0]["artifact"]), done[0]["model"]
    times = [time for one in done for time in one["ttft_ms"]]
    size, tests = bytes_per_token(path), _tests(done)
    ceiling = read_bytes_s / size if read_bytes_s else None
    speed = next((test.mean_tok_s for test in tests if test.test.startswith("tg")), None)
    parameters = model["parameters"]
    return TextRow(
        **vars(row),
        tests=tests,
        ttft_ms=median(times) if times else None,
        tokens_per_joule=1 / row.energy_per_run_j if row.energy_per_run_j else None,
        batch_threads=done[0]["batch_threads"],
        memory=done[0]["memory"],
        model=model,
        bytes_per_token=size,
        read_bytes_s=read_bytes_s,
        ceiling_tok_s=ceiling,
        ceiling_share=speed / ceiling if speed and ceiling else None,
        published=speeds_of_class(parameters, 8 * path.stat().st_size / parameters) if parameters else (),
    )


def _tests(done: Sequence[MeasureAnswer]) -> list[Speed]:
    """Collect the speeds of each test over all rounds."""
    tokens: dict[str, int] = {}
    speeds: dict[str, list[float]] = {}
    for test in (test for one in done for test in one["tests"]):
        tokens.setdefault(test["test"], test["tokens"])
        speeds.setdefault(test["test"], []).extend(test["tokens"] / seconds for seconds in test["seconds"])
    return [Speed(test=name, tokens=tokens[name], tok_s=tok_s) for name, tok_s in speeds.items()]
