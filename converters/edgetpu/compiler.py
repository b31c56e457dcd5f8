"""Find and run the user's own `edgetpu_compiler`, and parse its output. It must not be copied or shipped.

It runs only on x86-64 Linux of the Debian family. The messages are those of versions 14 to 16:
https://coral.ai/docs/edgetpu/compiler/, and the logs in the issues of google-coral/edgetpu that are named below.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import EdgeError, EngineError, InputError, RefusedError

PROGRAM = "edgetpu_compiler"
WHERE = "on x86-64 Debian or Ubuntu (see coral.ai/docs/edgetpu/compiler), or in Google Colab"
MAPPED = "Mapped to Edge TPU"
_TIMEOUT_S = 600  # its own default of 180 s is too short for large models
_GRACE_S = 30  # it exits by itself after the timeout, with a message
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

_HINT_QUANTIZE = "convert to full int8 with calibration data: edge convert MODEL --for coral-usb --calibration PICTURES"
_HINT_SMALLER = "use smaller pictures, or a network whose widest layers are smaller"
_HINT_CHECK = "see what each operation does there: edge check MODEL.tflite --for coral-usb"
# Pattern of its output, error class, meaning, hint. The first match counts, so specific patterns come first.
_FAILURES: tuple[tuple[str, type[EdgeError], str, str], ...] = (
    (
        r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'",
        RefusedError,
        "it does not support {0} in version {1}: the model's converter is newer than the compiler (issue 879)",
        "convert with `edge convert --for coral-usb`, which writes versions that the compiler reads",
    ),
    (
        r"dynamic-sized tensors",
        RefusedError,
        "a size in the model is free, such as its batch (issues 829, 831)",
        "convert with a fixed batch of 1",
    ),
    (
        r"no_integer_overflow_from_quantization was not true",
        RefusedError,
        "the scale of a bias overflows: a channel's weights are almost zero (issue 453)",
        "calibrate with more pictures, or continue training with weight decay",
    ),
    (
        r"large activation tensors|Restored original execution plan after delegate application failure",
        RefusedError,
        "the activations between two layers do not fit on the chip (issues 444, 653, 686)",
        _HINT_SMALLER,
    ),
    (r"Model not quantized|Invalid model: ", RefusedError, "the model is not quantized throughout", _HINT_QUANTIZE),
    (
        r"Internal compiler error",
        EngineError,
        "it failed with an internal error, often caused by a large input or CONCATENATION (issues 157, 309)",
        f"try once more, then: {_HINT_SMALLER}",
    ),
    (
        r"Model could not be parsed|Could not open|is not a valid",
        InputError,
        "the compiler rejects the file",
        "it may be damaged, or use a newer TFLite schema than the compiler, which dates from 2021",
    ),
    (r"timeout|timed out", EngineError, "it timed out", _HINT_SMALLER),
)


@dataclass(frozen=True, kw_only=True)
class LogRow:
    """One line of the log: how many operations of one kind have the same status; the log does not say which ones."""

    operation: str
    count: int
    status: str


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """The result of a compilation. Sizes are in bytes; None if the compiler did not report them."""

    model: Path
    version: str
    rows: tuple[LogRow, ...]
    subgraphs: int | None
    cached_bytes: int | None
    streamed_bytes: int | None

    @property
    def mapped(self) -> int:
        """The number of operations that the Edge TPU runs."""
        return sum(row.count for row in self.rows if row.status == MAPPED)

    @property
    def total(self) -> int:
        """The number of all operations of the model."""
        return sum(row.count for row in self.rows)

    @property
    def left(self) -> Mapping[str, int]:
        """The operations that stay on the CPU, by name."""
        counts: Counter[str] = Counter()
        for row in self.rows:
            if row.status != MAPPED:
                counts[row.operation] += row.count
        return counts


def find_compiler() -> str | None:
    """Return the path of the user's compiler, or None if there is none on PATH."""
    return shutil.which(PROGRAM)


def compile_model(program: str, model: Path, out: Path, timeout_s: int = _TIMEOUT_S) -> Compilation:
    """Compile `model` into the folder `out` as `<stem>_edgetpu.tflite`, and parse the output of the compiler.

    Raises RefusedError, with the cause, for a model that the compiler does not accept; EngineError if it fails or is
    killed after `timeout_s` seconds. Its log is removed from `out`.
    """
    command = [program, "-s", "-t", str(timeout_s), "-o", str(out), str(model)]
    status, output = _run(command, timeout_s + _GRACE_S)
    compiled, log = out / f"{model.stem}_edgetpu.tflite", out / f"{model.stem}_edgetpu.log"
    table = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else output
    log.unlink(missing_ok=True)
    if status != 0 or not compiled.is_file():
        raise failure(model, status, output)
    return Compilation(
        model=compiled,
        version=_match(r"Edge TPU Compiler version (\S+)", output) or "unknown",
        rows=read_log(table),
        subgraphs=_number(r"Number of Edge TPU subgraphs: (\d+)", output),
        cached_bytes=_size(r"On-chip memory used for caching model parameters: ([\d.]+)([KMG]?i?B)", output),
        streamed_bytes=_size(
            r"Off-chip memory used for streaming uncached model parameters: ([\d.]+)([KMG]?i?B)", output
        ),
    )


def read_log(text: str) -> tuple[LogRow, ...]:
    """Parse the table `Operator  Count  Status` in its log or output; empty if there is none."""
    rows, inside = [], False
    for line in text.splitlines():
        if re.match(r"Operator\s+Count\s+Status", line):
            inside = True
            continue
        found = re.match(r"(\S+)\s+(\d+)\s+(\S.*?)\s*$", line) if inside else None
        if found:
            rows.append(LogRow(operation=found[1], count=int(found[2]), status=found[3]))
        elif line.strip():
            inside = False
    return tuple(rows)


def failure(model: Path, status: int, output: str) -> EdgeError:
    """Build the error for the `output` of the compiler. If no pattern matches, its last line is the message."""
    for pattern, kind, cause, fix in _FAILURES:
        found = re.search(pattern, output, re.IGNORECASE)
        if found:
            return kind(f"{PROGRAM} refuses {model}: {cause.format(*found.groups())}", fix)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = lines[-1][:200] if lines else "no output"
    return EngineError(f"{PROGRAM} failed on {model} with exit status {status}: {last}", _HINT_CHECK)


def _run(command: list[str], timeout_s: float) -> tuple[int, str]:
    """Run the command. Returns its exit status and its output.

    The output goes to a file, since processes that outlive the program would keep a pipe open.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        except OSError as error:
            raise EngineError(f"{command[0]} does not start: {error.strerror}", f"install it again, {WHERE}") from None
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise EngineError(
                f"{PROGRAM} did not end within {timeout_s:.0f} s on {command[-1]}", _HINT_SMALLER
            ) from None
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        return status, output.read().decode("utf-8", "replace")


def _match(pattern: str, output: str) -> str | None:
    found = re.search(pattern, output)
    return found[1] if found else None


def _number(pattern: str, output: str) -> int | None:
    found = _match(pattern, output)
    return int(found) if found else None


def _size(pattern: str, output: str) -> int | None:
    found = re.search(pattern, output)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None
