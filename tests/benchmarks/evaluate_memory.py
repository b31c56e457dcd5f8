"""How much memory does `edge evaluate` take for a large data set? See README.md here.

    python -m tests.benchmarks.evaluate_memory [PICTURES]

Generates pictures of three classes (100,000 by default) and evaluates a classifier on a tenth of them, then on all.
Prints the time and the peak of the largest process, and checks the figures: every class is known.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

_PICTURES, _SIDE = 100_000, 32
_MOST = 1024  # bytes for each picture: its path, its class, and what the metrics need of the answer
_COLORS = ("red", "green", "blue")
_OPTIONS = ("--mean", "0", "--scale", repr(1 / 255), "--resize", "stretch", "--threads", "1")


def write_classifier(place: Path) -> Path:
    """Write a model whose classes are the mean red, green and blue of a picture."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["means"]),
            helper.make_node("Flatten", ["means"], ["colors"]),
            helper.make_node("Softmax", ["colors"], ["y"]),
        ],
        "colors",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), place)
    return place


def write_pictures(folder: Path, count: int) -> Path:
    """Write noisy pictures, each in the folder of its color, and labels.txt."""
    draw = np.random.default_rng(1)
    for color in _COLORS:
        (folder / "data" / color).mkdir(parents=True)
    for number in range(count):
        place = number % len(_COLORS)
        pixels = draw.integers(0, 128, (_SIDE, _SIDE, 3), np.uint8)
        pixels[..., place] += 100
        Image.fromarray(pixels).save(folder / "data" / _COLORS[place] / f"{number:06}.png", compress_level=1)
    (folder / "labels.txt").write_text("\n".join(_COLORS) + "\n", encoding="utf-8")
    return folder / "data"


def measured(model: Path, data: Path, count: int) -> float:
    """Evaluate the model on some of the pictures, print a line, and return the largest process's peak in MiB."""
    words = ["evaluate", str(model), "--data", str(data), "--labels", str(model.parent / "labels.txt"), *_OPTIONS]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "edge", *words, "--limit", str(count), "--json"], stdout=subprocess.PIPE, check=True
    )
    seconds = time.monotonic() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # the largest process so far: the counts grow
    report = json.loads(done.stdout)
    assert (report["inputs"], report["models"][0]["metrics"]["top1"]) == (count, 1.0)
    peak = usage.ru_maxrss / 1024
    print(f"{count:,} pictures: {seconds:.0f} s, the largest process {peak:.0f} MiB", flush=True)
    return peak


def main() -> int:
    """Return 1 if memory grows by more than `_MOST` for each picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=int, nargs="?", default=_PICTURES)
    count = parser.parse_args().pictures
    with tempfile.TemporaryDirectory() as name:
        model, data = write_classifier(Path(name, "colors.onnx")), write_pictures(Path(name), count)
        few, many = (measured(model, data, number) for number in (count // 10, count))
    growth = (many - few) * 2**20 / (count - count // 10)
    print(f"{growth:.0f} bytes for each picture more")
    return int(growth > _MOST)


if __name__ == "__main__":
    sys.exit(main())
