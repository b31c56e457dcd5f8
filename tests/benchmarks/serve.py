"""Does `edge serve` answer as fast as the llama-server behind it? See README.md in this folder.

Both run the same program with the same model, threads and slots, and are measured alternately, round by round: 1 and 4
clients, new prompts (cold) and the same ones again (warm). The ratio of each round counts; other load on the machine
affects both sides.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtimes.llm.llama_cpp.memory import BASE_BYTES, context_size, memory_need
from runtimes.llm.llama_cpp.server_arguments import server_arguments
from runtimes.llm.session import LoadOptions
from runtimes.model_files.gguf import read_gguf

LEAST_SPEED, MAX_WAIT = 0.97, 1.05  # relative to llama-server, to be reached by the interval of the ratio
ALLOWANCE_BYTES = 200 * 2**20  # for both processes, in addition to weights, cache and buffers
_SLOTS = 4
_RESAMPLES = 2000


@dataclass(frozen=True)
class Server:
    """A running server: its port and its processes."""

    name: str
    port: int
    pids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One streamed answer: the seconds to its first and last token, their number, and the number of tokens read."""

    first_s: float
    total_s: float
    tokens: int
    read: int


def ask(server: Server, messages: Sequence[dict[str, str]], tokens: int) -> Stream:
    """Stream one chat completion."""
    body = {"messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True, "ignore_eos": True}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=3600)
    began, first, count, read = time.perf_counter(), 0.0, 0, 0
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    for line in connection.getresponse():
        if not line.startswith(b"data: {"):
            continue
        part = json.loads(line[6:])
        if part["choices"] and part["choices"][0]["delta"].get("content"):
            first = first or time.perf_counter() - began
        if "timings" in part:
            count, read = part["timings"]["predicted_n"], part["timings"]["prompt_n"]
    connection.close()
    return Stream(first_s=first, total_s=time.perf_counter() - began, tokens=count, read=read)


def ask_together(server: Server, prompts: Sequence[str], tokens: int) -> tuple[float, float]:
    """Return the tokens per second of all clients together, and the median time to the first token."""
    found: list[Stream] = []

    def one(prompt: str) -> None:
        found.append(ask(server, [{"role": "user", "content": prompt}], tokens))

    threads = [threading.Thread(target=one, args=(prompt,)) for prompt in prompts]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    speed = sum(stream.tokens for stream in found) / (time.perf_counter() - began)
    return speed, statistics.median(stream.first_s for stream in found)


def prompt(words: int) -> str:
    """Return random words that no earlier prompt had."""
    return " ".join(f"word{random.randrange(20_000)}" for _ in range(words))


def second_chat(server: Server, system: str, questions: Sequence[str]) -> int:
    """Return the number of tokens read for the last of several chats that share only their system prompt."""
    read = 0
    for question in questions:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        read = ask(server, messages, 4).read
    return read


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median, by resampling the rounds."""
    medians = sorted(statistics.median(random.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES))
    return medians[int(0.025 * _RESAMPLES)], medians[int(0.975 * _RESAMPLES) - 1]


def held_bytes(server: Server) -> int:
    """Return the memory that the processes use now."""
    fields = [Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0] for pid in server.pids]
    return 1024 * sum(map(int, fields))


@contextmanager
def ours(program: str, model: Path, threads: int, context: int) -> Iterator[Server]:
    """Start `edge serve`."""
    command = [sys.executable, "-m", "edge", "serve", str(model), "--json", "--port", "0", "--quiet", "--threads"]
    command += [str(threads), "--slots", str(_SLOTS), "--context", str(context), "--template", "chatml"]
    environment = {**os.environ, "EDGE_LLAMA_SERVER": program}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            port = int(json.loads(process.stdout.readline())["address"].rpartition(":")[2])
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield Server("edge serve", port, (process.pid, *map(int, children)))
        finally:
            process.terminate()


@contextmanager
def theirs(program: str, model: Path, threads: int, context: int, port: int) -> Iterator[Server]:
    """Start llama-server with the options that edge passes to it."""
    options = LoadOptions(context=context, slots=_SLOTS, threads=threads)
    words = server_arguments(model, read_gguf(model), context, options)
    command = [program, *words, "--chat-template", "chatml", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None and not _is_up(port):
                time.sleep(0.1)
            yield Server("llama-server", port, (process.pid,))
        finally:
            process.terminate()


def _is_up(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def main() -> int:
    """Interleave both for some rounds and print the paired ratios; status 1 if an interval misses its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-server", required=True, help="compiled by `make llama`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--words", type=int, default=40, help="of each prompt (default: 40)")
    parser.add_argument("--tokens", type=int, default=48, help="of each answer (default: 48)")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--port", type=int, default=18080, help="for llama-server")
    args = parser.parse_args()
    file = read_gguf(args.model)
    context = context_size(file, args.model, LoadOptions(context=args.context, slots=_SLOTS))
    with ExitStack() as stack:
        common = (args.llama_server, args.model, args.threads, context)
        pair = (stack.enter_context(ours(*common)), stack.enter_context(theirs(*common, args.port)))
        kinds = [(clients, heat) for clients in (1, 4) for heat in ("cold", "warm")]
        ratios = _measure(pair, kinds, args.rounds, args.words, args.tokens)
        is_good = all(_report(name, found) for name, found in ratios.items())
        system, questions = prompt(60), [prompt(12), prompt(12)]
        reads = [second_chat(server, system, questions) for server in pair]
        print(f"a second chat reads {reads[0]} tokens; llama-server {reads[1]}")
        held = held_bytes(pair[0])
        most = memory_need(file, context, _SLOTS).total - BASE_BYTES + ALLOWANCE_BYTES
        print(f"both processes hold {held / 2**20:.0f} MiB; {most / 2**20:.0f} are allowed")
    return 0 if is_good and reads[0] <= reads[1] and held <= most else 1


def _measure(
    pair: tuple[Server, Server], kinds: Sequence[tuple[int, str]], rounds: int, words: int, tokens: int
) -> dict[str, list[float]]:
    ratios: dict[str, list[float]] = {}
    for number in range(rounds):
        asked: dict[int, list[str]] = {}
        for clients, heat in kinds:
            if heat == "cold":
                asked[clients] = [prompt(words) for _ in range(clients)]
            order = pair if number % 2 else pair[::-1]
            found = {server.name: ask_together(server, asked[clients], tokens) for server in order}
            (our_speed, our_wait), (their_speed, their_wait) = (found[server.name] for server in pair)
            ratios.setdefault(f"{clients} {heat}: speed", []).append(our_speed / their_speed)
            ratios.setdefault(f"{clients} {heat}: first token", []).append(our_wait / their_wait)
            line = f"edge {our_speed:7.2f} tok/s {our_wait:6.3f} s   llama-server {their_speed:7.2f} {their_wait:6.3f}"
            print(f"{number + 1}: {clients} client(s), {heat}: {line}", flush=True)
    return ratios


def _report(name: str, ratios: Sequence[float]) -> bool:
    low, high = interval(ratios)
    print(f"{name:22} ratio {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})")
    return low <= MAX_WAIT if name.endswith("first token") else high >= LEAST_SPEED


if __name__ == "__main__":
    sys.exit(main())
