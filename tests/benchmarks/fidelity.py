"""Does `edge bench` measure the same as the engines' own tools? See README.md in this folder."""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from edge.benchmark import Setup, measure_all
from runtimes.measurement.statistics import Interval, median, paired_ratio

LOW, HIGH = 0.98, 1.02
WIDEST = 0.10  # a wider interval overlaps everything: the machine is too busy
FILES = {"openvino": "model.xml", "onnxruntime": "model.onnx", "litert": "model.tflite"}


def prepare(folder: Path) -> None:
    """Write MobileNetV2 1.0/224 for the three engines, in a process of its own because TensorFlow stays in memory."""
    from converters import keras_to_onnx, keras_to_tflite, onnx_to_openvino
    from converters.options import ConvertOptions
    from edge.table import mobilenet_v2
    from edge.table.mobilenet_v2.weights import find_weights

    source = mobilenet_v2.build(folder, find_weights(), "keras")
    onnx = keras_to_onnx.KerasToOnnx().convert(source, folder, ConvertOptions(), None).model
    made = {
        "onnxruntime": onnx,
        "openvino": onnx_to_openvino.OnnxToOpenvino().convert(onnx, folder, ConvertOptions(), None).model,
        "litert": keras_to_tflite.KerasToTflite().convert(source, folder, ConvertOptions(), None).model,
    }
    for engine, path in made.items():
        for part in (path, path.with_suffix(".bin")):
            if part.exists():
                part.rename(folder / Path(FILES[engine]).with_suffix(part.suffix))


def with_tool(engine: str, model: Path, threads: int, runs: int) -> float:
    """Return the median in ms of the engine's own tool, or of the plain loop."""
    plain = [
        sys.executable,
        str(Path(__file__).with_name("plain_loop.py")),
        engine,
        str(model),
        str(threads),
        str(runs),
    ]
    # OpenVINO's adapter computes in float32, the model's precision; the tool must be set to it.
    options = f"-api sync -hint none -nstreams 1 -infer_precision f32 -nthreads {threads} -niter {runs}"
    tool = [str(Path(sys.executable).with_name("benchmark_app")), "-m", str(model), *options.split()]
    done = subprocess.run(tool if engine == "openvino" else plain, capture_output=True, text=True, check=True)
    if engine != "openvino":
        return float(done.stdout)
    found = re.search(r"Median:\s+([\d.]+) ms", done.stdout)
    assert found is not None, done.stdout
    return float(found.group(1))


def with_edge(engine: str, model: Path, threads: int, runs: int) -> float:
    """Return the median in ms of `edge bench`."""
    setup = Setup(
        id=engine,
        title=engine,
        artifact=model,
        runtime=engine,
        options={"threads": threads},
        protocol={"name": "published", "runs": runs},
    )
    values = next(measure_all([setup], rounds=1)).values
    assert values["status"] == "ok", values
    return median(values["samples_ms"])


def paired(engine: str, model: Path, args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Return the medians of both, measured alternately; the order alternates from pair to pair."""
    ours: list[float] = []
    theirs: list[float] = []
    both: list[tuple[Callable[..., float], list[float]]] = [(with_edge, ours), (with_tool, theirs)]
    for pair in range(args.pairs):
        for measure, found in both if pair % 2 == 0 else both[::-1]:
            found.append(measure(engine, model, args.threads, args.runs))
        print(f"{engine} {pair + 1}/{args.pairs}: {ours[-1]:.3f} against {theirs[-1]:.3f} ms", file=sys.stderr)
    return ours, theirs


def verdict(interval: Interval) -> str:
    """Return whether the claim holds, as far as the interval shows."""
    if interval.high - interval.low > 2 * WIDEST:
        return "too noisy"
    return "holds" if interval.overlaps(LOW, HIGH) else "FAILS"


def models(folder: Path) -> dict[str, Path]:
    """Return the models by engine; missing ones are created."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {engine: folder / name for engine, name in FILES.items()}
    if not all(path.is_file() for path in found.values()):
        subprocess.run([sys.executable, __file__, "--prepare", "--models", str(folder)], check=True)
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, help="folder for the models")
    parser.add_argument("--only", choices=tuple(FILES), help="only this engine")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=250)
    parser.add_argument("--pairs", type=int, default=11, help="at least 6")
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    args = arguments()
    if args.prepare:
        prepare(args.models)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        found = models(args.models or Path(temporary))
        engines = [args.only] if args.only else list(found)
        results = {engine: paired(engine, found[engine], args) for engine in engines}
    print(f"edge bench / own tool, {args.threads} threads, {args.pairs} pairs of {args.runs} runs, 95 % intervals")
    verdicts = []
    for engine, (ours, theirs) in results.items():
        interval = paired_ratio(ours, theirs)
        assert interval is not None, "at least 6 pairs"
        verdicts.append(verdict(interval))
        ratio = f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
        print(f"{engine:12} {median(ours):8.3f} / {median(theirs):8.3f} ms   {ratio}   {verdicts[-1]}")
    return 0 if set(verdicts) == {"holds"} else 1


if __name__ == "__main__":
    sys.exit(main())
