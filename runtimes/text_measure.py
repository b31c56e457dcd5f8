"""One measurement of a language model, in this process: reading a prompt, and generating.

The two tests are those of llama-bench: `pp512` reads a prompt of 512 random tokens, `tg128` generates 128 tokens
after a prompt of one; each is repeated, and every repetition reads what no earlier one has read. The clock stands
outside the engine: a test includes all that a user waits for, sampling and the binding too. The answer to the job
"measure_text" is ready for JSON:

    status, runtime, runtime_version, artifact, format, precision, threads, settings, machine: as in `runtimes.measure`
    device           "cpu", or "cpu + N workers"; protocol: {"name": "llama-bench", "prompt_tokens", …}
    batch_threads    threads that read prompts
    memory           how the weights are held: "map" or "read"
    model            {"name", "architecture", "parameters", "bytes", "context"}
    tests            [{"test": "pp512", "tokens": 512, "seconds": [...]}, {"test": "tg128", "tokens": 127, ...}]: the
                     first generated token belongs to reading, so 127 gaps are timed
    samples_ms       each timed gap between two generated tokens, in order; warmup_ms: the gaps before
    total_s          wall time of generating
    ttft_ms          from asking to the first token, for each prompt of the test pp
    import_ms, load_ms, first_ms    importing the engine, loading, the first token of all
    peak_rss_bytes   the most memory that this process held
    energy_j         while generating, by energy_source; energy_note says why there is none
    other_cores, conditions         as in `runtimes.measure`

The job "bandwidth" takes `threads` and answers {"bytes_s": [...]}: see `runtimes.host.bandwidth`.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any, Sequence

import numpy as np

from runtimes.contention import cores_of_others, cpu_clock
from runtimes.errors import UsageError
from runtimes.host import EnergyMeter, conditions, peak_rss_bytes
from runtimes.host.bandwidth import read_bandwidth
from runtimes.measure import machine, time_import
from runtimes.registry import text_runtime
from runtimes.text import LoadOptions, TextOptions, TextRuntime, TextSession
from runtimes.worker import Job, Report

_WARM_UP_TOKENS = 32
_COUNTS = ("prompt_tokens", "gen_tokens", "repeats")


def measure_text(job: Job, report: Report) -> dict[str, Any]:
    """Do one measurement; the job takes `artifact` (a GGUF file), `runtime`, and

    load            LoadOptions by name
    prompt_tokens, gen_tokens, repeats     512, 128 and 5 where left out; no test is made for 0 tokens
    """
    engine = text_runtime(str(job["artifact"]), job.get("runtime"))
    options = LoadOptions(**_load_options(job))
    before = conditions()
    report({"phase": "loading"})
    import_ms = time_import(engine)
    start = time.perf_counter()
    with closing(engine.open_text(str(job["artifact"]), options)) as session:
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


def bandwidth(job: Job, _report: Report) -> dict[str, Any]:
    """How fast `threads` threads of this machine read memory, for each of several rounds."""
    return {"bytes_s": read_bandwidth(int(job["threads"]))}


class _Bench:
    """The tests of one loaded model."""

    def __init__(self, session: TextSession, job: Job, report: Report) -> None:
        self._session = session
        self._report = report
        self._prompt = int(job.get("prompt_tokens", 512))
        self._generated = int(job.get("gen_tokens", 128))
        self._repeats = int(job.get("repeats", 5))
        self._random = np.random.default_rng(0)
        longest = max(self._prompt + 1, self._generated + 1)
        if longest > session.facts.context:
            message = f"the test needs a context of {longest} tokens; the model has {session.facts.context}"
            raise UsageError(message, "ask for fewer tokens, or for more context with --context")

    def warm_up(self) -> float:
        """Page in the weights and size the buffers; returns the ms until the very first token."""
        self._report({"phase": "warming up"})
        times = self._continue(1, 4)
        self._continue(min(_WARM_UP_TOKENS, max(1, self._session.facts.context - 2)), 1)
        self._warm = _gaps_ms(times)
        return (times[1] - times[0]) * 1e3

    def read(self) -> dict[str, Any]:
        """The test pp: from asking to the first token, over prompts that share nothing."""
        seconds = []
        for number in range(self._repeats if self._prompt else 0):
            self._report({"phase": f"reading {self._prompt} tokens, {number + 1} of {self._repeats}"})
            start, first = self._continue(self._prompt, 1)[:2]
            seconds.append(first - start)
        tests = [{"test": f"pp{self._prompt}", "tokens": self._prompt, "seconds": seconds}] if seconds else []
        return {"tests": tests, "ttft_ms": [value * 1e3 for value in seconds]}

    def generate(self) -> dict[str, Any]:
        """The test tg: the gaps between generated tokens, and the energy meanwhile."""
        seconds: list[float] = []
        samples: list[float] = []
        meter, clock = EnergyMeter(), cpu_clock()
        for number in range(self._repeats if self._generated > 1 else 0):
            self._report({"phase": f"generating {self._generated} tokens, {number + 1} of {self._repeats}"})
            times = self._continue(1, self._generated)
            seconds.append(times[-1] - times[1])
            samples += _gaps_ms(times)
        energy, others = meter.finish(), cores_of_others(clock, cpu_clock())
        test = {"test": f"tg{self._generated}", "tokens": self._generated - 1, "seconds": seconds}
        return {
            "tests": [test] if seconds else [],
            "samples_ms": samples,
            "warmup_ms": self._warm,
            "total_s": sum(seconds),
            **energy,
            "other_cores": others,
        }

    def _continue(self, prompt: int, count: int) -> list[float]:
        """The moment of asking, then the moment of each of `count` tokens after `prompt` random ones."""
        tokens = [int(token) for token in self._random.integers(0, self._session.facts.vocabulary, prompt)]
        options = TextOptions(max_tokens=count, temperature=0, ignore_end=True, seed=0)
        times = [time.perf_counter()]
        for token in self._session.generate(tokens, options):
            if token.finish is None:
                times.append(time.perf_counter())
        return times


def _gaps_ms(times: Sequence[float]) -> list[float]:
    return [float(gap) for gap in np.diff(times[1:]) * 1e3]


def _load_options(job: Job) -> dict[str, Any]:
    given = dict(job.get("load") or {})
    return {**given, "workers": tuple(given.get("workers") or ())}


def _setup(job: Job, engine: TextRuntime, session: TextSession, options: LoadOptions) -> dict[str, Any]:
    model = session.facts
    return {
        "runtime": engine.id,
        "runtime_version": engine.version(),
        "artifact": str(job["artifact"]),
        "format": "gguf",
        "precision": model.quantization,
        "threads": model.threads,
        "batch_threads": model.batch_threads,
        "memory": model.memory,
        "device": f"cpu + {len(options.workers)} workers" if options.workers else "cpu",
        "settings": dict(options.settings),
        "protocol": {"name": "llama-bench", **{key: job[key] for key in _COUNTS if key in job}},
        "input": {"kind": "random tokens"},
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
