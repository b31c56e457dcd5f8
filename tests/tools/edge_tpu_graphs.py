"""Count what the models consist of whose latencies on an Edge TPU were published, from their papers' descriptions.

    python -m tests.tools.edge_tpu_graphs                count them, and write edge_tpu_graphs.csv
    python -m tests.tools.edge_tpu_graphs LATENCY.csv    write edge_tpu_latency.csv from the rows of such a file

LATENCY.csv has the columns device, processor, model, latency_ms and source. keras.applications has neither the first,
second and fourth Inception, nor SqueezeNet, nor EfficientNet-EdgeTPU, so all are described here, in a few lines each.

Left out:
  DenseNet               no source says which; from 121 to 201 layers, the parameters differ by 2.5 times
  Inception-ResNet V2    48 of its 56 MB would have to be sent in 57 ms, faster than USB 3 or PCIe Gen 2 ×1 are
  SSD, DeepLab, U-Net    parts of them run on the CPU, and the sources do not say which file was measured
"""

from __future__ import annotations

import csv
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tests.tools.estimation_tables import write_table

PUBLISHED = Path(__file__).parents[2] / "device_profiles" / "published"
GRAPH_KEYS = ("model", "family", "macs", "activations", "parameters", "input_bytes")
LATENCY_KEYS = ("link", "host", "model", "latency_ms", "rows", "source")


class Network:
    """A network under construction: the size of its current tensor, and the counts of all layers so far."""

    def __init__(self, size: int) -> None:
        self.input_bytes = size * size * 3
        self.size, self.channels = size, 3
        self.macs = self.activations = self.parameters = 0

    def conv(self, filters: int, kernel: int | tuple[int, int], stride: int = 1, *, valid: bool = False) -> Network:
        """Append a convolution: stride and padding are the same in both directions."""
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        self._resize(height, stride, valid)
        self._count(filters, height * width * self.channels, self.size**2)
        self.channels = filters
        return self

    def depthwise(self, kernel: int, stride: int = 1) -> Network:
        self._resize(kernel, stride, valid=False)
        self._count(self.channels, kernel * kernel, self.size**2)
        return self

    def dense(self, outputs: int) -> Network:
        self._count(outputs, self.size**2 * self.channels, 1)
        self.size, self.channels = 1, outputs
        return self

    def pool(self, kernel: int, stride: int, *, valid: bool = False) -> Network:
        self._resize(kernel, stride, valid)
        return self

    def classify(self, classes: int) -> Network:
        """Average over the picture, and append the last dense layer."""
        self.size = 1
        return self.dense(classes)

    def branches(self, *branches: Callable[[Network], Network | None]) -> Network:
        """Append branches that start from the same tensor; their outputs are joined by their channels."""
        size, channels, joined = self.size, self.channels, 0
        for branch in branches:
            self.size, self.channels = size, channels
            branch(self)
            joined += self.channels
        self.channels = joined
        return self

    def _resize(self, kernel: int, stride: int, valid: bool) -> None:
        self.size = (self.size - kernel) // stride + 1 if valid else -(-self.size // stride)

    def _count(self, filters: int, each: int, positions: int) -> None:
        self.macs += filters * each * positions
        self.activations += filters * positions
        self.parameters += filters * (each + 1)


def vgg(repeats: tuple[int, ...]) -> Network:
    """arXiv 1409.1556."""
    network = Network(224)
    for count, filters in zip(repeats, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            network.conv(filters, 3)
        network.pool(2, 2)
    return network.dense(4096).dense(4096).dense(1000)


def resnet(repeats: tuple[int, ...], size: int, version: int) -> Network:
    """arXiv 1512.03385 and 1603.05027: version 1 halves at the start of a group, version 2 at its end."""
    network = Network(size).conv(64, 7, 2).pool(3, 2)
    for group, (count, filters) in enumerate(zip(repeats, (64, 128, 256, 512), strict=True)):
        for number in range(count):
            halves = number == 0 and group > 0 if version == 1 else number == count - 1 and group < len(repeats) - 1
            _bottleneck(network, filters, stride=2 if halves else 1, shortcut=number == 0, first=version == 1)
    return network.classify(1000)


def _bottleneck(network: Network, filters: int, *, stride: int, shortcut: bool, first: bool) -> None:
    size, channels = network.size, network.channels
    if shortcut:
        network.conv(4 * filters, 1, stride)
    network.size, network.channels = size, channels
    network.conv(filters, 1, stride if first else 1).conv(filters, 3, 1 if first else stride).conv(4 * filters, 1)


def squeezenet() -> Network:
    """arXiv 1602.07360, version 1.0."""
    network = Network(224).conv(96, 7, 2).pool(3, 2)
    for place, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        network.conv(squeezed, 1)
        network.branches(lambda n, s=squeezed: n.conv(4 * s, 1), lambda n, s=squeezed: n.conv(4 * s, 3))
        if place in (2, 6):
            network.pool(3, 2)
    return network.conv(1000, 1)


def inception_v1() -> Network:
    """arXiv 1409.4842, as in TF-Slim: 3×3 instead of 5×5."""
    network = Network(224).conv(64, 7, 2).pool(3, 2).conv(64, 1).conv(192, 3).pool(3, 2)
    blocks = [
        *((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (192, 96, 208, 16, 48, 64)),
        *((160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64)),
        *((256, 160, 320, 32, 128, 128), (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
    ]
    for place, (a, b, c, d, e, f) in enumerate(blocks):
        if place in (2, 7):
            network.pool(3, 2)
        network.branches(
            lambda n, a=a: n.conv(a, 1),
            lambda n, b=b, c=c: n.conv(b, 1).conv(c, 3),
            lambda n, d=d, e=e: n.conv(d, 1).conv(e, 3),
            lambda n, f=f: n.conv(f, 1),
        )
    return network.classify(1001)


def inception_v2() -> Network:
    """arXiv 1502.03167, as in TF-Slim: the first layer is separable."""
    network = Network(224)
    network.depthwise(7, 2)  # with 8 filters for each channel
    network.macs, network.activations = 8 * network.macs, 8 * network.activations
    network.parameters, network.channels = 8 * network.parameters, 24
    network.conv(64, 1).pool(3, 2).conv(64, 1).conv(192, 3).pool(3, 2)
    blocks = [
        *((64, 64, 64, 64, 96, 32), (64, 64, 96, 64, 96, 64), (0, 128, 160, 64, 96, 0)),
        *((224, 64, 96, 96, 128, 128), (192, 96, 128, 96, 128, 128), (160, 128, 160, 128, 160, 96)),
        *((96, 128, 192, 160, 192, 96), (0, 128, 192, 192, 256, 0)),
        *((352, 192, 320, 160, 224, 128), (352, 192, 320, 192, 224, 128)),
    ]
    for a, b, c, d, e, f in blocks:
        if a:
            network.branches(
                lambda n, a=a: n.conv(a, 1),
                lambda n, b=b, c=c: n.conv(b, 1).conv(c, 3),
                lambda n, d=d, e=e: n.conv(d, 1).conv(e, 3).conv(e, 3),
                lambda n, f=f: n.conv(f, 1),
            )
        else:
            network.branches(
                lambda n, b=b, c=c: n.conv(b, 1).conv(c, 3, 2),
                lambda n, d=d, e=e: n.conv(d, 1).conv(e, 3).conv(e, 3, 2),
                lambda n: n.pool(3, 2),
            )
    return network.classify(1001)


def inception_v3() -> Network:
    """arXiv 1512.00567."""
    network = Network(299).conv(32, 3, 2, valid=True).conv(32, 3, valid=True).conv(64, 3).pool(3, 2, valid=True)
    network.conv(80, 1).conv(192, 3, valid=True).pool(3, 2, valid=True)
    for pooled in (32, 64, 64):
        network.branches(
            lambda n: n.conv(64, 1),
            lambda n: n.conv(48, 1).conv(64, 5),
            lambda n: n.conv(64, 1).conv(96, 3).conv(96, 3),
            lambda n, p=pooled: n.conv(p, 1),
        )
    network.branches(
        lambda n: n.conv(384, 3, 2, valid=True),
        lambda n: n.conv(64, 1).conv(96, 3).conv(96, 3, 2, valid=True),
        lambda n: n.pool(3, 2, valid=True),
    )
    for width in (128, 160, 160, 192):
        network.branches(
            lambda n: n.conv(192, 1),
            lambda n, w=width: n.conv(w, 1).conv(w, (1, 7)).conv(192, (7, 1)),
            lambda n, w=width: n.conv(w, 1).conv(w, (7, 1)).conv(w, (1, 7)).conv(w, (7, 1)).conv(192, (1, 7)),
            lambda n: n.conv(192, 1),
        )
    network.branches(
        lambda n: n.conv(192, 1).conv(320, 3, 2, valid=True),
        lambda n: n.conv(192, 1).conv(192, (1, 7)).conv(192, (7, 1)).conv(192, 3, 2, valid=True),
        lambda n: n.pool(3, 2, valid=True),
    )
    for _ in range(2):
        network.branches(
            lambda n: n.conv(320, 1),
            lambda n: _cross(n.conv(384, 1), 384),
            lambda n: _cross(n.conv(448, 1).conv(384, 3), 384),
            lambda n: n.conv(192, 1),
        )
    return network.classify(1001)


def _cross(network: Network, filters: int) -> Network:
    """Append a 1×3 and a 3×1 convolution side by side."""
    return network.branches(lambda n: n.conv(filters, (1, 3)), lambda n: n.conv(filters, (3, 1)))


def inception_v4() -> Network:
    """arXiv 1602.07261."""
    network = Network(299).conv(32, 3, 2, valid=True).conv(32, 3, valid=True).conv(64, 3)
    network.branches(lambda n: n.pool(3, 2, valid=True), lambda n: n.conv(96, 3, 2, valid=True))
    network.branches(
        lambda n: n.conv(64, 1).conv(96, 3, valid=True),
        lambda n: n.conv(64, 1).conv(64, (1, 7)).conv(64, (7, 1)).conv(96, 3, valid=True),
    )
    network.branches(lambda n: n.conv(192, 3, 2, valid=True), lambda n: n.pool(3, 2, valid=True))
    for _ in range(4):
        network.branches(
            lambda n: n.conv(96, 1),
            lambda n: n.conv(64, 1).conv(96, 3),
            lambda n: n.conv(64, 1).conv(96, 3).conv(96, 3),
            lambda n: n.conv(96, 1),
        )
    network.branches(
        lambda n: n.conv(384, 3, 2, valid=True),
        lambda n: n.conv(192, 1).conv(224, 3).conv(256, 3, 2, valid=True),
        lambda n: n.pool(3, 2, valid=True),
    )
    for _ in range(7):
        network.branches(
            lambda n: n.conv(384, 1),
            lambda n: n.conv(192, 1).conv(224, (1, 7)).conv(256, (7, 1)),
            lambda n: n.conv(192, 1).conv(192, (7, 1)).conv(224, (1, 7)).conv(224, (7, 1)).conv(256, (1, 7)),
            lambda n: n.conv(128, 1),
        )
    network.branches(
        lambda n: n.conv(192, 1).conv(192, 3, 2, valid=True),
        lambda n: n.conv(256, 1).conv(256, (1, 7)).conv(320, (7, 1)).conv(320, 3, 2, valid=True),
        lambda n: n.pool(3, 2, valid=True),
    )
    for _ in range(3):
        network.branches(
            lambda n: n.conv(256, 1),
            lambda n: _cross(n.conv(384, 1), 256),
            lambda n: _cross(n.conv(384, 1).conv(448, (3, 1)).conv(512, (1, 3)), 256),
            lambda n: n.conv(256, 1),
        )
    return network.classify(1001)


def mobilenet_v1(width: float, size: int) -> Network:
    """arXiv 1704.04861."""
    network = Network(size).conv(int(32 * width), 3, 2)
    for filters, stride in [
        *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
        *[(512, 1)] * 5,
        *((1024, 2), (1024, 1)),
    ]:
        network.depthwise(3, stride).conv(int(filters * width), 1)
    return network.classify(1001)


def mobilenet_v2() -> Network:
    """arXiv 1801.04381."""
    network = Network(224).conv(32, 3, 2)
    for expand, filters, count, stride in [
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ]:
        for number in range(count):
            if expand > 1:
                network.conv(network.channels * expand, 1)
            network.depthwise(3, stride if number == 0 else 1).conv(filters, 1)
    return network.conv(1280, 1).classify(1001)


def efficientnet_edgetpu(width: float, depth: float, size: int) -> Network:
    """github.com/tensorflow/tpu, models/official/efficientnet/edgetpu: three groups have full convolutions."""

    def rounded(filters: int) -> int:
        wanted = filters * width
        found = max(8, int(wanted + 4) // 8 * 8)
        return found + 8 if found < 0.9 * wanted else found

    network = Network(size).conv(rounded(32), 3, 2)
    for place, (count, kernel, stride, expand, filters) in enumerate(
        [(1, 3, 1, 4, 24), (2, 3, 2, 8, 32), (4, 3, 2, 8, 48), (5, 5, 2, 8, 96), (4, 5, 1, 8, 144), (2, 5, 2, 8, 192)]
    ):
        for number in range(math.ceil(depth * count)):
            step = stride if number == 0 else 1
            inner = network.channels * expand
            if place < 3:
                network.conv(inner, kernel, step)
            else:
                network.conv(inner, 1).depthwise(kernel, step)
            network.conv(rounded(filters), 1)
    return network.conv(rounded(1280), 1).classify(1001)


NETWORKS: dict[str, tuple[str, Callable[[], Network]]] = {
    "mobilenet-v1-0.25-128": ("mobilenet-v1", lambda: mobilenet_v1(0.25, 128)),
    "mobilenet-v1-1.0-224": ("mobilenet-v1", lambda: mobilenet_v1(1.0, 224)),
    "mobilenet-v2-1.0-224": ("mobilenet-v2", mobilenet_v2),
    "inception-v1": ("inception", inception_v1),
    "inception-v2": ("inception", inception_v2),
    "inception-v3": ("inception", inception_v3),
    "inception-v4": ("inception", inception_v4),
    "resnet-50-v1-299": ("resnet", lambda: resnet((3, 4, 6, 3), 299, 1)),
    "resnet-50-v2-299": ("resnet", lambda: resnet((3, 4, 6, 3), 299, 2)),
    "resnet-152-v2-299": ("resnet", lambda: resnet((3, 8, 36, 3), 299, 2)),
    "squeezenet-1.0": ("squeezenet", squeezenet),
    "vgg16": ("vgg", lambda: vgg((2, 2, 3, 3, 3))),
    "vgg19": ("vgg", lambda: vgg((2, 2, 4, 4, 4))),
    "efficientnet-edgetpu-s": ("efficientnet-edgetpu", lambda: efficientnet_edgetpu(1.0, 1.0, 224)),
    "efficientnet-edgetpu-m": ("efficientnet-edgetpu", lambda: efficientnet_edgetpu(1.0, 1.1, 240)),
    "efficientnet-edgetpu-l": ("efficientnet-edgetpu", lambda: efficientnet_edgetpu(1.2, 1.4, 300)),
}
# How the sources name them, without spaces, hyphens, underscores and capitals.
NAMES = {
    **dict.fromkeys(("mobilenetv1", "mobilenetv11.0", "mobilenetv11.0224"), "mobilenet-v1-1.0-224"),
    **dict.fromkeys(("mobilenetv2", "mobilenetv21.0", "mobilenetv21.0224"), "mobilenet-v2-1.0-224"),
    **dict.fromkeys(("inceptionv1", "inceptionv1224"), "inception-v1"),
    **dict.fromkeys(("inceptionv4", "inceptionv4299"), "inception-v4"),
    "mobilenetv10.25": "mobilenet-v1-0.25-128",
    "inceptionv2": "inception-v2",
    "inceptionv3": "inception-v3",
    "resnet50v1": "resnet-50-v1-299",
    "resnet50v2": "resnet-50-v2-299",
    "resnet152v2": "resnet-152-v2-299",
    "squeezenet": "squeezenet-1.0",
    "vgg16": "vgg16",
    "vgg19": "vgg19",
    **{f"efficientnetedgetpu{size}": f"efficientnet-edgetpu-{size}" for size in "sml"},
}
# Who holds the Edge TPU, and by what: (part of the device's name, link, host). The first that fits counts.
HOSTS = [
    *(("Pixel", "", ""), ("3B+/4", "", ""), ("Dev Board", "pcie", "coral-dev-board")),
    *(("Pi 3B", "usb2", "raspberry-pi-3b-plus"), ("Pi 4", "usb3", "raspberry-pi-4")),
    *(("Nano", "usb3", "jetson-nano"), ("", "usb3", "desktop")),
]


def write_graphs() -> None:
    rows = []
    for name, (family, build) in NETWORKS.items():
        network = build()
        counts = (network.macs, network.activations, network.parameters, network.input_bytes)
        rows.append(dict(zip(GRAPH_KEYS, (name, family, *counts), strict=True)))
    write_table(PUBLISHED / "edge_tpu_graphs.csv", GRAPH_KEYS, rows)


def write_latency(source: Path) -> None:
    """Write the median of all sources for each host and model."""
    found: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    with source.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if "tpu" not in row["processor"].lower():
                continue
            link, host = next((link, host) for part, link, host in HOSTS if part in row["device"])
            model = NAMES.get(re.sub(r"[ _-]", "", row["model"].lower()))
            if link and model:
                found[link, host, model].append(row)
    written = []
    for key, rows in sorted(found.items()):
        value = median(float(row["latency_ms"]) for row in rows)
        sources = " ".join(dict.fromkeys(row["source"] for row in rows))
        written.append(dict(zip(LATENCY_KEYS, (*key, f"{value:.4g}", len(rows), sources), strict=True)))
    write_table(PUBLISHED / "edge_tpu_latency.csv", LATENCY_KEYS, written)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_latency(Path(sys.argv[1]))
    else:
        write_graphs()
