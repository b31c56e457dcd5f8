"""Which of ONNX's own node tests does each target pass, and is any result wrong?

`python -m tests.breadth.node_tests --target openvino --every 10 --out FILE.jsonl` converts every tenth model, and
appends one line of JSON for each as soon as it is known; lines that are there are not made again, so the command can be
stopped and resumed. `--only` chooses tests by a part of their name, and `--again` makes those anew. `--table` prints
what is there as Markdown. Each conversion runs in a process that is killed when it takes too long; results are judged
in another process by `node_judge`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.breadth import node_judge

_ROOT = Path(__file__).resolve().parents[2]
# Target → format, precision, and the engine that might run the test's model directly.
TARGETS = {
    "openvino": ("openvino", "fp32", "openvino"),
    "onnx-fp16": ("onnx", "fp16", "onnxruntime"),
    "tflite": ("tflite", "fp32", "onnx2tf"),
}
RIGHT, REFUSED, LACKS, WRONG, CRASHED = STATES = ("right", "refused", "engine lacks it", "WRONG", "crashed")
_TIMEOUT_S = 600.0
_SOAK = 16  # inferences: 0.2 s of them would be half of a conversion's time
_NUMBERS = "biuf"  # numpy's kinds of the types that are tried: no text, no 4-bit or 8-bit floats, no sequences
_MAX_REASON = 300  # characters
_INTRO = """# Node tests

ONNX's own tests of its operators (`onnx.backend.test`): small models with inputs and expected outputs, here all those
on numbers and truth values. Each is converted as `edge convert` does it, with made-up inputs, or with the test's own as
`--calibration` where the model asks for real ones. A judge that shares no code with the proof then compares the
artifact's answers in its plain engine with the test's outputs.

- **right**: the answers are those of the test.
- **refused**: `edge convert` ends with an error, although the target's own engine, given the model directly, passes.
- **engine lacks it**: that engine (OpenVINO, ONNX Runtime, onnx2tf) does not pass the test either, or ONNX Runtime,
  which computes what results are compared with, answers otherwise than the test expects.
- **WRONG**: accepted, with other answers; there must be none.
- **crashed**: the conversion ended without an error of ours; there must be none.

`python -m tests.breadth.node_tests --target openvino --out tests/breadth/node_tests.jsonl` converts every model that
the file lacks, or with `--every 10` every tenth, a sample as here for TFLite; with `--table` it prints this page.
"""


@dataclass(frozen=True)
class Case:
    """A node test: its operator (of an expanded function: the function), model and data."""

    name: str
    operator: str
    model: Any
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]

    def write(self, folder: Path) -> Path:
        """Write the model and the data, by name in the model's order."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(self.model.SerializeToString())
        graph = self.model.graph
        for name, ports, values in (("inputs", graph.input, self.inputs), ("outputs", graph.output, self.outputs)):
            np.savez(folder / f"{name}.npz", **{port.name: value for port, value in zip(ports, values, strict=True)})
        return folder


def cases() -> list[Case]:
    """All node tests on numbers and truth values, by name."""
    import onnx.backend.test.case.node as nodes

    found = {one.name: one for one in nodes.collect_testcases(None)}
    operators = {name: _operator(one.model) for name, one in found.items()}
    made = []
    for name, one in sorted(found.items()):
        inputs, outputs = one.data_sets[0]
        if all(_is_number(value) for value in (*inputs, *outputs)) and outputs:
            operator = operators.get(name.split("_expanded")[0], operators[name])
            made.append(Case(name, operator, one.model, list(inputs), list(outputs)))
    return made


def _operator(model: Any) -> str:
    return max((node.op_type for node in model.graph.node), key=lambda op: op != "Constant", default="none")


def _is_number(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in _NUMBERS and value.dtype.isbuiltin == 1


def fingerprint(model: Any) -> str:
    """Return a digest of what a model computes; models that differ in names and texts alone have the same."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names: dict[str, str] = {"": ""}
    _rename(copy.graph, lambda name: names.setdefault(name, str(len(names))))
    copy.ClearField("doc_string")
    copy.ClearField("producer_name")
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()[:16]


def _rename(graph: Any, number: Callable[[str], str]) -> None:
    """Give tensors numbers in the order in which they appear, in branches and loops too; nodes lose their names."""
    for field in ("name", "doc_string", "value_info"):
        graph.ClearField(field)
    for one in (*graph.input, *graph.initializer, *graph.output):
        one.name = number(one.name)
        one.ClearField("doc_string")
    for node in graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
        node.input[:] = [number(name) for name in node.input]
        node.output[:] = [number(name) for name in node.output]
        for attribute in node.attribute:
            for part in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                _rename(part, number)


class LostError(Exception):
    """A process ended without an answer, or took too long."""


class Worker:
    """A process that answers jobs, one line of JSON each; it is started when needed, and anew after it is lost."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, job: dict[str, str], timeout_s: float = _TIMEOUT_S) -> dict[str, Any]:
        """Return the answer to a job. Raises LostError."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.breadth.node_tests", "--serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=_ROOT,
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                start_new_session=True,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            print(json.dumps(job), file=stdin, flush=True)
            ready, _, _ = select.select([stdout], [], [], timeout_s)
            line = stdout.readline() if ready else ""
        except BrokenPipeError:
            ready, line = [stdout], ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        status = self.close()
        raise LostError(f"ended with status {status}" if ready else f"took more than {timeout_s:.0f} s")

    def close(self) -> int:
        """End the process and all that it started; returns its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        status = process.poll()
        if status is None:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdin is not None
        assert process.stdout is not None
        process.wait()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return process.returncode if status is None else status


def without_folders(text: str) -> str:
    """Return the text with this machine's files by name alone, so that rows are the same on every machine."""
    places = {str(Path(tempfile.gettempdir())), str(Path.home()), sys.prefix, str(Path(__file__).parents[2])}
    return re.sub(rf"(?:{'|'.join(map(re.escape, places))})/(?:[^\s/:]+/)*", "", text)


class Runner:
    """Converts and judges cases, in two processes."""

    def __init__(self) -> None:
        self._converter, self._judge = Worker(), Worker()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._converter.close()
        self._judge.close()

    def row(self, case: Case, target: str) -> dict[str, Any]:
        """Convert one case to one target, and judge the result."""
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="node-") as place:
            state, reason = self._state(case.write(Path(place) / "case"), target)
        named = sorted(set(re.findall(r"\w+", reason)) & {node.op_type for node in case.model.graph.node})
        reason = without_folders(reason)[:_MAX_REASON]
        row = {"case": case.name, "target": target, "operator": case.operator, "state": state, "reason": reason}
        seconds = round(time.monotonic() - started, 2)
        return {**row, "named": named, "model": fingerprint(case.model), "seconds": seconds}

    def _state(self, folder: Path, target: str) -> tuple[str, str]:
        out = folder.parent / "out"
        job = {"case": str(folder), "target": target, "out": str(out)}
        try:
            converted = self._converter.ask({"do": "convert", **job})
        except LostError as lost:
            return CRASHED, f"the conversion {lost}"
        if converted["crashed"]:
            return CRASHED, converted["message"]
        if converted["message"]:
            agrees, words = self._ask_judge({"do": "direct", **job})
            return (REFUSED, converted["message"]) if agrees else (LACKS, f"{words}; edge: {converted['message']}")
        agrees, words = self._ask_judge({"do": "judge", **job})
        if agrees:
            return RIGHT, ""
        # The source of a conversion is what ONNX Runtime computes. Where that is not what the test expects, a faithful
        # result is not either.
        if not self._ask_judge({"do": "direct", **job, "target": "onnx-fp16"})[0]:
            faithful, _ = self._ask_judge({"do": "faithful", **job})
            if faithful:
                return LACKS, f"ONNX Runtime does not reproduce the test, and the result answers as it does: {words}"
        return WRONG, words

    def _ask_judge(self, job: dict[str, str]) -> tuple[bool, str]:
        try:
            answer = self._judge.ask(job)
        except LostError as lost:
            return False, f"the engine {lost}"
        return answer["agrees"], answer["words"]


def serve() -> None:
    """Answer the jobs on stdin."""
    from converters.environments.process import kept_processes

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    with kept_processes():
        for line in sys.stdin:
            job = json.loads(line)
            print(json.dumps(_convert(job) if job["do"] == "convert" else _judged(job)), file=answers, flush=True)


def _convert(job: dict[str, str]) -> dict[str, Any]:
    """Convert with made-up inputs; where the model does not run with them, with the test's own."""
    from runtimes.errors import EdgeError, WorkerError

    case = Path(job["case"])
    try:
        try:
            convert(case / "model.onnx", job["target"], Path(job["out"]))
        except EdgeError as error:
            if "--calibration" not in f"{error.message} {error.hint}":
                raise
            with np.load(case / "inputs.npz") as inputs:
                np.savez(case / "samples.npz", **{name: value[np.newaxis] for name, value in inputs.items()})
            convert(case / "model.onnx", job["target"], Path(job["out"]), case / "samples.npz")
    except WorkerError as error:
        return {"crashed": True, "message": error.message}
    except EdgeError as error:
        message = f"{error.message} ({error.hint})" if error.hint else error.message
        return {"crashed": False, "message": message.replace(f"{case}{os.sep}", "")}
    except Exception as error:
        return {"crashed": True, "message": f"{type(error).__name__}: {error}"}
    return {"crashed": False, "message": ""}


def convert(model: Path, target: str, out: Path, samples: Path | None = None) -> None:
    """Convert as `edge convert --to ... --precision ...` does, in this process: another one takes seconds to start."""
    import shutil

    from converters.options import ConvertOptions
    from converters.pipeline.request import ConvertRequest
    from converters.worker import convert as run_conversion
    from edge.conversion.convert import Conversion, plan
    from edge.conversion.datasets import ConversionInputs
    from edge.conversion.planning import ConversionRequest

    kind, precision, _ = TARGETS[target]
    # A model that is quantized already keeps its precision unless another one is asked for.
    asked = None if precision == "fp32" else precision
    inputs = ConversionInputs(calibration=samples)
    options = ConvertOptions(soak=_SOAK)
    planned = plan(model, ConversionRequest(format=kind, precision=asked, options=options), inputs)
    assert isinstance(planned, Conversion)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    request = ConvertRequest(
        source=planned.source.model,
        steps=planned.plan.steps,
        format=planned.plan.format,
        options=planned.plan.options,
        out=out,
        scratch=out.with_name("steps"),
        samples=samples,
    )
    run_conversion(request, lambda _: None)


def _judged(job: dict[str, str]) -> dict[str, Any]:
    case, (_, precision, engine) = Path(job["case"]), TARGETS[job["target"]]
    try:
        if job["do"] == "direct" and engine == "onnx2tf":
            agrees, words = _onnx2tf().answers(case)
        elif job["do"] == "direct":
            agrees, words = node_judge.engine_answers(case, engine)
        elif job["do"] == "faithful":
            agrees, words = node_judge.same_answers(case, Path(job["out"]), precision)
        else:
            agrees, words = node_judge.artifact_answers(case, Path(job["out"]), precision)
    except Exception as error:
        agrees, words = False, f"the artifact does not answer: {type(error).__name__}: {error}"
    return {"agrees": bool(agrees), "words": words}


@cache
def _onnx2tf() -> node_judge.Onnx2tf:
    from converters.environments import environment

    return node_judge.Onnx2tf(environment("onnx2tf").python)


def read(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows made so far; a later line of one case counts."""
    lines = out.read_text().splitlines() if out.exists() else []
    return {(one["case"], one["target"]): one for one in map(json.loads, lines)}


def fill(out: Path, chosen: Iterable[Case], target: str, until: str | None = None, *, again: bool = False) -> None:
    """Append the rows that `out` lacks, or with `again` all of them; none is begun after `until` (HH:MM)."""
    known = set() if again else set(read(out))
    with out.open("a") as stream, Runner() as runner:
        for case in chosen:
            if (case.name, target) in known:
                continue
            if until and time.strftime("%H:%M") >= until:
                return
            row = runner.row(case, target)
            print(json.dumps(row), file=stream, flush=True)
            if row["state"] != RIGHT:
                print(f"{row['case']:60} {row['state']:16} {row['reason'][:300]}", flush=True)


def counts(found: Iterable[dict[str, Any]]) -> str:
    """How many rows are in each state, and the share of those that the target's engine can, in words."""
    states = Counter(one["state"] for one in found)
    able = sum(states.values()) - states[LACKS]
    words = ", ".join(f"{states[state]} {state}" for state in STATES)
    return f"{sum(states.values())} models: {words}; {100 * states[RIGHT] / max(able, 1):.1f} % of those that it can"


def table(found: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Markdown: the counts of each target, then the operators that are not all right, then the reasons."""
    lines = [_INTRO]
    for target in TARGETS:
        ours = [one for (_, name), one in found.items() if name == target]
        if not ours:
            continue
        by_operator: dict[str, Counter[str]] = {}
        for one in ours:
            by_operator.setdefault(one["operator"], Counter())[one["state"]] += 1
        lines += [f"## {target}", "", f"{counts(ours)}.", "", "| operator | " + " | ".join(STATES) + " |"]
        lines.append("|---" * (len(STATES) + 1) + "|")
        for operator, states in sorted(by_operator.items()):
            if set(states) - {RIGHT}:
                lines.append(f"| {operator} | " + " | ".join(str(states[state] or "") for state in STATES) + " |")
        right = sorted(operator for operator, states in by_operator.items() if set(states) == {RIGHT})
        lines += ["", f"All right: {', '.join(right)}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=list(TARGETS), default="openvino")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth test")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="begin with the Kth test")
    parser.add_argument("--only", metavar="TEXT", help="tests whose names contain it")
    parser.add_argument("--state", choices=STATES, help="make the rows anew that are in this state")
    parser.add_argument("--again", action="store_true", help="make the chosen rows anew")
    parser.add_argument("--out", type=Path, default=Path("node_tests.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table, and convert nothing")
    parser.add_argument("--until", metavar="HH:MM", help="start no conversion after this time")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    if not args.table:
        chosen = [one for one in cases()[args.first :: args.every] if args.only is None or args.only in one.name]
        if args.state:
            there = read(args.out)
            chosen = [one for one in chosen if there.get((one.name, args.target), {}).get("state") == args.state]
        fill(args.out, chosen, args.target, args.until, again=args.again or args.state is not None)
        print(counts(one for (_, target), one in read(args.out).items() if target == args.target))
        return
    print(table(read(args.out)))


if __name__ == "__main__":
    main()
