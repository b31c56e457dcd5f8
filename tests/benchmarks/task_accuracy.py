"""How much do a detector, a segmenter, a key-point network and an LSTM lose in each format? See README.md here.

`python -m tests.benchmarks.task_accuracy --out docs/reference/task-accuracy.md` trains the networks
(`tests.benchmarks.synthetic_networks`), converts them to every target and measures source and result on data that
neither the training nor the calibration has seen. Each row is stored in --folder as soon as it is known, so the command
can be interrupted and resumed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.synthetic_data import SHAPES, WAVES, pictures, sounds, write_pictures, write_sounds

_CALIBRATION, _EVALUATION = 100, 300  # inputs
_CALIBRATION_SEED, _EVALUATION_SEED = 2, 3  # the networks are trained on data of another one
MAX_DROP = 0.02
_TARGETS = {
    **{f"ONNX {p}": ("--to", "onnx", "--precision", p) for p in ("fp32", "fp16", "w8", "int8")},
    **{f"OpenVINO {p}": ("--to", "openvino", "--precision", p) for p in ("fp32", "fp16", "int8")},
    **{f"TFLite {p}": ("--to", "tflite", "--precision", p) for p in ("fp32", "fp16", "w8", "int8")},
    "Edge TPU int8": ("--for", "coral-usb"),
    "Movidius NCS2 fp16": ("--for", "ncs2"),
    "Jetson Nano fp16 (its ONNX)": ("--for", "jetson-nano"),
    "browser": ("--to", "browser"),
}
_INTRO = """# Accuracy of each task in each format

Small networks with known data: a detector of shapes, a U-Net, a detector of key points and an LSTM that tells waves
apart, trained on synthetic data (`tests/benchmarks/synthetic_networks.py`). Each is converted from ONNX to every
target, with {calibration} inputs for calibration; source and result then answer {evaluation} other inputs. The result
must stay within {drop} of the source: otherwise `edge convert` keeps layers in float, which it chooses by these inputs
(so that the loss with them is slightly optimistic), and names them.

`python -m tests.benchmarks.task_accuracy --out docs/reference/task-accuracy.md` writes this page; `--only lstm` trains,
converts and measures one of the networks. {measured}

- **source → result**: the metric of [`edge evaluate`](../guides/evaluate.md#metrics) before and after the conversion.
- **lost**: by how much it falls, with the 95 % interval of the difference on these inputs; negative is a gain.
- **latency**: the median inference of `edge evaluate`, one input at a time, on {machine};
  [`edge bench`](../guides/benchmark.md) measures it. "–": no engine of this machine runs the format.
- **refused**: `edge convert` ends with this message.
"""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network to convert.

    name: Its file without .onnx.
    title: For the page.
    options: What its file does not say.
    calibration, evaluation: As for `edge convert`.
    """

    name: str
    title: str
    options: tuple[str, ...]
    calibration: Path
    evaluation: Path


def prepared(folder: Path, only: list[str], inputs: int) -> list[Network]:
    """Write the data and the networks, unless they are in the folder already; `only` some networks, if it names any."""
    data = folder / "data"
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        if not data.exists():
            _write_data(Path(temporary), inputs)
            Path(temporary, "done").rename(data)
    networks = [one for one in _networks(data) if not only or one.name in only]
    _train(folder / "networks", [one.name for one in networks])
    return networks


def _train(folder: Path, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    missing = [name for name in names if not (folder / f"{name}.onnx").exists()]
    if missing:
        training = [sys.executable, "-m", "tests.benchmarks.synthetic_networks", str(folder), *missing]
        subprocess.run(training, check=True, capture_output=True)


def _networks(data: Path) -> list[Network]:
    scaled = ("--mean", "0", "--scale", repr(1 / 255), "--resize", "stretch", "--task", "segmentation")
    masks, heard = ("--labels", str(data / "shapes.txt")), ("--task", "sound", "--labels", str(data / "waves.txt"))
    shapes, kites, waves = data / "calibration", data / "kites-calibration" / "images", data / "waves.npz"
    return [
        _network("detector", "Detector", (), shapes / "images", data / "boxes"),
        _network("segmenter", "U-Net", (*scaled, *masks), shapes / "images", data / "masked"),
        _network("keypoints", "Key points", (), kites, data / "kites" / "kites.json"),
        _network("lstm", "LSTM", heard, waves, data / "waves"),
    ]


def _network(name: str, title: str, options: tuple[str, ...], calibration: Path, evaluation: Path) -> Network:
    return Network(name=name, title=title, options=options, calibration=calibration, evaluation=evaluation)


def _write_data(temporary: Path, inputs: int) -> None:
    data = temporary / "done"
    labeled = pictures(inputs, _EVALUATION_SEED)
    write_pictures(data / "boxes", labeled, "boxes")
    write_pictures(data / "masked", labeled, "masks")
    write_pictures(data / "kites", pictures(inputs, _EVALUATION_SEED, kites=True), "points")
    write_pictures(data / "calibration", pictures(_CALIBRATION, _CALIBRATION_SEED), "")
    write_pictures(data / "kites-calibration", pictures(_CALIBRATION, _CALIBRATION_SEED, kites=True), "")
    write_sounds(data / "waves", *sounds(inputs, _EVALUATION_SEED))
    np.savez(data / "waves.npz", samples=sounds(_CALIBRATION, _CALIBRATION_SEED)[0][:, None])
    (data / "shapes.txt").write_text("\n".join(("background", *SHAPES)) + "\n", encoding="utf-8")
    (data / "waves.txt").write_text("\n".join(WAVES) + "\n", encoding="utf-8")


def converted(folder: Path, network: Network, target: str, *, tabled: bool = False) -> dict[str, Any]:
    """Convert and evaluate, and return the row; a refusal is a row, too. With `tabled`, nothing is converted."""
    artifact = folder / f"{network.name}-{target.split(' (')[0].replace(' ', '-').lower()}"
    kept = artifact.with_suffix(".json")
    if tabled and not kept.exists():
        return {"error": "not measured yet"}
    if kept.exists():
        row: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return row
    source = folder / "networks" / f"{network.name}.onnx"
    words = ["convert", str(source), *_TARGETS[target], *network.options, "--calibration", str(network.calibration)]
    words += ["--evaluate", str(network.evaluation), "--max-drop", str(MAX_DROP)]
    row, error = _edge(*words, "--out", str(artifact), "--force")
    if error is None:
        found, problem = _edge("evaluate", str(artifact), "--data", str(network.evaluation), "--threads", "1")
        model = found["models"][0] if problem is None else {}
        row |= {"median_ms": model.get("median_ms"), "problem": problem}
    else:
        row = {"error": error.replace(f"{folder}/networks/", "")}
    kept.write_text(json.dumps(row), encoding="utf-8")
    return row


def _edge(*words: str) -> tuple[dict[str, Any], str | None]:
    """Run a command with --json, and return its output, or the message of its error."""
    done = subprocess.run([sys.executable, "-m", "edge", *words, "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        return {}, str(json.loads(done.stderr.splitlines()[-1])["message"])
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer, None


def line(target: str, row: dict[str, Any]) -> str:
    """Return a row of the page's tables."""
    if "error" in row:
        state = "–" if row["error"] == "not measured yet" else "refused"
        return f"| {target} | {state} | | | | {row['error'].replace('|', '/')} |"
    score = row["accuracy"]
    lost = f"{score['drop']:+.4f}" if score["drop"] else "0"
    if score.get("interval"):
        lost += " ({:+.4f} to {:+.4f})".format(*score["interval"])
    latency = "–" if row["median_ms"] is None else f"{row['median_ms']:.2f}"
    layers = ", ".join(layer.split(";")[0] for layer in score.get("kept", ()))
    before = f"{layers} (all in int8: {score['before']['artifact']:.4f})" if layers else ""
    values = f"{score['source']:.4f} → {score['artifact']:.4f}"
    return f"| {target} | {values} | {lost} | {latency} | {score['bytes']:,} | {before} |"


def page(folder: Path, networks: list[Network], facts: dict[str, object], *, tabled: bool) -> Iterator[str]:
    """Yield the lines of the page, a table for each network."""
    yield _INTRO.format(calibration=_CALIBRATION, drop=MAX_DROP, **facts)
    for network in networks:
        rows = {target: converted(folder, network, target, tabled=tabled) for target in _TARGETS}
        if all(row.get("error") == "not measured yet" for row in rows.values()):
            continue
        metric = next((one["accuracy"].get("metric", "top1") for one in rows.values() if "accuracy" in one), "")
        yield f"## {network.title}: `{metric}`\n"
        yield "| target | source → result | lost | latency [ms] | bytes | kept in float, or why refused |"
        yield "|---|---|---|---:|---:|---|"
        yield from (line(target, row) for target, row in rows.items())
        yield ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="a folder for the networks, the data and the artifacts")
    parser.add_argument("--out", type=Path, help="the page (default: printed)")
    parser.add_argument("--only", nargs="+", metavar="NETWORK", default=[], help="only these networks, such as lstm")
    parser.add_argument("--inputs", type=int, default=_EVALUATION, help="inputs to evaluate on (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="write the rows so far, and convert nothing")
    parser.add_argument("--machine", default="this machine", help="the machine, for the page")
    parser.add_argument("--measured", help="when and how the rows were measured, for the page (default: today)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        networks = prepared(folder, args.only, args.inputs)
        measured = args.measured or f"Measured on {date.today()}."
        facts = {"evaluation": args.inputs, "machine": args.machine, "measured": measured}
        text = "\n".join(page(folder, networks, facts, tabled=args.table))
    if args.out is None:
        print(text)
    else:
        args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
