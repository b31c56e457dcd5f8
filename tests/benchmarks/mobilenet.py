"""How much accuracy does MobileNetV2 lose in each format, with its real weights? See README.md in this folder."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Row of the table → the arguments of `edge convert`.
TARGETS = {
    **{f"ONNX {p}": ["--to", "onnx", "--precision", p] for p in ("fp32", "fp16", "w8", "int8")},
    **{f"TFLite {p}": ["--to", "tflite", "--precision", p] for p in ("fp32", "fp16", "w8", "int8")},
    "Edge TPU int8": ["--for", "coral-usb", "--old-runtime"],
    **{f"OpenVINO {p}": ["--to", "openvino", "--precision", p] for p in ("fp32", "fp16", "int8")},
    "Movidius NCS2 fp16": ["--for", "ncs2"],
    **{f"TensorRT {p}, Orin": ["--for", "jetson-agx-orin", "--precision", p] for p in ("fp32", "fp16", "int8")},
    "TensorRT fp16, Nano": ["--for", "jetson-nano", "--precision", "fp16"],
    "TensorRT int8 by a cache, Xavier NX": ["--for", "jetson-xavier-nx", "--precision", "int8", "--implicit"],
}


def prepare(folder: Path) -> None:
    """Write MobileNetV2 as .keras, in a process of its own because TensorFlow stays in memory."""
    from edge.table import mobilenet_v2
    from edge.table.mobilenet_v2.weights import WEIGHTS_FILE, find_weights

    mobilenet_v2.build(folder, find_weights(Path(os.environ["EDGE_DATA"]) / WEIGHTS_FILE), "keras")


def converted(folder: Path, row: str, python: str | None) -> dict[str, Any] | str:
    """Return the output of `edge convert --json` for one row, or its error's message."""
    words = [sys.executable, "-m", "edge", "convert", str(folder / "mobilenet_v2.keras"), *TARGETS[row]]
    pictures = Path(os.environ["EDGE_DATA"]) / "imagenet"
    words += ["--calibration", str(pictures / "calibration"), "--evaluate", str(pictures / "evaluation")]
    words += ["--preprocess", "keras-mobilenet-v2", "--labels", str(folder / "labels.txt"), "--max-drop", "0.02"]
    words += ["--out", str(folder / row.replace(" ", "-")), "--json", *(["--python", python] if python else [])]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        return str(json.loads(done.stderr.splitlines()[-1])["message"])
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def line(row: str, answer: dict[str, Any] | str) -> str:
    if isinstance(answer, str):
        return f"| {row} | – | – | – | – | – | {answer} |"
    accuracy, metrics = answer["accuracy"], answer["proof"]["metrics"]
    count = accuracy["samples"]
    right = [round(accuracy[key] * count) for key in ("source", "artifact")]
    counted = f"{right[0]} → {right[1]} | {accuracy['lost']} | {accuracy['alike']} of {count}"
    return f"| {row} | {counted} | {metrics['snr_db']:.0f} | {accuracy['bytes']:,} | |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="a folder for the artifacts")
    parser.add_argument("--only", nargs="+", default=list(TARGETS), metavar="ROW", help="only these rows")
    parser.add_argument("--python", help="a Python 3.8, for the environment of Movidius")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.prepare:
        prepare(args.prepare)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, __file__, "--prepare", folder], check=True, capture_output=True)
        print("| target | right, float → result | lost | same top-1 | dB | bytes | |\n|---|---|---|---|---:|---:|---|")
        for row in args.only:
            print(line(row, converted(folder, row, args.python)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
