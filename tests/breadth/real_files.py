"""Which target does each real public file reach, and is any result wrong?

`python -m tests.breadth.real_files --out FILE` writes the table as Markdown. Every cell is stored as one line of JSON
in `--cells` as soon as it is known. Existing cells are not computed again, so the command can be interrupted and
resumed. `--only` and `--target` select cells, and `--again` computes those again.

The files are in the folder `real` of EDGE_DATA; results are judged by `real_judge`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.breadth.real_inputs import MODELS, RealModel
from tests.breadth.real_judge import judge, open_engine, real_inputs

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]
_TIMEOUT_S = 900.0
_CALIBRATION, _FRESH = 32, 8  # samples
_STEPS = 64  # of a stream
TARGETS = {
    **{f"onnx {one}": ("--to", "onnx", "--precision", one) for one in ("fp32", "fp16", "int8")},
    **{f"tflite {one}": ("--to", "tflite", "--precision", one) for one in ("fp32", "fp16", "int8", "w8")},
    **{f"openvino {one}": ("--to", "openvino", "--precision", one) for one in ("fp32", "fp16", "int8")},
    "edgetpu": ("--to", "edgetpu"),
    "ncs2": ("--for", "ncs2"),
    "jetson-nano": ("--for", "jetson-nano"),
    "browser": ("--for", "browser"),
}
_NEEDS_FIXED = ("tflite", "edgetpu", "ncs2", "jetson-nano", "browser")
_STATES = {2: "refused", 3: "refused", 4: "refused", 5: "refused", 6: "not proven"}  # exit code → state of the cell
RIGHT, WRONG, FAILED = "right", "WRONG", "failed"
_INTRO = """# Real models

Public models of many kinds, each converted to every target, as `edge convert` does it. A cell says:

- **right**: converted and verified, and its outputs for fresh inputs agree with those of the source's engine, by a
  judge that shares no code with the proof;
- **refused**: `edge convert` ends with an error that gives the reason: what the target does not support, what the user
  has to specify, or what the library in use cannot do;
- **not proven**: the outputs of the converted file differ from the source's, so it was not accepted;
- **WRONG**: accepted, although the judge disagrees; there must be none;
- **failed**: it crashed, or exceeded the time limit;
- **–**: not tried yet.

The reasons are below the table. `python -m tests.breadth.real_files --out docs/reference/real-models.md` writes this
page; `EDGE_DATA` is the folder with the files.
"""


def data() -> Path:
    """Return the folder with the real files."""
    return Path(os.environ["EDGE_DATA"]).resolve() / "real"


def inputs(model: RealModel, seed: int, count: int) -> dict[str, np.ndarray]:
    """Return inputs [n, *shape] of a model by name; the same for the same seed."""
    count = _STEPS if model.sequence else count
    return model.make(data(), np.random.default_rng(seed), count)


def run(command: list[str], timeout_s: float = _TIMEOUT_S) -> tuple[int, str, str]:
    """Return the exit code (124 after the time limit), stdout and stderr; child processes are ended too."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, cwd=_ROOT, start_new_session=True, **pipes) as child:
        try:
            out, err = child.communicate(timeout=timeout_s)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return 124, "", f"ran out of its {timeout_s:.0f} s"
            raise
    return child.returncode, out, err


def cell(model: RealModel, target: str) -> dict[str, object]:
    """Convert one model to one target, and judge the result on fresh inputs."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="real-") as place:
        state, precision, reason = _converted(model, target, Path(place))
    seconds = round(time.monotonic() - started, 1)
    found = {"model": model.name, "target": target, "state": state, "precision": precision}
    return {**found, "reason": reason, "seconds": seconds}


def _converted(model: RealModel, target: str, folder: Path) -> tuple[str, str, str]:
    out, calibration = folder / "out", folder / "calibration.npz"
    samples = inputs(model, seed=1, count=_CALIBRATION)
    if model.path.endswith(".tflite"):  # calibration takes real values
        samples = dict(real_inputs(open_engine(data() / model.path), samples))
    np.savez(calibration, **samples)
    command = [sys.executable, "-m", "edge", "convert", str(data() / model.path), *TARGETS[target]]
    command += model.options
    command += model.fixed if target.startswith(_NEEDS_FIXED) else ()
    code, said, err = run([*command, "--calibration", str(calibration), "--out", str(out), "--json"], _TIMEOUT_S)
    if code:
        return _STATES.get(code, FAILED), "", _message(said, err, folder)
    precision = str(json.loads((out / "manifest.json").read_text())["precision"])
    judging = [sys.executable, "-m", "tests.breadth.real_files", "--judge", model.name, str(out), precision]
    code, said, err = run(judging)
    if code:
        return WRONG, precision, f"the artifact cannot be run: {_last_line(err)}"
    agrees, words = json.loads(said)
    return (RIGHT if agrees else WRONG), precision, words


def judge_artifact(name: str, artifact: Path, precision: str) -> tuple[bool, str]:
    """Judge one artifact, in a process of its own, because engines may crash it."""
    model = next(one for one in MODELS if one.name == name)
    fresh = inputs(model, seed=2, count=_FRESH)
    return judge(data() / model.path, artifact, fresh, precision, sets=model.sets, points=model.points)


def _message(said: str, err: str, folder: Path) -> str:
    """Return the message and the hint of the error of `edge convert --json`."""
    for text in (said, *reversed(err.splitlines())):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            error = json.loads(text)
            words = f"{error['message']} ({error['hint']})" if error.get("hint") else str(error["message"])
            return words.replace(f"{data()}{os.sep}", "").replace(f"{folder}{os.sep}", "")
    return _last_line(err)


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "nothing was printed")


def read(cells: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Read the cells computed so far; for a repeated cell, the last line counts."""
    lines = cells.read_text().splitlines() if cells.exists() else []
    return {(one["model"], one["target"]): one for one in map(json.loads, lines)}


def missing(cells: Path, models: list[RealModel], targets: list[str], again: bool) -> Iterator[tuple[RealModel, str]]:
    """Return the cells to compute, target by target."""
    there = {} if again else read(cells)
    for target in targets:
        for model in models:
            if (model.name, target) not in there:
                yield model, target


def table(cells: dict[tuple[str, str], dict[str, str]]) -> str:
    """Return Markdown: a row for each model, then the counts, then the reasons."""
    lines = ["| model | " + " | ".join(TARGETS) + " |", "|---" * (len(TARGETS) + 1) + "|"]
    names = [model.name for model in MODELS if any(name == model.name for name, _ in cells)]
    for name in names:
        found = [cells.get((name, target), {"state": "–", "precision": ""}) for target in TARGETS]
        lines.append(
            f"| {name} | " + " | ".join(_short(one, target) for one, target in zip(found, TARGETS, strict=True)) + " |"
        )
    states = [one["state"] for one in cells.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in (RIGHT, "refused", "not proven", WRONG, FAILED))
    lines += ["", f"{len(states)} conversions: {counts}."]
    for name in names:
        lines += ["", f"## {name}", ""]
        lines += [
            f"- {target}: {one['state']}. {_clean(one['reason'])}"
            for target in TARGETS
            if (one := cells.get((name, target)))
        ]
    return "\n".join(lines)


def _short(one: dict[str, str], target: str) -> str:
    is_other = one["precision"] and one["precision"] not in target and " " in target
    return f"{one['state']} ({one['precision']})" if is_other else one["state"]


def _clean(text: str) -> str:
    return " ".join(text.split()).replace("|", "/").replace("<", "‹").replace(">", "›")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the table here")
    parser.add_argument("--cells", type=Path, default=_HERE / "real_files.jsonl")
    parser.add_argument("--only", action="append", choices=[model.name for model in MODELS])
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--again", action="store_true", help="compute the selected cells again")
    parser.add_argument("--until", metavar="HH:MM", help="start no cell after this time")
    parser.add_argument("--judge", nargs=3, metavar=("MODEL", "ARTIFACT", "PRECISION"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.judge:
        print(json.dumps(judge_artifact(args.judge[0], Path(args.judge[1]), args.judge[2])))
        return
    models = [model for model in MODELS if args.only is None or model.name in args.only]
    for model, target in missing(args.cells, models, args.target or list(TARGETS), args.again):
        if args.until and time.strftime("%H:%M") >= args.until:
            break
        found = cell(model, target)
        print(f"{model.name:40} {target:14} {found['state']:10} {found['seconds']:6} s  {found['reason']}", flush=True)
        with args.cells.open("a") as stream:
            print(json.dumps(found), file=stream)
    if args.out:
        args.out.write_text(f"{_INTRO}\n{table(read(args.cells))}\n")


if __name__ == "__main__":
    main()
