"""Create a network of each classification family with seeded random weights, its inputs, and its own outputs.

`python networks.py LIBRARY NAME FOLDER` writes into FOLDER the model, `calibration.npz`, `fresh.npz`, `expected.npz`
(the library's own outputs for `fresh.npz`) and `network.json`, which names the model and its layers or operators.

torchvision depends on CUDA libraries that a CPU torch does not have: install it outside the project's environment, with
`pip install --no-deps --target FOLDER torchvision==0.28.0`, and set BREADTH_SITE to that folder.

The weights are random, see `data_dependent_init.py`. `keras_families` and `torchvision_families` list what the
installed libraries contain; a test compares the networks here with them.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from data_dependent_init import initialize_keras, initialize_torch

KERAS = {  # name: (pixels per side, factor of pixels in 0…1)
    "MobileNet": (128, 1),
    "MobileNetV2": (96, 1),
    "MobileNetV3Small": (96, 255),
    "EfficientNetB0": (96, 255),
    "EfficientNetV2B0": (96, 255),
    "ResNet50": (96, 1),
    "ResNet50V2": (96, 1),
    "DenseNet121": (96, 1),
    "NASNetMobile": (96, 1),
    "Xception": (96, 1),
    "InceptionV3": (96, 1),
    "InceptionResNetV2": (96, 1),
    "ConvNeXtTiny": (96, 255),
    "VGG16": (64, 1),
    "VGG19": (64, 1),
}
TORCHVISION = {  # name: pixels per side
    "mobilenet_v2": 96,
    "mobilenet_v3_small": 96,
    "resnet18": 96,
    "resnext50_32x4d": 96,
    "wide_resnet50_2": 96,
    "squeezenet1_1": 96,
    "shufflenet_v2_x0_5": 96,
    "mnasnet0_5": 96,
    "efficientnet_b0": 96,
    "efficientnet_v2_s": 96,
    "regnet_y_400mf": 96,
    "densenet121": 96,
    "googlenet": 96,
    "inception_v3": 128,
    "alexnet": 96,
    "vgg11": 64,
    "convnext_tiny": 96,
    "vit_b_16": 64,
    "swin_t": 96,
    "swin_v2_t": 96,
    "maxvit_t": 224,
}
_SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_SIGHT = {"image_size": 96, "num_labels": 10}
_DIST = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {  # configuration: (model, changes to its defaults)
    "ViTConfig": ("ViTForImageClassification", {**_SMALL, **_SIGHT}),
    "DeiTConfig": ("DeiTForImageClassification", {**_SMALL, **_SIGHT}),
    "BeitConfig": ("BeitForImageClassification", {**_SMALL, **_SIGHT}),
    "ConvNextConfig": ("ConvNextForImageClassification", {**_SIGHT}),
    "MobileViTConfig": ("MobileViTForImageClassification", {**_SIGHT}),
    "ResNetConfig": ("ResNetForImageClassification", {"num_labels": 10}),
    "BertConfig": ("BertForSequenceClassification", {**_SMALL, "vocab_size": 1000}),
    "RobertaConfig": ("RobertaForSequenceClassification", {**_SMALL, "vocab_size": 1000}),
    "DistilBertConfig": ("DistilBertForSequenceClassification", {**_DIST, "vocab_size": 1000}),
    "ElectraConfig": ("ElectraForSequenceClassification", {**_SMALL, "vocab_size": 1000}),
}
FAMILIES: dict[str, list[str]] = {
    "keras": list(KERAS),
    "torchvision": list(TORCHVISION),
    "transformers": list(TRANSFORMERS),
}
CALIBRATION, FRESH = 20, 4


def pictures(count: int, side: int, seed: int) -> np.ndarray:
    """Return noisy patches of color, float32 [count, side, side, 3], -1 to 1, closer to pictures than noise."""
    generator = np.random.default_rng(seed)
    cells = generator.uniform(-0.5, 0.5, (count, 4, 4, 3)) + generator.uniform(-0.5, 0.5, (count, 1, 1, 3))
    patches = cells.repeat(-(-side // 4), 1).repeat(-(-side // 4), 2)[:, :side, :side]
    noise = generator.normal(0, 0.2, patches.shape)
    return np.clip(patches + noise, -1, 1).astype(np.float32)


def make_keras(name: str, folder: Path) -> tuple[str, set[str]]:
    """Write a `.keras` file; return it and its layers."""
    import keras

    side, scale = KERAS[name]
    keras.utils.set_random_seed(0)
    way: dict[str, Any] = {"weights": None, "input_shape": (side, side, 3), "classes": 10}
    model = getattr(keras.applications, name)(**way)
    batches = [(pictures(n, side, seed) + (scale > 1)) * (scale / 2 if scale > 1 else 1) for n, seed in _counts()]
    initialize_keras(model, batches[0])
    expected = np.stack([np.asarray(model(one[None], training=False)) for one in batches[1]])
    model.save(folder / "model.keras")
    _write(folder, {model.inputs[0].name: batches[0][:, None]}, {model.inputs[0].name: batches[1][:, None]}, [expected])
    return "model.keras", {type(layer).__name__ for layer in model._flatten_layers()}


def torchvision() -> Any:
    """Import torchvision next to a torch without CUDA."""
    import torch

    sys.path.append(os.environ["BREADTH_SITE"])
    operators = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):  # the CUDA build cannot define them here, but the import requires them
        operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


def keras_families() -> dict[str, set[str]]:
    """Return {file of `keras.applications`: the networks that it defines}."""
    import keras

    found: dict[str, set[str]] = {}
    for name, make in vars(keras.applications).items():
        if name[0].isupper() and callable(make):
            found.setdefault(make.__module__, set()).add(name)
    return found


def torchvision_families() -> dict[str, dict[str, int]]:
    """Return {file of `torchvision.models`: {classification network: its parameters, by its trained weights}}."""
    models = torchvision().models
    found: dict[str, dict[str, int]] = {}
    for name in models.list_models(module=models):
        parameters = models.get_model_weights(name).DEFAULT.meta["num_params"]
        found.setdefault(models.get_model_builder(name).__module__, {})[name] = parameters
    return found


def make_torchvision(name: str, folder: Path) -> tuple[str, set[str]]:
    """Write a `.pt2` exported program; return it and its operators, such as `conv2d`."""
    import torch

    models = torchvision().models
    torch.manual_seed(0)
    way: dict[str, Any] = {"weights": None, "num_classes": 10}
    if name in ("googlenet", "inception_v3"):
        way.update(aux_logits=False, init_weights=True)
    if name.startswith("vit"):
        way["image_size"] = TORCHVISION[name]
    model = getattr(models, name)(**way).eval()
    shown, fresh = (_turned(pictures(n, TORCHVISION[name], seed)) for n, seed in _counts())
    initialize_torch(model, torch.from_numpy(shown[:, 0]))
    with torch.no_grad():
        expected = np.stack([model(torch.from_numpy(one)).numpy() for one in fresh])
        program = torch.export.export(model, (torch.from_numpy(fresh[0]),))
    torch.export.save(program, folder / "model.pt2")
    feed = program.graph_signature.user_inputs[0]
    _write(folder, {feed: shown}, {feed: fresh}, [expected])
    called = (node.target for node in program.graph.nodes if node.op == "call_function")
    return "model.pt2", {str(target).split(".")[1] for target in called if "." in str(target)}


def make_transformers(name: str, folder: Path) -> tuple[str, set[str]]:
    """Write a folder with `save_pretrained`; return it and its modules."""
    import torch
    import transformers

    kind, differs = TRANSFORMERS[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, name)(**differs)).eval()
    shown, fresh = (_feeds(n, seed, "vocab_size" in differs) for n, seed in _counts())
    initialize_torch(model, **{key: torch.from_numpy(value[:, 0]) for key, value in shown.items()})
    with torch.no_grad():
        rows = [{key: torch.from_numpy(value[i]) for key, value in fresh.items()} for i in range(FRESH)]
        expected = np.stack([model(**row).logits.numpy() for row in rows])
    model.save_pretrained(folder / "model")
    _write(folder, shown, fresh, [expected])
    return "model", {type(module).__name__ for module in model.modules()}


def _feeds(count: int, seed: int, text: bool) -> dict[str, np.ndarray]:
    if not text:
        return {"pixel_values": _turned(pictures(count, 96, seed))}
    tokens = np.random.default_rng(seed).integers(5, 1000, (count, 1, 32))
    return {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}


def _turned(batch: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2)[:, None])


def _counts() -> list[tuple[int, int]]:
    return [(CALIBRATION, 1), (FRESH, 2)]


def _write(folder: Path, shown: Any, fresh: Any, expected: list[np.ndarray]) -> None:
    np.savez(folder / "calibration.npz", **shown)
    np.savez(folder / "fresh.npz", **fresh)
    np.savez(folder / "expected.npz", *expected)


def main() -> None:
    library, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    make = {"keras": make_keras, "torchvision": make_torchvision, "transformers": make_transformers}[library]
    model, ops = make(name, folder)
    feeds = [[key, value.shape[1:], value.dtype.name] for key, value in np.load(folder / "fresh.npz").items()]
    (folder / "network.json").write_text(json.dumps({"model": model, "inputs": feeds, "ops": sorted(ops)}))


if __name__ == "__main__":
    main()
