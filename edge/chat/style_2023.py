"""The terminal chat as it looked in March 2023: antimatter15/alpaca.cpp's chat.cpp, line for line.

The look, the prompt text, the settings and the sampling distribution are those of chat.cpp. These bugs are not
reproduced: a line that ends in a backslash continues without "### Response:" in between, lines may be longer than 255
bytes, a full context drops the oldest turns instead of ending the program, and the chat is saved.
"""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import suppress
from dataclasses import replace
from importlib import import_module

from edge.chat.commands import Chat
from edge.chat.conversation import AnswerSummary, TextDelta, ThoughtDelta, TurnsDropped
from edge.chat.interrupt import stops_answer
from edge.chat.terminal import CUT_OFF, describe_dropped
from edge.console.text import readable
from runtimes.errors import HostError, InputError
from runtimes.llm.session import LlmFacts, TextOptions

TEMPLATE = "alpaca-cpp"
# In the order in which chat.cpp listed the CPU features.
_FEATURES = (
    "AVX", "AVX2", "AVX512", "FMA", "NEON", "ARM_FMA", "F16C", "FP16_VA", "WASM_SIMD", "BLAS", "SSE3", "VSX"
)  # fmt: skip
_BANNER = """

== Running in chat mode. ==
 - Press Ctrl+C to interject at any time.
 - Press Return to return control to LLaMA.
 - If you want to submit another line, end your input in '\\'.
"""


def options(seed: int | None) -> TextOptions:
    """Return the settings of chat.cpp; without a seed, the current time, as chat.cpp did."""
    return TextOptions(
        temperature=0.1,
        top_k=40,
        top_p=0.95,
        min_p=0.0,
        repeat_last_n=64,
        repeat_penalty=1.3,
        seed=int(time.time()) if seed is None else seed,
        chain="2023",
    )


def loading(model: str, options: TextOptions) -> None:
    """Print the lines shown while the model loads."""
    _log(f"main: seed = {options.seed}")
    _log(f"llama_model_load: loading model from '{model}' - please wait ...")


def converse(chat: Chat) -> int:
    """Chat until the user leaves, and return the status: 0 for Ctrl+D, 130 for Ctrl+C at the prompt."""
    _log(_heading(chat.conversation.session.facts, chat.conversation.options))
    _log(_BANNER)
    try:
        while True:
            try:
                line = _read()
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                print()
                return 130
            _handle(chat, line)
    finally:
        chat.save()


def _heading(facts: LlmFacts, options: TextOptions) -> str:
    values = dict(re.findall(r"(\w+) = (\d+)", facts.system_info))
    features = " | ".join(f"{name} = {values.get(name, 0)}" for name in _FEATURES)
    return (
        f"system_info: n_threads = {facts.threads or 0} / {os.cpu_count()} | {features} | \n"
        "main: interactive mode on.\n"
        f"sampling parameters: temp = {options.temperature:f}, top_k = {options.top_k}, top_p = {options.top_p:f}, "
        f"repeat_last_n = {options.repeat_last_n}, repeat_penalty = {options.repeat_penalty:f}"
    )


def _read() -> str:
    """Read one question; a line that ends in a backslash continues on the next one."""
    with suppress(ImportError):
        import_module("readline")  # input() uses it for line editing, where it exists
    lines = [input("> ")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input())
    return "\n".join(lines)


def _handle(chat: Chat, line: str) -> None:
    conversation = chat.conversation
    if line.strip():
        conversation.ask(line)
        begin = conversation.answer
    elif conversation.can_continue:
        begin = conversation.resume  # "Press Return to return control to LLaMA"
    else:
        return
    chat.save()
    try:
        with stops_answer() as cancel:
            for event in begin(cancel):
                if isinstance(event, TextDelta | ThoughtDelta):
                    sys.stdout.write(readable(event.text))
                    sys.stdout.flush()
                elif isinstance(event, TurnsDropped):
                    _log(f"\n[{describe_dropped(event)}]")
                elif isinstance(event, AnswerSummary) and event.reason == "context":
                    _log(f"\n[{CUT_OFF}]")
    except (InputError, HostError) as error:
        _log(f"[{error.message}]")
    finally:
        chat.save()
    print()
    if (
        conversation.options.seed is not None
    ):  # chat.cpp had one generator for the whole chat: vary the draws of each turn
        conversation.options = replace(conversation.options, seed=(conversation.options.seed + 1) % 2**32)


def _log(text: str) -> None:
    print(readable(text), file=sys.stderr, flush=True)
