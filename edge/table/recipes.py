"""Which models the table needs, and how each is made: built from the weights, converted, or taken as published."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

# Google's file of 2019 (google-coral, Apache-2.0), as it lies in EDGE_DATA: where it comes from is told there.
_FILE_2019 = Path("mobilenet_v2", "mobilenet_v2_1.0_224_quant.tflite")
_FILE_2019_EDGETPU = Path("mobilenet_v2", "mobilenet_v2_1.0_224_quant_edgetpu.tflite")


@dataclass(frozen=True)
class Recipe:
    """One artifact of the table.

    Exactly one of these says where it comes from: `framework` (built from the weights), `file` (a published file of
    the data folder) or `source` (another recipe's id, then converted by `steps` to `format`).
    """

    id: str
    format: str
    precision: str
    framework: str | None = None
    file: Path | None = None
    source: str | None = None
    steps: tuple[str, ...] = ()
    release: str | None = None  # the oldest of the device's engine that is to read it

    @property
    def has_own_weights(self) -> bool:
        """Whether this is Google's network of 2019, which was trained anew for uint8 and need not answer as ours."""
        return self.id.endswith(("-2019", "-2019-logits"))


# In an order in which every source stands before what is made of it.
RECIPES = (
    Recipe("keras-fp32", "keras", "fp32", framework="keras"),
    Recipe("onnx-fp32", "onnx", "fp32", source="keras-fp32", steps=("keras_to_onnx",)),
    Recipe("tflite-fp32", "tflite", "fp32", source="keras-fp32", steps=("keras_to_tflite",)),
    Recipe("tflite-int8", "tflite", "int8", source="keras-fp32", steps=("keras_to_tflite",)),
    Recipe("tflite-int8-logits", "tflite", "int8", source="tflite-int8", steps=("logit_head",)),
    Recipe("openvino-fp32", "openvino", "fp32", source="onnx-fp32", steps=("onnx_to_openvino",)),
    Recipe("openvino-fp16", "openvino", "fp16", source="onnx-fp32", steps=("onnx_to_openvino",)),
    Recipe("openvino-int8", "openvino", "int8", source="onnx-fp32", steps=("onnx_to_openvino",)),
    # The Nano's last release; what it reads is read by the later ones of other Jetsons, too.
    Recipe("tensorrt-fp16", "tensorrt", "fp16", source="onnx-fp32", steps=("onnx_to_tensorrt",), release="8.2.1"),
    Recipe("tflite-2019", "tflite", "int8", file=_FILE_2019),
    Recipe("tflite-2019-logits", "tflite", "int8", source="tflite-2019", steps=("logit_head",)),
    Recipe("edgetpu-2019", "edgetpu", "int8", file=_FILE_2019_EDGETPU),
    Recipe("pt2-fp32", "pt2", "fp32", framework="torch"),
)

BY_ID = {recipe.id: recipe for recipe in RECIPES}


def with_sources(recipes: Collection[str]) -> list[Recipe]:
    """These recipes and all that they are made from, in an order in which they can be made."""
    needed = set(recipes)
    for recipe in reversed(RECIPES):
        if recipe.id in needed:
            needed.update(_made_from(recipe))
    return [recipe for recipe in RECIPES if recipe.id in needed]


def _made_from(recipe: Recipe) -> list[str]:
    if recipe.format == "edgetpu":  # its self-check holds the answers of the file that was compiled
        return ["tflite-2019"]
    return [recipe.source] if recipe.source else []
