"""Train a small network on scikit-learn's digits: `python train.py FOLDER`, some seconds on a CPU, seeded.

Its weights are truly float, unlike the shared MobileNetV2's, which lie on an int8 grid. FOLDER gets `digits.keras`
(8 × 8 RGB pictures as p/127.5 − 1 → 10 probabilities) and, as PNG files in one sub-folder for each class,
`calibration/` (200 pictures that it was trained on) and `evaluation/` (a third of all, which it has not seen).

`uneven.keras` computes the same as `digits.keras`, but inside, one channel is a thousand times as strong as the
others, and the layer after it takes that back: int8 with one scale for a whole activation loses the other channels.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SEED = 7
EPOCHS = 12
CALIBRATION = 200
IMBALANCE = 1000.0


def pictures() -> tuple[Any, ...]:
    """Training pixels and classes, held-out pixels and classes: uint8 [n, 8, 8, 3], int [n]."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, classes = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8).repeat(3, axis=-1)
    train, held_out, known, asked = train_test_split(
        pixels, classes, test_size=1 / 3, random_state=SEED, stratify=classes
    )
    return train, known, held_out, asked


def network() -> Any:
    """Three convolutions, two of them as MobileNet has them, and a dense head."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            layers.Input((8, 8, 3), name="image"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="first"),
            layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise"),
            layers.Conv2D(32, 1, activation="relu", name="pointwise"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="last"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="digits",
    )


def trained(pixels: Any, classes: Any) -> Any:
    """The network after `EPOCHS` over the pictures; the same bytes of weights on the same machine."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    model = network()
    model.compile(keras.optimizers.Adam(4e-3), "sparse_categorical_crossentropy")
    model.fit(pixels / np.float32(127.5) - 1, classes, batch_size=32, epochs=EPOCHS, verbose=0)
    return model


def make_uneven(model: Any) -> None:
    """One channel of `first` `IMBALANCE` times as strong, and `depthwise` that much weaker on it: ReLU lets it pass."""
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., 0] *= IMBALANCE
    bias[0] *= IMBALANCE
    model.get_layer("first").set_weights([kernel, bias])
    kernel, bias = model.get_layer("depthwise").get_weights()
    kernel[:, :, 0] /= IMBALANCE
    model.get_layer("depthwise").set_weights([kernel, bias])


def save_pictures(folder: Path, pixels: Any, classes: Any) -> None:
    """PNG files in one sub-folder for each class."""
    from PIL import Image

    for number, (picture, digit) in enumerate(zip(pixels, classes, strict=True)):
        place = folder / str(digit)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{number}.png")


def main(folder: Path) -> None:
    train, known, held_out, asked = pictures()
    save_pictures(folder / "calibration", train[:CALIBRATION], known[:CALIBRATION])
    save_pictures(folder / "evaluation", held_out, asked)
    model = trained(train, known)
    model.save(folder / "digits.keras")
    make_uneven(model)
    model.save(folder / "uneven.keras")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
