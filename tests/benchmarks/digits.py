"""How much accuracy does int8 cost a trained network with float weights? See README.md in this folder."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TRAIN = Path(__file__).parents[1] / "converters" / "digits" / "train.py"
WAY = ["--mean", "127.5", "--scale", str(1 / 127.5), "--resize", "stretch"]
FORMATS = ("tflite", "onnx", "openvino")
MAX_DROP = 0.01


def converted(folder: Path, name: str, target: str, precision: str) -> dict[str, Any]:
    """Return the output of `edge convert --json` for one conversion."""
    words = [sys.executable, "-m", "edge", "convert", str(folder / f"{name}.keras"), "--to", target]
    words += ["--precision", precision, "--calibration", str(folder / "calibration"), *WAY, "--json"]
    words += ["--evaluate", str(folder / "evaluation"), "--max-drop", str(MAX_DROP)]
    words += ["--out", str(folder / f"{name}-{target}-{precision}")]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def row(name: str, answer: dict[str, Any]) -> str:
    accuracy = answer["accuracy"]
    count = accuracy["samples"]
    right = f"{round(accuracy['source'] * count)} → {round(accuracy['artifact'] * count)}"
    kept = ""
    if "kept" in accuracy:
        layers = ", ".join(layer.split(";")[0] for layer in accuracy["kept"])
        kept = f"{layers} (without: {round(accuracy['before']['artifact'] * count)})"
    return (
        f"| {name} | {answer['format']} {answer['precision']} | {right} of {count} | {accuracy['bytes']:,} | {kept} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="a folder for the networks and pictures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, TRAIN, folder], check=True, capture_output=True)
        print("| network | result | right, float → result | bytes | kept in float |\n|---|---|---|---|---|")
        for name, precisions in (("digits", ("fp32", "int8")), ("uneven", ("int8",))):
            for precision in precisions:
                for target in FORMATS:
                    print(row(name, converted(folder, name, target, precision)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
