"""Which networks reach which targets, and is any result wrong?

`python tests/breadth/matrix.py --out results.json`

Every row is appended to --out as one line of JSON. Existing rows are not computed again, so it can be interrupted and
resumed. `--table` prints the rows as Markdown. How to install torchvision: `networks.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from networks import FAMILIES

TARGETS = (("onnx", "fp32"), ("openvino", "fp32"), ("tflite", "fp32"), ("tflite", "int8"))
STATES = ("pass", "refused", "fail", "WRONG", "not made")
_HERE = Path(__file__).resolve().parent
_TIMEOUT_S = 1800.0  # ends a network that hangs, not one that is slow on a busy machine
_REFUSED = 5  # the exit code of RefusedError


def run(command: list[str], timeout_s: float = _TIMEOUT_S) -> tuple[int, str, str]:
    """Return the exit code (124 after the time limit), stdout and stderr; child processes are ended too."""
    environment = {**os.environ, "PYTHONPATH": str(_HERE.parents[1])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, start_new_session=True, **pipes) as child:
        try:
            out, err = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            return 124, "", f"ran out of its {timeout_s:.0f} s"
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
    return child.returncode, out, err


def rows_of(library: str, name: str, wanted: list[tuple[str, str]]) -> Iterator[dict[str, object]]:
    """Create the network once and convert it to each target; yields each row when it is known."""
    with tempfile.TemporaryDirectory(prefix="breadth-") as place:
        folder = Path(place)
        code, _, err = run([sys.executable, str(_HERE / "networks.py"), library, name, place])
        if code:
            why = f"the network cannot be created: {last_line(err)}"
            yield from (row(library, name, target, "not made", why) for target in wanted)
            return
        for target in wanted:
            yield _converted(library, name, target, folder)


def _converted(library: str, name: str, target: tuple[str, str], folder: Path) -> dict[str, object]:
    network = json.loads((folder / "network.json").read_text())
    out = folder / "-".join(target)
    command = [sys.executable, "-m", "edge", "convert", str(folder / network["model"]), "--json", "--out", str(out)]
    command += ["--to", target[0], "--precision", target[1], "--calibration", str(folder / "calibration.npz")]
    if library == "transformers":
        for key, shape, dtype in network["inputs"]:
            command += ["--input", f"{key}={'x'.join(map(str, shape))}:{dtype}"]
    started = time.monotonic()
    code, said, err = run(command)
    seconds = round(time.monotonic() - started, 1)
    if code == _REFUSED:
        why = reason(said, err)
        return {**row(library, name, target, "refused", why, seconds), "ops": named(why, folder)}
    if code:
        return row(library, name, target, "fail", reason(said, err), seconds)
    code, said, err = run([sys.executable, str(_HERE / "recheck.py"), str(out), str(folder), target[1]])
    if code:
        return row(library, name, target, "WRONG", f"the artifact cannot be run: {last_line(err)}", seconds)
    found = json.loads(said)
    why = f"error {found['error']:.1e}, {found['snr_db']:.0f} dB"
    return row(library, name, target, "pass" if found["agrees"] else "WRONG", why, seconds)


def row(
    library: str, name: str, target: tuple[str, str], state: str, why: str, seconds: float = 0.0
) -> dict[str, object]:
    """Return one line of the results."""
    where = {"library": library, "network": name, "target": " ".join(target)}
    return {**where, "state": state, "reason": why, "seconds": seconds}


def named(why: str, folder: Path) -> list[str]:
    """Return the network's operations that `why` names, in the network or in the ONNX model exported from it."""
    there = set(json.loads((folder / "network.json").read_text())["ops"])
    for model in folder.glob("onnx-*/*.onnx"):
        import onnx

        there |= {node.op_type for node in onnx.load(model, load_external_data=False).graph.node}
    return sorted(there & set(re.findall(r"\w+", why)))


def reason(said: str, err: str) -> str:
    """Return the message of the error of `edge convert --json`."""
    for text in (said, *reversed(err.splitlines())):
        try:
            return str(json.loads(text)["message"])
        except (ValueError, KeyError, TypeError):
            continue
    return last_line(err)


def last_line(text: str) -> str:
    """Return the last line that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")


def read(out: Path) -> list[dict[str, str]]:
    """Read the rows computed so far."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def fill(out: Path, libraries: list[str], jobs: int, until: str | None) -> None:
    """Compute the rows that `out` lacks, `jobs` networks at a time; no row starts after `until` (HH:MM)."""
    there = {(one["library"], one["network"], one["target"]) for one in read(out)}

    def over() -> bool:
        return until is not None and time.strftime("%H:%M") >= until

    def make(library: str, name: str) -> None:
        wanted = [target for target in TARGETS if (library, name, " ".join(target)) not in there]
        if not wanted or over():
            return
        with out.open("a") as stream:
            for line in rows_of(library, name, wanted):
                print(json.dumps(line), file=stream, flush=True)
                if over():
                    return

    with ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(make, library, name) for library in libraries for name in FAMILIES[library]]:
            done.result()


def table(rows: list[dict[str, str]]) -> str:
    """Return Markdown: a row for each network, then what did not pass and why, then the counts."""
    targets = [" ".join(target) for target in TARGETS]
    states = {(one["library"], one["network"], one["target"]): one["state"] for one in rows}
    lines = ["| library | network | " + " | ".join(targets) + " |", "|---" * (len(targets) + 2) + "|"]
    for library, name in sorted({(one["library"], one["network"]) for one in rows}):
        cells = [states.get((library, name, target), "–") for target in targets]
        lines.append(f"| {library} | {name} | " + " | ".join(cells) + " |")
    lines += [""] + [
        f"- {one['network']} → {one['target']}: {one['state']}: {one['reason']}"
        for one in rows
        if one["state"] != "pass"
    ]
    counts = {state: sum(one["state"] == state for one in rows) for state in STATES}
    known = sum(counts.values())
    share = 100 * counts["pass"] / max(known, 1)
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    return "\n".join([*lines, "", f"{known} conversions: {told}; {share:.1f} % pass."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("breadth.json"))
    parser.add_argument("--only", choices=list(FAMILIES), action="append")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--until", metavar="HH:MM")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    libraries = args.only or list(FAMILIES)
    if "torchvision" in libraries and "BREADTH_SITE" not in os.environ and not args.table:
        parser.error(f"BREADTH_SITE is not a folder with torchvision: see {_HERE / 'networks.py'}")
    if not args.table:
        fill(args.out, libraries, args.jobs, args.until)
    print(table(read(args.out)))


if __name__ == "__main__":
    main()
