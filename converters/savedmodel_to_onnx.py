"""TensorFlow SavedModel → ONNX through tf2onnx: fp32, the requested opset, the source's layout."""

from __future__ import annotations

from converters.base import Requirement
from converters.tensorflow.base import OnnxConverter, SavedmodelConverter


class SavedmodelToOnnx(SavedmodelConverter, OnnxConverter):
    """Inputs and outputs keep the names of the serving signature."""

    requires = (Requirement("tensorflow"), Requirement("tf2onnx", "table"), Requirement("onnx", "table"))
