"""How much does a verified conversion cost, compared to using the converter directly? See README.md in this folder."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

MAX_RATIO = 1.2
# Case → its step, the imports that are not counted, the limit in seconds for the whole process (with `whole`) or for
# the step alone, and the limit in bytes of memory.
CASES: dict[str, dict[str, Any]] = {
    "keras-tflite-int8": {
        "step": "keras_to_tflite",
        "imports": ("tensorflow", "keras", "ai_edge_litert.interpreter"),
        "most_s": 60.0,
        "whole": True,
        "most_bytes": 3 * 10**9,
    },
    "onnx-openvino-fp16": {
        "step": "onnx_to_openvino",
        "imports": ("onnxruntime", "openvino"),
        "most_s": 5.0,
        "whole": False,
        "most_bytes": 3 * 10**9,
    },
}


def prepare(folder: Path) -> None:
    """Write MobileNetV2 as .keras and .onnx, and the 100 calibration pictures as pixels."""
    from converters import keras_to_onnx
    from converters.options import ConvertOptions
    from edge.inference.images import find_pictures, load_all
    from edge.table import mobilenet_v2
    from edge.table.mobilenet_v2.weights import WEIGHTS_FILE, find_weights

    data = Path(os.environ["EDGE_DATA"])
    source = mobilenet_v2.build(folder, find_weights(data / WEIGHTS_FILE), "keras")
    keras_to_onnx.KerasToOnnx().convert(source, folder, ConvertOptions(), None)
    pictures = find_pictures(data / "imagenet" / "calibration")
    np.savez(folder / "samples.npz", pixels=load_all(pictures, mobilenet_v2.preprocess("keras")))


def ours(case: str, folder: Path, out: Path) -> dict[str, float]:
    """Return the seconds of each part of the pipeline."""
    from converters.options import ConvertOptions
    from converters.pipeline.convert import convert
    from converters.pipeline.request import ConvertRequest
    from edge.table import mobilenet_v2

    source, target, precision = case.split("-")
    request = ConvertRequest(
        source=folder / f"mobilenet_v2.{source}",
        steps=(CASES[case]["step"],),
        format=target,
        options=ConvertOptions(precision=precision),
        out=out,
        scratch=out / "scratch",
        samples=folder / "samples.npz",
        preprocess=mobilenet_v2.preprocess("keras"),
    )
    seconds: dict[str, float] = convert(request, lambda progress: None).seconds
    return {"converter": seconds[CASES[case]["step"]], "proof": seconds["source"] + seconds["proof"]}


def calibration(folder: Path) -> Iterator[list[Any]]:
    """Return the inputs that the pipeline calibrates with: all but every fifth, which are for verification."""
    pixels = np.load(folder / "samples.npz")["pixels"]
    for picture in pixels[np.arange(len(pixels)) % 5 != 4]:
        yield [(picture[np.newaxis] / 127.5 - 1).astype(np.float32)]


def tflite_directly(folder: Path, out: Path) -> None:
    """Convert as in TensorFlow's guide to post-training quantization, with a fixed batch."""
    import keras
    import tensorflow as tf

    model = keras.models.load_model(folder / "mobilenet_v2.keras", compile=False)
    fixed = keras.models.clone_model(model, input_tensors=keras.Input(batch_shape=(1, *model.input_shape[1:])))
    fixed.set_weights(model.get_weights())
    converter = tf.lite.TFLiteConverter.from_keras_model(fixed)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: calibration(folder)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    (out / "model.tflite").write_bytes(converter.convert())


def openvino_directly(folder: Path, out: Path) -> None:
    """Convert like the command `ovc`."""
    import openvino

    openvino.save_model(openvino.convert_model(folder / "mobilenet_v2.onnx"), out / "model.xml")


DIRECTLY: dict[str, Callable[[Path, Path], None]] = {
    "keras-tflite-int8": tflite_directly,
    "onnx-openvino-fp16": openvino_directly,
}


def one(case: str, way: str, folder: Path) -> dict[str, float]:
    """Convert once in this process, after the imports; return the seconds, and the bytes of the model's files."""
    import resource
    from importlib import import_module

    for name in CASES[case]["imports"]:
        import_module(name)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        if way == "ours":
            found = ours(case, folder, out)
        else:
            start = time.perf_counter()
            DIRECTLY[case](folder, out)
            found = {"converter": time.perf_counter() - start}
        files = [path for path in out.rglob("*") if path.suffix in (".tflite", ".xml", ".bin")]
        size = sum(path.stat().st_size for path in files)
    return {**found, "size": size, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def measured(case: str, way: str, folder: Path) -> dict[str, float]:
    """Run `one` in its own process; return its answer with the seconds of the whole process."""
    start = time.perf_counter()
    words = [sys.executable, __file__, "--case", case, "--way", way, "--folder", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "whole": time.perf_counter() - start}


def judged(case: str, folder: Path, pairs: int) -> bool:
    """Measure both ways alternately, print the figures, and return whether they are within the limits."""
    rows: dict[str, list[dict[str, float]]] = {"ours": [], "directly": []}
    for pair in range(pairs):
        for way in ("ours", "directly") if pair % 2 == 0 else ("directly", "ours"):
            rows[way].append(measured(case, way, folder))
    limits = CASES[case]
    mean = {
        way: {key: float(np.median([row[key] for row in found])) for key in found[0]} for way, found in rows.items()
    }
    ratios = [a["converter"] / b["converter"] for a, b in zip(rows["ours"], rows["directly"], strict=True)]
    ratio, mine = float(np.median(ratios)), mean["ours"]
    spent = mine["whole"] if limits["whole"] else mine["converter"]
    claims = {
        f"converter {mine['converter']:6.2f} s, directly {mean['directly']['converter']:6.2f} s: "
        f"ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), at most {MAX_RATIO:g}": ratio <= MAX_RATIO,
        f"{'whole process' if limits['whole'] else 'converter'} {spent:.1f} s, at most {limits['most_s']:g} s; "
        f"and the proof {mine['proof']:.1f} s": spent <= limits["most_s"],
        f"memory {mine['memory'] / 1e9:.2f} GB, directly {mean['directly']['memory'] / 1e9:.2f} GB, "
        f"at most {limits['most_bytes'] / 1e9:g} GB": mine["memory"] <= limits["most_bytes"],
    }
    print(f"{case}, {pairs} pairs: {mine['size']:,.0f} bytes, directly {mean['directly']['size']:,.0f}")
    for words, holds in claims.items():
        print(f"  {words:92} {'holds' if holds else 'FAILS'}", flush=True)
    return all(claims.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=tuple(CASES), help="this case alone")
    for hidden in ("--case", "--way"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way == "prepare":
        prepare(args.folder)
        return 0
    if args.case:
        print(json.dumps(one(args.case, args.way, args.folder)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # TensorFlow stays in memory: not in this process.
        subprocess.run([sys.executable, __file__, "--way", "prepare", "--folder", temporary], check=True)
        cases = [args.only] if args.only else list(CASES)
        held = [judged(case, folder, args.pairs) for case in cases]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
