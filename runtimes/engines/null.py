"""An engine that does nothing: what it costs is what the harness costs. Opens `.null` files, which hold any byte."""

from __future__ import annotations

from typing import Mapping

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact import Artifact, TensorSpec
from runtimes.session import CheckedSession, RunOptions, Session, check_settings

_SPEC = TensorSpec("x", "float32", (1,))


class Adapter:
    """Answers its inputs, one float where no manifest says more, with themselves."""

    id = "null"
    formats: tuple[str, ...] = ("null",)
    requires = ""
    settings: Mapping[str, str] = {}

    def version(self) -> str:
        """There is no library behind it."""
        return "1"

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Open anything; only the settings are checked."""
        check_settings(options.settings, self.settings, self.id)
        specs = artifact.manifest.inputs or (_SPEC,)
        return _NullSession(specs, specs)


class _NullSession(CheckedSession):
    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        return {name: np.copy(array) for name, array in feeds.items()}
