"""The interpreter for TFLite that is installed, inside which libedgetpu works only if it was built for it."""

from __future__ import annotations

import re

from edge.doctor.situation import Situation

_INTERPRETERS = ("ai-edge-litert", "tflite-runtime")
_LAST_FOR_GOOGLES = (2, 11)  # newer ones crash with Google's library: github.com/google-coral/edgetpu, issue 812


def interpreter(situation: Situation) -> tuple[str | None, str | None]:
    """Its package and version; the first that there is."""
    name = next((name for name in _INTERPRETERS if name in situation.packages), None)
    return name, situation.packages.version(name) if name else None


def is_newer_than_googles(name: str, version: str) -> bool:
    """Whether it crashes with Google's own build of libedgetpu."""
    return name == "ai-edge-litert" or tuple(map(int, re.findall(r"\d+", version)[:2])) > _LAST_FOR_GOOGLES
