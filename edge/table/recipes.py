"""The models that the table needs, and how to get each: build it from weights, convert it, or use a published file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

# Google's file of 2019 (google-coral, Apache-2.0), in the data folder EDGE_DATA, which documents its origin.
_FILE_2019 = Path("mobilenet_v2", "mobilenet_v2_1.0_224_quant.tflite")
_FILE_2019_EDGETPU = Path("mobilenet_v2", "mobilenet_v2_1.0_224_quant_edgetpu.tflite")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to get one artifact of the table.

    Exactly one of `framework`, `file` and `source` is set.

    id: Names the artifact.
    format: Its format.
    precision: Its precision.
    framework: The framework that it is built with from the weights.
    file: A published file in the data folder.
    source: The id of the recipe that it is converted from, by `steps`.
    steps: The converters, in order.
    release: The oldest release of the device's engine that must read the artifact.
    """

    id: str
    format: str
    precision: str
    framework: str | None = None
    file: Path | None = None
    source: str | None = None
    steps: tuple[str, ...] = ()
    release: str | None = None

    @property
    def has_own_weights(self) -> bool:
        """Whether this is Google's network of 2019, which was trained separately for uint8: its predictions differ."""
        return self.id.endswith(("-2019", "-2019-logits"))


# Sources come before the recipes that need them.
RECIPES = (
    Recipe(id="keras-fp32", format="keras", precision="fp32", framework="keras"),
    Recipe(id="onnx-fp32", format="onnx", precision="fp32", source="keras-fp32", steps=("keras_to_onnx",)),
    Recipe(id="tflite-fp32", format="tflite", precision="fp32", source="keras-fp32", steps=("keras_to_tflite",)),
    Recipe(id="tflite-int8", format="tflite", precision="int8", source="keras-fp32", steps=("keras_to_tflite",)),
    Recipe(id="tflite-int8-logits", format="tflite", precision="int8", source="tflite-int8", steps=("logit_head",)),
    Recipe(id="openvino-fp32", format="openvino", precision="fp32", source="onnx-fp32", steps=("onnx_to_openvino",)),
    Recipe(id="openvino-fp16", format="openvino", precision="fp16", source="onnx-fp32", steps=("onnx_to_openvino",)),
    Recipe(id="openvino-int8", format="openvino", precision="int8", source="onnx-fp32", steps=("onnx_to_openvino",)),
    Recipe(
        id="browser-tflite-int8", format="browser", precision="int8", source="tflite-int8", steps=("tflite_to_browser",)
    ),
    # The last release for the Jetson Nano; the later releases of other Jetsons read its files too.
    Recipe(
        id="tensorrt-fp16",
        format="tensorrt",
        precision="fp16",
        source="onnx-fp32",
        steps=("onnx_to_tensorrt",),
        release="8.2.1",
    ),
    Recipe(id="tflite-2019", format="tflite", precision="int8", file=_FILE_2019),
    Recipe(id="tflite-2019-logits", format="tflite", precision="int8", source="tflite-2019", steps=("logit_head",)),
    Recipe(id="edgetpu-2019", format="edgetpu", precision="int8", file=_FILE_2019_EDGETPU),
    Recipe(id="pt2-fp32", format="pt2", precision="fp32", framework="torch"),
)

BY_ID = {recipe.id: recipe for recipe in RECIPES}


def with_sources(recipes: Collection[str]) -> list[Recipe]:
    """Return these recipes and all their sources, in an order in which they can be built."""
    needed = set(recipes)
    for recipe in reversed(RECIPES):
        if recipe.id in needed:
            needed.update(_inputs_of(recipe))
    return [recipe for recipe in RECIPES if recipe.id in needed]


def _inputs_of(recipe: Recipe) -> list[str]:
    if recipe.format == "edgetpu":  # its self-check is that of the file that was compiled
        return ["tflite-2019"]
    return [recipe.source] if recipe.source else []
