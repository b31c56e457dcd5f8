"""Find the program that is llama.cpp's server: compiled by `make llama`, or in xllamacpp's wheel. It needs POSIX."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Mapping

import runtimes
from runtimes.errors import EngineMissingError, UsageError
from runtimes.llm.llama_cpp.library import NO_BACKTRACE

PROGRAM_VARIABLE = "EDGE_LLAMA_SERVER"
# The correction that `make llama` compiles llama.cpp with; a copy of it is next to the program.
CLIP_PATCH = "llava_class_token.patch"
CLIP_REASON = (
    "this llama.cpp puts CLIP's class token after the patches of a picture instead of before them, so that it sees"
    " pictures wrongly (tools/mtmd/models/llava.cpp)"
)
CLIP_HINT = "`make llama` compiles a corrected one"
_CONSEQUENCES = ("failed to load model", "exiting due to")  # printed after the reason


@dataclass(frozen=True)
class Program:
    """The program that runs llama.cpp's server.

    command: The command, without llama-server's options.
    is_prebuilt: Whether it is the slower one from the wheel.
    """

    command: tuple[str, ...]
    is_prebuilt: bool

    @property
    def is_right_about_clip(self) -> bool:
        """Whether it processes the pictures of CLIP correctly, which only a corrected llama.cpp does."""
        return not self.is_prebuilt and Path(self.command[0]).resolve().with_name(CLIP_PATCH).is_file()

    def environment(self, key: str) -> Mapping[str, str]:
        """Return the environment variables of its process, whose API key is `key`."""
        variables = {NO_BACKTRACE: "1", **os.environ, "LLAMA_API_KEY": key}
        if self.is_prebuilt:
            root = str(Path(runtimes.__file__).parents[1])
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        return variables


def find_program(runtime: str | None) -> Program:
    """Return the llama-server that `make llama` compiled, else the one in the wheel of xllamacpp.

    `runtime` "llama_cpp" or "xllamacpp" selects one of the two. Raises EngineMissingError if there is none.
    """
    if runtime not in (None, "llama_cpp", "xllamacpp"):
        raise UsageError(
            f"{runtime} cannot serve language models", "choose llama_cpp or xllamacpp, or pass --server URL"
        )
    compiled = compiled_server()
    if compiled is not None and runtime != "xllamacpp":
        return Program((str(compiled),), is_prebuilt=False)
    if runtime != "llama_cpp":
        from importlib.util import find_spec

        if find_spec("xllamacpp") is not None:
            return Program((sys.executable, "-P", "-m", "runtimes.llm.xllamacpp_server"), is_prebuilt=True)
    wheel = "" if runtime == "llama_cpp" else "; without a compiler: pip install 'edgeproof[xllamacpp,serve]'"
    raise EngineMissingError("llama-server is not installed", f"make llama compiles it for this CPU{wheel}")


def compiled_server() -> Path | None:
    """Return the llama-server of EDGE_LLAMA_SERVER, else the one that `make llama` installs; None if there is none."""
    configured = os.environ.get(PROGRAM_VARIABLE)
    if configured:
        if not os.access(configured, os.X_OK):
            what = f"{PROGRAM_VARIABLE} is {configured}, which is not a program"
            raise UsageError(what, "set it to the path of llama-server")
        return Path(configured)
    path = Path(sys.prefix) / "llama.cpp" / "llama-server"
    return path if os.access(path, os.X_OK) else None


def die_with_parent() -> Callable[[], None] | None:
    """On Linux, have the kernel kill the child when this process is killed, because nothing else would."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork; little is safe between fork and exec
    return lambda: prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def last_error(lines: Iterable[str]) -> str:
    """Return the line of llama-server's output that says why it ended; empty if it printed nothing."""
    printed = [line for line in lines if line.strip() and not any(text in line for text in _CONSEQUENCES)]
    errors = [line for line in printed if "error" in line.lower() or "ASSERT" in line]
    return (errors or printed or [""])[-1][:300]
