"""Train a detector, a U-Net, a key-point network and an LSTM on synthetic data, and write them as ONNX.

`python -m tests.benchmarks.synthetic_networks FOLDER [NAME...]` writes the networks in two minutes on one core: 22 to
35 thousand weights each, the LSTM 6,500. They train on one thread with a fixed seed: the same machine gives the same
bits again. The layout of the detector's output and its metadata are those of ultralytics' exports; none of their code
is used.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.benchmarks.synthetic_data import KITE_POINTS, SAMPLES, SHAPES, SIDE, WAVES, Picture, pictures, sounds

_STRIDES = (8, 16)
_REACH = 0.4  # from the center of a cell to the sides of its box at most, as a share of the input
_OPSET = 17
N = TypeVar("N", bound=nn.Module)
_TRAINED_ON, _SEED = 1000, 1  # examples; those of other seeds are for calibration and evaluation


def _block(given: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(given, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


def _two(given: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_block(given, out, stride), _block(out, out))


class Detector(nn.Module):
    """A detector with two grids: [n, 3, 64, 64] → [n, 4 + classes + 2 × points, cells], as YOLO v8 and later.

    Boxes are center and size, points are x and y, both as shares of the input, so that one scale of int8 fits them and
    the probabilities of the classes.
    """

    def __init__(self, classes: int, points: int = 0) -> None:
        super().__init__()
        self.classes, self.points = classes, points
        self.body = nn.Sequential(_block(3, 12, 2), _block(12, 24, 2), _block(24, 32), _block(32, 32, 2))
        self.deeper = _block(32, 32, 2)
        self.heads = nn.ModuleList(
            nn.Sequential(_block(32, 24), nn.Conv2d(24, 4 + classes + 2 * points, 1)) for _ in _STRIDES
        )
        for head in self.heads:
            nn.init.constant_(head[1].bias[4 : 4 + classes], -4.0)
        for stride in _STRIDES:
            self.register_buffer(f"centers{stride}", _centers(stride) / SIDE)

    def raw(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return corners [n, 4, cells] and points [n, 2 × points, cells] as shares, and logits [n, classes, cells]."""
        fine = self.body(pixels)
        corners, logits, points = [], [], []
        for stride, head, features in zip(_STRIDES, self.heads, (fine, self.deeper(fine)), strict=True):
            cells = (SIDE // stride) ** 2
            found = head(features).reshape(-1, 4 + self.classes + 2 * self.points, cells)
            center = getattr(self, f"centers{stride}")
            reach = found[:, :4].sigmoid() * _REACH
            corners.append(torch.cat([center - reach[:, :2], center + reach[:, 2:]], 1))
            logits.append(found[:, 4 : 4 + self.classes])
            points.append(center.repeat(1, self.points, 1) + found[:, 4 + self.classes :].tanh() * _REACH)
        return torch.cat(corners, 2), torch.cat(logits, 2), torch.cat(points, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return boxes, probabilities and points."""
        corners, logits, points = self.raw(pixels)
        low, high = corners[:, :2], corners[:, 2:]
        rows = [(low + high) / 2, high - low, logits.sigmoid()]
        return torch.cat([*rows, points] if self.points else rows, 1)


def _centers(stride: int) -> Tensor:
    steps = (torch.arange(SIDE // stride) + 0.5) * stride
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([columns.reshape(-1), rows.reshape(-1)])[None]


class UNet(nn.Module):
    """A segmenter: [n, 3, 64, 64] → logits [n, classes, 64, 64]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.second, self.third = _two(3, 8), _two(8, 16, 2), _two(16, 32, 2)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.back, self.last = _two(32 + 16, 16), _two(16 + 8, 8)
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits."""
        first = self.first(pixels)
        second = self.second(first)
        back = self.back(torch.cat([self.up(self.third(second)), second], 1))
        logits: Tensor = self.head(self.last(torch.cat([self.up(back), first], 1)))
        return logits


class WaveLstm(nn.Module):
    """A classifier of sounds: [n, 64] → probabilities [n, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.windows = nn.Conv1d(1, 16, 5, 2, 2)
        self.memory = nn.LSTM(16, 32, batch_first=True)
        self.head = nn.Linear(32, classes)

    def logits(self, samples: Tensor) -> Tensor:
        """Return logits."""
        features = functional.relu(self.windows(samples[:, None])).transpose(1, 2)
        found: Tensor = self.head(self.memory(features)[0][:, -1])
        return found

    def forward(self, samples: Tensor) -> Tensor:
        """Return probabilities."""
        return self.logits(samples).softmax(1)


def train_detector(*, kites: bool = False, steps: int = 500) -> Detector:
    """Train a detector of shapes, or of kites with the points of their corners."""
    network = Detector(1, KITE_POINTS) if kites else Detector(len(SHAPES))
    made = pictures(_TRAINED_ON, _SEED, kites=kites)
    pixels = _pixels(made)

    def loss(rows: np.ndarray) -> Tensor:
        return _detection_loss(network, pixels[rows], [made[row] for row in rows])

    return _trained(network, loss, steps, 24, 4e-3)


def _detection_loss(network: Detector, pixels: Tensor, labeled: list[Picture]) -> Tensor:
    """Return the focal loss of the classes, 1 − IoU of the boxes, and the distance of the points."""
    corners, logits, points = network.raw(pixels)
    wanted, boxed, pointed = torch.zeros_like(logits), torch.zeros_like(corners), torch.zeros_like(points)
    near = torch.cat([torch.full(((SIDE // stride) ** 2,), stride * 1.1) for stride in _STRIDES])
    centers = torch.cat([_centers(stride)[0] for stride in _STRIDES], 1)
    for row, one in enumerate(labeled):
        for kind, box, corner in zip(one.classes, torch.tensor(one.boxes).float(), one.points, strict=True):
            inside = ((centers > box[:2, None]) & (centers < box[2:, None])).all(0)
            cells = inside & ((centers - (box[:2] + box[2:])[:, None] / 2).norm(dim=0) <= near)
            wanted[row, kind, cells] = 1
            boxed[row, :, cells] = box[:, None] / SIDE
            if network.points:
                pointed[row, :, cells] = torch.tensor(corner).float().reshape(-1, 1) / SIDE
    positive = wanted.amax(1) > 0
    count = positive.sum().clamp(min=1)
    share = logits.sigmoid()
    weights = (wanted - share).abs() ** 2
    focal = (weights * functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum() / count
    found, true = corners.transpose(1, 2)[positive], boxed.transpose(1, 2)[positive]
    total = focal + 2 * (1 - _overlap(found, true)).mean()
    if network.points:
        total = total + (points - pointed).abs().transpose(1, 2)[positive].mean() * SIDE / 4
    return total


def _overlap(one: Tensor, other: Tensor) -> Tensor:
    shared = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0).prod(1)
    return shared / ((one[:, 2:] - one[:, :2]).prod(1) + (other[:, 2:] - other[:, :2]).prod(1) - shared)


def train_segmenter(steps: int = 300) -> UNet:
    """Train the U-Net."""
    network, made = UNet(len(SHAPES) + 1), pictures(_TRAINED_ON, _SEED)
    pixels, masks = _pixels(made), torch.tensor(np.stack([one.mask for one in made])).long()
    weights = torch.tensor([0.3, *[1.0] * len(SHAPES)])

    def loss(rows: np.ndarray) -> Tensor:
        return functional.cross_entropy(network(pixels[rows]), masks[rows], weights)

    return _trained(network, loss, steps, 16, 5e-3)


def train_lstm(steps: int = 400) -> WaveLstm:
    """Train the classifier of sounds."""
    network = WaveLstm(len(WAVES))
    made, classes = (torch.tensor(one) for one in sounds(4 * _TRAINED_ON, _SEED))

    def loss(rows: np.ndarray) -> Tensor:
        return functional.cross_entropy(network.logits(made[rows]), classes[rows])

    return _trained(network, loss, steps, 64, 5e-3)


def _trained(network: N, loss: Callable[[np.ndarray], Tensor], steps: int, batch: int, rate: float) -> N:
    generator = np.random.default_rng(_SEED)
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(generator.integers(0, _TRAINED_ON, batch)).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _pixels(made: list[Picture]) -> Tensor:
    return torch.tensor(np.stack([one.pixels for one in made])).permute(0, 3, 1, 2).float() / 255


def write_onnx(network: nn.Module, place: Path, sample: Tensor, properties: dict[str, str]) -> None:
    """Write a network as ONNX with the properties of its author."""
    import onnx

    torch.onnx.export(
        network,
        (sample,),
        place,
        input_names=["images" if sample.ndim == 4 else "samples"],
        output_names=["output0"],
        opset_version=_OPSET,
        dynamo=False,
    )
    model = onnx.load(place)
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, place)


def write_networks(folder: Path, chosen: Sequence[str] = ()) -> None:
    """Train networks and write detector.onnx, segmenter.onnx, keypoints.onnx and lstm.onnx, or those that are named."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    picture, sound = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, SAMPLES)
    names = {"stride": "16", "names": repr(dict(enumerate(SHAPES))), "task": "detect"}
    kites = {"stride": "16", "names": "{0: 'kite'}", "task": "pose", "kpt_shape": f"[{KITE_POINTS}, 2]"}
    for name, train, sample, properties in (
        ("detector", train_detector, picture, names),
        ("segmenter", train_segmenter, picture, {}),
        ("keypoints", lambda: train_detector(kites=True), picture, kites),
        ("lstm", train_lstm, sound, {}),
    ):
        if chosen and name not in chosen:
            continue
        torch.manual_seed(_SEED)
        write_onnx(train(), folder / f"{name}.onnx", sample, properties)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="write only these networks, such as lstm")
    args = parser.parse_args()
    write_networks(args.folder, args.names)
