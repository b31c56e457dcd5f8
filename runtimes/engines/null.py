"""An engine that does nothing, to measure the overhead of the harness. Opens `.null` files with any content."""

from __future__ import annotations

from typing import Mapping

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact import Artifact, TensorSpec
from runtimes.session import CheckedSession, RunOptions, Session, TensorEngine, check_settings

_SPEC = TensorSpec("x", "float32", (1,))


class Adapter(TensorEngine):
    """Returns its inputs as outputs; without a manifest, a single float."""

    id = "null"
    formats: tuple[str, ...] = ("null",)
    board_packages = ("numpy",)

    def version(self) -> str:
        """Return a constant: there is no library."""
        return "1"

    def open(self, artifact: Artifact, options: RunOptions) -> Session:
        """Open any file; only the options are checked."""
        check_settings(options.settings, self.settings, self.id)
        specs = artifact.manifest.inputs or (_SPEC,)
        return _NullSession(specs, specs)


class _NullSession(CheckedSession):
    def _run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        return {name: np.copy(array) for name, array in feeds.items()}
