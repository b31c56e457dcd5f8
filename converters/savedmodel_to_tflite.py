"""TensorFlow SavedModel → TFLite through TensorFlow's own converter: fp32, fp16 weights, w8, or full int8."""

from __future__ import annotations

from converters.base import Requirement
from converters.tensorflow.base import SavedmodelConverter, TfliteConverter


class SavedmodelToTflite(SavedmodelConverter, TfliteConverter):
    """Static shapes, the layout of the source."""

    requires = (Requirement("tensorflow"),)
