"""Write the tables of `edge estimate`: what published models consist of, and how fast they ran.

    python -m tests.tools.estimation_tables graphs                  keras.applications, and EfficientNet-lite
    python -m tests.tools.estimation_tables latency LATENCY.csv     the rows of MLPerf submissions in such a file

LATENCY.csv has the columns device, processor, model, precision, runtime, runtime_version, latency_ms, p50_ms,
energy_mj, kind, source and note; `note` begins with the submitter and the system. Only facts are kept: what ran where,
how long it took, and the folder of the submission in github.com/mlcommons.
"""

import csv
import math
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

PUBLISHED = Path(__file__).parents[2] / "device_profiles" / "published"
DEVICES = {
    "Raspberry Pi 4": "raspberry-pi-4",
    "Raspberry Pi 3": "raspberry-pi-3",
    "Jetson AGX Orin": "jetson-agx-orin",
    "Jetson AGX Xavier": "jetson-agx-xavier",
    "Firefly board": "firefly-rk3399",
    "HiKey 960 (Kirin 960)": "hikey-960",
    "MacBook Pro (M1)": "macbook-pro-m1",
    "Huawei Mate 10 Pro (Kirin 970)": "mate-10-pro",
}
ENGINES = {"tflite": "litert", "armnn": "armnn"}
FEWEST = 10  # models of a group, below which nothing can be fitted
FACTS = ("conv_macs", "pointwise_macs", "depthwise_macs", "dense_macs", "activations", "parameters", "layers")


def facts_of(model: Any) -> dict[str, int]:
    """Return the counts of a Keras model, by the definitions of `edge.estimation.graph_facts`."""
    from keras import layers

    found = dict.fromkeys(FACTS, 0)
    for layer in model.layers:
        if not isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)):
            continue
        sizes = [size or 1 for size in layer.output.shape][1:]
        outputs = math.prod(sizes)
        if isinstance(layer, layers.Dense):
            found["dense_macs"] += outputs * layer.input.shape[-1]
        elif isinstance(layer, layers.DepthwiseConv2D):
            found["depthwise_macs"] += outputs * math.prod(layer.kernel_size)
        else:
            kernel, channels = math.prod(layer.kernel_size), layer.input.shape[-1] // layer.groups
            kind = "conv" if kernel > 1 or layer.groups > 1 else "dense" if math.prod(sizes[:-1]) == 1 else "pointwise"
            found[f"{kind}_macs"] += outputs * kernel * channels
        found["activations"] += outputs
        found["layers"] += 1
        found["parameters"] += sum(math.prod(weights.shape) for weights in layer.weights)
    return found


def efficientnet_lite(width: float, depth: float, size: int) -> Any:
    """Build an EfficientNet-lite: github.com/tensorflow/tpu, models/official/efficientnet/lite."""
    import keras
    from keras import layers

    def rounded(filters: float) -> int:
        wanted = filters * width
        found = max(8, int(wanted + 4) // 8 * 8)
        return found + 8 if found < 0.9 * wanted else found

    blocks = [
        *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112)),
        *((4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
    ]
    start = keras.Input((size, size, 3))
    x, channels = layers.Conv2D(32, 3, 2, "same")(start), 32
    for place, (count, kernel, stride, expand, filters) in enumerate(blocks):
        for number in range(count if place in (0, len(blocks) - 1) else math.ceil(depth * count)):
            x = layers.Conv2D(channels * expand, 1)(x) if expand > 1 else x
            x = layers.DepthwiseConv2D(kernel, stride if number == 0 else 1, "same")(x)
            channels = rounded(filters)
            x = layers.Conv2D(channels, 1)(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(1280, 1)(x))
    return keras.Model(start, layers.Dense(1000)(x))


def models() -> Any:
    """Yield the id, the family and the Keras model of each published graph."""
    import keras

    known, plain = keras.applications, {"weights": None, "classes": 1001}
    for alpha in (0.25, 0.5, 0.75, 1.0):
        for size in (128, 160, 192, 224):
            model = known.MobileNet(input_shape=(size, size, 3), alpha=alpha, **plain)
            yield f"mobilenet-v1-{alpha}-{size}", "mobilenet-v1", model
    sizes = [(alpha, size) for alpha in (0.35, 0.5, 0.75, 1.0) for size in (96, 128, 160, 192, 224)]
    for alpha, size in [*sizes, (1.3, 224), (1.4, 224)]:
        model = known.MobileNetV2(input_shape=(size, size, 3), alpha=alpha, **plain)
        yield f"mobilenet-v2-{alpha}-{size}", "mobilenet-v2", model
    for name, make in (("large", known.MobileNetV3Large), ("small", known.MobileNetV3Small)):
        for words, more in (("1.0", {}), ("0.75", {"alpha": 0.75}), ("minimalistic-1.0", {"minimalistic": True})):
            model = make(input_shape=(224, 224, 3), **more, **plain)
            yield f"mobilenet-v3-{name}-{words}-224", "mobilenet-v3", model
    for number, (width, depth, size) in enumerate(
        [(1, 1, 224), (1, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 280), (1.4, 1.8, 300)]
    ):
        yield f"efficientnet-lite{number}", "efficientnet-lite", efficientnet_lite(width, depth, size)
    yield "resnet-50", "resnet", known.ResNet50(weights=None)


def write_graphs() -> None:
    rows = [{"model": name, "family": family, **facts_of(model)} for name, family, model in models()]
    write_table(PUBLISHED / "graphs.csv", ("model", "family", *FACTS), rows)


def model_id(name: str) -> str | None:
    """Return the id in graphs.csv of a model as MLPerf submitters name it."""
    plain = re.sub(r"-(non-quantized|quantized)$|-precision_(float|uint8)|_(float|uint8)$", "", name)
    if found := re.fullmatch(r"mobilenet-v[12]-[\d.]+-\d+", plain):
        return found.group()
    if found := re.fullmatch(r"mobilenet-v3-(large|small)(-minimalistic)?_224_([\d.]+)", plain):
        return f"mobilenet-v3-{found[1]}{found[2] or ''}-{found[3]}-224"
    if found := re.fullmatch(r"mobilenet-v3-(large|small)(-minimalistic)?-224", plain):
        return f"mobilenet-v3-{found[1]}{found[2] or ''}-1.0-224"
    if re.fullmatch(r"efficientnet-lite\d", plain):
        return plain
    return "resnet-50" if plain in ("resnet50", "ResNet-50") else None


def write_latency(source: Path) -> None:
    groups: dict[tuple[str, ...], dict[str, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    with source.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            device, name = DEVICES.get(row["device"]), model_id(row["model"])
            if not device or not name or row["runtime"] not in ENGINES or not row["kind"].startswith("MLPerf"):
                continue
            submitter, system = row["note"].split(";")[0].split(" ", 1)
            edition = re.search(r"inference_results_v[\d.]+", row["source"])
            key = (
                *(device, row["processor"].lower(), ENGINES[row["runtime"]], row["runtime_version"], row["precision"]),
                *(submitter, system.strip(), edition.group() if edition else ""),
            )
            groups[key][name].append(row)
    keys = ("device", "processor", "engine", "engine_version", "precision", "submitter", "system", "edition")
    written = []
    for key, found in sorted(groups.items()):
        if len(found) < FEWEST:
            continue
        for name, rows in sorted(found.items()):
            times = [float(row["p50_ms"] or row["latency_ms"]) for row in rows]
            energies = [float(row["energy_mj"]) for row in rows if row["energy_mj"]]
            energy = f"{median(energies):.5g}" if energies else ""
            values = dict(zip(keys, key, strict=True))
            written.append({**values, "model": name, "latency_ms": f"{median(times):.5g}", "energy_mj": energy})
    write_table(PUBLISHED / "latency.csv", (*keys, "model", "latency_ms", "energy_mj"), written)


def write_table(path: Path, keys: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Write a CSV, and print how many rows it has."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{path.name}: {len(rows)} rows")


if __name__ == "__main__":
    if sys.argv[1:2] == ["graphs"]:
        write_graphs()
    else:
        write_latency(Path(sys.argv[2]))
