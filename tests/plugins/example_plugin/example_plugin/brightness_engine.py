"""An engine for `.null` files, which are empty: each answers with the mean of its picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import UsageError
from runtimes.session import CheckedSession, RunOptions, Session, TensorEngine, check_settings

_PICTURE = TensorSpec("picture", "uint8", (1, 8, 8, 3))
_BRIGHTNESS = TensorSpec("brightness", "float32", (1,))


class Adapter(TensorEngine):
    """Answers the mean of all values, between 0 and 1."""

    id = "brightness_engine"
    formats: tuple[str, ...] = ("null",)
    requires = ""
    settings: Mapping[str, str] = {}

    def version(self) -> str:
        """There is no library behind it."""
        return "1.0"

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Open anything; only settings and device are checked."""
        del artifact
        check_settings(options.settings, self.settings, self.id)
        if options.device != "cpu":
            raise UsageError(f"{self.id} has no device '{options.device}'", "its devices: cpu")
        return _MeanSession([_PICTURE], [_BRIGHTNESS])


class _MeanSession(CheckedSession):
    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"brightness": np.array([feeds["picture"].mean() / 255], np.float32)}
