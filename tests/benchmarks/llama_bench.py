"""Does edge compute a language model as fast as llama.cpp's own tool? See README.md in this folder."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.workers.process import run_job
from runtimes.jobs import MeasureTextJob
from runtimes.llm.llama_cpp.memory import BASE_BYTES, memory_need
from runtimes.model_files.gguf import read_gguf

LEAST_RATIO = 0.98
ALLOWANCE_BYTES = 150 * 2**20  # for Python, numpy and llama.cpp itself
DEPTH = 3  # an answer continues to DEPTH × GENERATED tokens before its end is compared


def theirs(tool: str, model: Path, threads: int, prompt: int, generated: int) -> dict[str, float]:
    """Return tokens per second by llama-bench, at the beginning of an answer and deep into it."""
    command = [tool, "-m", str(model), "-t", str(threads), "-r", "1", "-o", "json"]
    near = _run_json([*command, "-p", str(prompt), "-n", str(generated)])
    far = _run_json([*command, "-p", "0", "-n", str(generated), "-d", str(DEPTH * generated)])
    return {
        "pp": next(test["avg_ts"] for test in near if test["n_prompt"]),
        "tg": next(test["avg_ts"] for test in near if test["n_gen"]),
        "tg far": far[0]["avg_ts"],
    }


def _run_json(command: Sequence[str]) -> list[dict[str, Any]]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def ours(model: Path, threads: int, prompt: int, generated: int) -> tuple[dict[str, float], Mapping[str, Any]]:
    """Return the same by the worker of `edge bench`, and its whole answer; one long answer provides both figures."""
    answer = run_job(
        MeasureTextJob(
            artifact=str(model),
            runtime="llama_cpp",
            load={"threads": threads, "context": max(prompt, (DEPTH + 1) * generated) + 8},
            prompt_tokens=prompt,
            gen_tokens=(DEPTH + 1) * generated,
            repeats=1,
        ),
        timeout_s=3600,
    )
    gaps = answer["samples_ms"]
    return {
        "pp": prompt / answer["tests"][0]["seconds"][0],
        "tg": 1e3 * generated / sum(gaps[:generated]),
        "tg far": 1e3 / statistics.fmean(gaps[-generated:]),
    }, answer


def check_memory(model: Path, answer: Mapping[str, Any]) -> bool:
    """Print the peak and what explains it; return whether the rest is within ALLOWANCE_BYTES."""
    held = memory_need(read_gguf(model), answer["model"]["context"]).total - BASE_BYTES
    peak = answer["peak_rss_bytes"]
    print(f"peak memory {peak / 2**20:.0f} MiB: weights, cache and buffers of {held / 2**20:.0f}, and the rest")
    return bool(peak <= held + ALLOWANCE_BYTES)


def main() -> int:
    """Interleave both for some rounds and print the paired ratios; status 1 if one is below LEAST_RATIO."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-bench", required=True, help="built from the source of the installed llama-cpp-python")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512, help="tokens (default: 512)")
    parser.add_argument("--generated", type=int, default=128, help="tokens (default: 128)")
    args = parser.parse_args()
    ratios: dict[str, list[float]] = {"pp": [], "tg": [], "tg far": []}
    fits = True
    for number in range(args.rounds):
        measured, answer = ours(args.model, args.threads, args.prompt, args.generated)
        reference = theirs(args.llama_bench, args.model, args.threads, args.prompt, args.generated)
        fits = check_memory(args.model, answer) and fits
        for test, found in ratios.items():
            found.append(measured[test] / reference[test])
            line = f"{test:7} edge {measured[test]:8.2f} tok/s   llama-bench {reference[test]:8.2f} tok/s"
            print(f"{number + 1}: {line}   ratio {found[-1]:.3f}", flush=True)
    medians = {test: statistics.median(found) for test, found in ratios.items()}
    print("median ratios: " + ", ".join(f"{test} {ratio:.3f}" for test, ratio in medians.items()))
    return 0 if fits and min(medians.values()) >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
