"""Packages that install into the same folder: two of them side by side overwrite each other's files."""

from __future__ import annotations

from collections.abc import Iterator

from edge.doctor.finding import Check, Finding
from edge.doctor.situation import Situation

# Imported name → the packages that bring it, the most usual one first.
_SAME_FOLDER = {
    "tensorflow": ("tensorflow-cpu", "tensorflow", "tensorflow-gpu", "tf-nightly", "tf-nightly-cpu", "tensorflow-rocm"),
    "onnxruntime": (
        *("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
        *("onnxruntime-training", "ort-nightly", "ort-nightly-gpu"),
    ),
    "cv2": (
        *("opencv-python-headless", "opencv-python"),
        *("opencv-contrib-python-headless", "opencv-contrib-python"),
    ),
}


def same_folder(situation: Situation) -> Iterator[Finding]:
    """TensorFlow, ONNX Runtime and OpenCV each come under several names."""
    for module, names in _SAME_FOLDER.items():
        there = [name for name in names if name in situation.packages]
        if len(there) > 1:
            yield Finding(
                "warning",
                f"{' and '.join(there)} are installed side by side",
                f"all of them install into the folder '{module}', so which one runs is chance",
                f"pip uninstall --yes {' '.join(there)} && pip install {there[0]}",
            )


CHECKS: tuple[Check, ...] = (same_folder,)
