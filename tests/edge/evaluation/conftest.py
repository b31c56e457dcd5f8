"""The ONNX classifier and the conversion steps of the converters' tests."""

from __future__ import annotations

from tests.converters.conftest import classifier, make_classifier, step

__all__ = ["classifier", "make_classifier", "step"]
