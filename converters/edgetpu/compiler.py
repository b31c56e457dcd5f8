"""The user's own `edgetpu_compiler`: found on PATH, run, and its words read. It may be neither copied nor shipped.

It runs on x86-64 Linux of the Debian family only. Its words are those of versions 14 to 16:
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
WHERE = "on x86-64 Debian or Ubuntu (coral.ai/docs/edgetpu/compiler tells how to install it), or in Google Colab"
MAPPED = "Mapped to Edge TPU"
_TIMEOUT_S = 600  # its own default of 180 s ends large models early
_GRACE_S = 30  # it ends itself when its time is up, and says so
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

_HINT_QUANTISE = "convert to full int8 with calibration data: edge convert MODEL --for coral-usb --calibration PICTURES"
_HINT_SMALLER = "use smaller pictures, or a network whose widest layers are smaller"
_HINT_CHECK = "see what each operation does there: edge check MODEL.tflite --for coral-usb"
# What it says → the error, what that means, and what to do. The first that fits counts: the precise ones stand first.
_FAILURES: tuple[tuple[str, type[EdgeError], str, str], ...] = (
    (
        r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'",
        RefusedError,
        "it does not know {0} in version {1}: the model's converter is newer than the compiler (issue 879)",
        "convert with `edge convert --for coral-usb`, which writes the versions that the compiler reads",
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
        "calibrate with more pictures, or train on with weight decay",
    ),
    (
        r"large activation tensors|Restored original execution plan after delegate application failure",
        RefusedError,
        "the values between two layers do not fit on the chip (issues 444, 653, 686)",
        _HINT_SMALLER,
    ),
    (r"Model not quantized|Invalid model: ", RefusedError, "the model is not quantised throughout", _HINT_QUANTISE),
    (
        r"Internal compiler error",
        EngineError,
        "it gave up with an internal error, often over a large picture or a large CONCATENATION (issues 157, 309)",
        f"try once more, then: {_HINT_SMALLER}",
    ),
    (
        r"Model could not be parsed|Could not open|is not a valid",
        InputError,
        "it cannot read the model",
        "check how the file was made or copied",
    ),
    (r"timeout|timed out", EngineError, "its time ran out", _HINT_SMALLER),
)


@dataclass(frozen=True)
class Row:
    """One line of its log: operations of one kind that share a status; which of the model's they are is not told."""

    operation: str
    count: int
    status: str


@dataclass(frozen=True)
class Compilation:
    """What it made and said: sizes in bytes, None where it did not say."""

    model: Path
    version: str
    rows: tuple[Row, ...]
    subgraphs: int | None
    cached_bytes: int | None
    streamed_bytes: int | None

    @property
    def mapped(self) -> int:
        """Operations that the Edge TPU runs."""
        return sum(row.count for row in self.rows if row.status == MAPPED)

    @property
    def total(self) -> int:
        """All operations of the model."""
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
    """Where the user's compiler is, None where there is none on PATH."""
    return shutil.which(PROGRAM)


def compile_model(program: str, model: Path, out: Path, timeout_s: int = _TIMEOUT_S) -> Compilation:
    """Compile `model` into the folder `out` as `<stem>_edgetpu.tflite`, and read what was said.

    RefusedError for a model that the compiler does not take, with the cause; EngineError where it fails or is killed
    after `timeout_s` seconds. Its log is removed from `out`.
    """
    command = [program, "-s", "-t", str(timeout_s), "-o", str(out), str(model)]
    status, said = _run(command, timeout_s + _GRACE_S)
    made, log = out / f"{model.stem}_edgetpu.tflite", out / f"{model.stem}_edgetpu.log"
    table = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else said
    log.unlink(missing_ok=True)
    if status != 0 or not made.is_file():
        raise failure(model, status, said)
    return Compilation(
        made,
        _found(r"Edge TPU Compiler version (\S+)", said) or "unknown",
        read_log(table),
        _number(r"Number of Edge TPU subgraphs: (\d+)", said),
        _size(r"On-chip memory used for caching model parameters: ([\d.]+)([KMG]?i?B)", said),
        _size(r"Off-chip memory used for streaming uncached model parameters: ([\d.]+)([KMG]?i?B)", said),
    )


def read_log(text: str) -> tuple[Row, ...]:
    """The table `Operator  Count  Status` of its log, or of its output; empty where there is none."""
    rows, inside = [], False
    for line in text.splitlines():
        if re.match(r"Operator\s+Count\s+Status", line):
            inside = True
            continue
        found = re.match(r"(\S+)\s+(\d+)\s+(\S.*?)\s*$", line) if inside else None
        if found:
            rows.append(Row(found[1], int(found[2]), found[3]))
        elif line.strip():
            inside = False
    return tuple(rows)


def failure(model: Path, status: int, said: str) -> EdgeError:
    """The error that its words stand for; where they are not known, the last of them."""
    for pattern, kind, cause, fix in _FAILURES:
        found = re.search(pattern, said, re.IGNORECASE)
        if found:
            return kind(f"{PROGRAM} refuses {model}: {cause.format(*found.groups())}", fix)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1][:200] if lines else "it said nothing"
    return EngineError(f"{PROGRAM} failed on {model} with exit status {status}: {last}", _HINT_CHECK)


def _run(command: list[str], timeout_s: float) -> tuple[int, str]:
    """Exit status, and all that was said. Into a file: a pipe would be held open by what outlives the program."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
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
        said.seek(0)
        return status, said.read().decode("utf-8", "replace")


def _found(pattern: str, said: str) -> str | None:
    found = re.search(pattern, said)
    return found[1] if found else None


def _number(pattern: str, said: str) -> int | None:
    found = _found(pattern, said)
    return int(found) if found else None


def _size(pattern: str, said: str) -> int | None:
    found = re.search(pattern, said)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None
