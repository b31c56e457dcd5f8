"""Measure a language model in this process: prompt processing and generation.

The two tests are those of llama-bench: `pp512` processes a prompt of 512 random tokens, `tg128` generates 128 tokens
after a prompt of one. Each is repeated with different tokens, so that nothing comes from the cache. Times are taken
outside the engine, so they include everything that a user waits for, such as sampling and the binding. The answer to
the job "measure_text" is a JSON object:

    status, runtime, runtime_version, artifact, format, precision, threads, settings, machine:
                     as in `runtimes.measurement.tensor_model`
    device           "cpu", or "cpu + N workers"; protocol: {"name": "llama-bench", "prompt_tokens", …}
    batch_threads    threads for prompts
    memory           how the weights are loaded: "map" or "read"
    model            {"name", "architecture", "parameters", "bytes", "context"}
    tests            [{"test": "pp512", "tokens": 512, "seconds": [...]}, {"test": "tg128", "tokens": 127, ...}]: the
                     first generated token belongs to the prompt, so 127 gaps are timed
    samples_ms       each timed gap between two generated tokens, in order; warmup_ms: the gaps before
    total_s          wall time of generating
    ttft_ms          from the request to the first token, for each prompt of the test pp
    import_ms, load_ms, first_ms    importing the engine, loading, the very first token
    peak_rss_bytes   the peak memory of this process
    energy_j         while generating, from energy_source; if it is null, energy_note gives the reason
    other_cores, conditions         as in `runtimes.measurement.tensor_model`
"""

from __future__ import annotations

import time
from typing import Any, Sequence

import numpy as np

from runtimes.errors import UsageError
from runtimes.host import EnergyMeter, conditions, peak_rss_bytes
from runtimes.host.contention import cores_of_others, cpu_clock
from runtimes.jobs import MeasureTextJob, Report
from runtimes.llm.session import LoadOptions, TextEngine, TextOptions, TextSession
from runtimes.measurement.answer import MeasureAnswer, SpeedTest
from runtimes.measurement.tensor_model import machine, time_import
from runtimes.registry import text_engine

_WARM_UP_TOKENS = 32
_COUNTS = ("prompt_tokens", "gen_tokens", "repeats")


def measure_text(job: MeasureTextJob, report: Report) -> MeasureAnswer:
    """Measure a GGUF file."""
    engine = text_engine(job.artifact, job.runtime)
    options = _load_options(job)
    before = conditions()
    report({"phase": "loading"})
    import_ms = time_import(engine)
    start = time.perf_counter()
    with engine.open_text(job.artifact, options) as session:
        load_ms = (time.perf_counter() - start) * 1e3
        bench = _Bench(session, job, report)
        first_ms = bench.warm_up()
        read, generated = bench.read(), bench.generate()
        return {
            "status": "ok",
            **_setup(job, engine, session, options),
            "import_ms": import_ms,
            "load_ms": load_ms,
            "first_ms": first_ms,
            **read,
            **generated,
            "tests": read["tests"] + generated["tests"],
            "peak_rss_bytes": peak_rss_bytes(),
            "conditions": {"before": before, "after": conditions()},
            "machine": machine(),
        }


class _Bench:
    """The tests of one loaded model."""

    def __init__(self, session: TextSession, job: MeasureTextJob, report: Report) -> None:
        self._session = session
        self._report = report
        self._prompt = job.prompt_tokens
        self._generated = job.gen_tokens
        self._repeats = job.repeats
        self._random = np.random.default_rng(0)
        longest = max(self._prompt + 1, self._generated + 1)
        if longest > session.facts.context:
            message = f"the test needs a context of {longest} tokens; the model has {session.facts.context}"
            raise UsageError(message, "use fewer tokens, or a longer context with --context")

    def warm_up(self) -> float:
        """Page in the weights and allocate the buffers. Returns the ms until the very first token."""
        self._report({"phase": "warming up"})
        times = self._continue(1, 4)
        self._continue(min(_WARM_UP_TOKENS, max(1, self._session.facts.context - 2)), 1)
        self._warm = _gaps_ms(times)
        return (times[1] - times[0]) * 1e3

    def read(self) -> MeasureAnswer:
        """Run the test pp: time from the request to the first token, with prompts that share no prefix."""
        seconds = []
        for number in range(self._repeats if self._prompt else 0):
            self._report({"phase": f"reading {self._prompt} tokens, {number + 1} of {self._repeats}"})
            start, first = self._continue(self._prompt, 1)[:2]
            seconds.append(first - start)
        test: SpeedTest = {"test": f"pp{self._prompt}", "tokens": self._prompt, "seconds": seconds}
        return {"tests": [test] if seconds else [], "ttft_ms": [value * 1e3 for value in seconds]}

    def generate(self) -> MeasureAnswer:
        """Run the test tg: time the gaps between generated tokens, and measure the energy."""
        seconds: list[float] = []
        samples: list[float] = []
        meter, clock = EnergyMeter(), cpu_clock()
        for number in range(self._repeats if self._generated > 1 else 0):
            self._report({"phase": f"generating {self._generated} tokens, {number + 1} of {self._repeats}"})
            times = self._continue(1, self._generated)
            seconds.append(times[-1] - times[1])
            samples += _gaps_ms(times)
        energy, others = meter.finish(), cores_of_others(clock, cpu_clock())
        test: SpeedTest = {"test": f"tg{self._generated}", "tokens": self._generated - 1, "seconds": seconds}
        return {
            "tests": [test] if seconds else [],
            "samples_ms": samples,
            "warmup_ms": self._warm,
            "total_s": sum(seconds),
            "energy_j": energy["energy_j"],
            "energy_source": energy["energy_source"],
            "energy_note": energy["energy_note"],
            "other_cores": others,
        }

    def _continue(self, prompt: int, count: int) -> list[float]:
        """Generate `count` tokens after `prompt` random ones; return the times of the request and of each token."""
        tokens = [int(token) for token in self._random.integers(0, self._session.facts.vocabulary, prompt)]
        options = TextOptions(max_tokens=count, temperature=0, ignore_end=True, seed=0)
        times = [time.perf_counter()]
        for token in self._session.generate(tokens, options):
            if token.finish is None:
                times.append(time.perf_counter())
        return times


def _gaps_ms(times: Sequence[float]) -> list[float]:
    return [float(gap) for gap in np.diff(times[1:]) * 1e3]


def _load_options(job: MeasureTextJob) -> LoadOptions:
    load: Any = job.load
    return LoadOptions(**{**load, "workers": tuple(load.get("workers") or ())})


def _setup(job: MeasureTextJob, engine: TextEngine, session: TextSession, options: LoadOptions) -> MeasureAnswer:
    model = session.facts
    return {
        "runtime": engine.id,
        "runtime_version": engine.version(),
        "artifact": job.artifact,
        "format": "gguf",
        "precision": model.quantization,
        "threads": model.threads,
        "batch_threads": model.batch_threads,
        "memory": model.memory,
        "device": f"cpu + {len(options.workers)} workers" if options.workers else "cpu",
        "settings": dict(options.settings),
        "protocol": {"name": "llama-bench", **{key: getattr(job, key) for key in _COUNTS}},
        "input": {"kind": "random tokens", "sha256": None},
        "output": None,
        "top": [],
        "raw": None,
        "model": {
            "name": model.name,
            "architecture": model.architecture,
            "parameters": model.parameters,
            "bytes": model.bytes,
            "context": model.context,
        },
    }
