"""Read untrusted files in place, with bounds checks and a limit on the work that they can cause."""

from __future__ import annotations

import mmap
import stat
from pathlib import Path

from runtimes.errors import InputError

# The largest graphs we know of have some 10^5 nodes, at a few dozen steps each. A malicious file of a few kilobytes
# whose offsets all point to the same large part may take 10^10: reading stops here, after seconds.
MAX_STEPS = 10_000_000
_DAMAGED = "compare its size and sha256 with the original's"
_UNSUPPORTED = "the file may be valid: try a newer version of edge, or export the model in another way"


class ByteSource:
    """The bytes of a file or of a part of it, and the remaining budget of steps.

    Parts from `part` share the budget. Methods raise InputError, naming the file, for inconsistent data.
    """

    def __init__(self, view: memoryview, name: str, steps: list[int] | None = None) -> None:
        self.view = view
        self.name = name
        self._steps = [MAX_STEPS] if steps is None else steps

    @classmethod
    def open(cls, path: Path) -> ByteSource:
        """Memory-map a file. Only what is read is loaded, so weights cost nothing."""
        try:
            with path.open("rb") as stream:
                if not stat.S_ISREG(path.stat().st_mode):
                    raise InputError(f"{path} is not a plain file", "give a model file")
                if path.stat().st_size == 0:
                    raise InputError(f"{path} is empty", _DAMAGED)
                return cls(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)), str(path))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None

    def part(self, start: int, size: int) -> ByteSource:
        """Return `size` bytes from `start` as a `ByteSource`. Raises InputError if they are outside the file."""
        return ByteSource(self.slice(start, size), self.name, self._steps)

    def slice(self, start: int, size: int) -> memoryview:
        """Return `size` bytes from `start` without copying. Raises InputError if they are outside the file."""
        if start < 0 or size < 0 or start + size > len(self.view):
            raise self.broken("a size or offset points outside the file")
        return self.view[start : start + size]

    def text(self, start: int, size: int) -> str:
        """Return UTF-8 text, with invalid bytes replaced by U+FFFD."""
        self.spend(1 + size // 16)
        return str(self.slice(start, size), "utf-8", "replace")

    def spend(self, steps: int = 1) -> None:
        """Use up `steps` of the budget. Raises InputError when it is exceeded."""
        self._steps[0] -= steps
        if self._steps[0] < 0:
            what = f"{self.name} takes more than {MAX_STEPS:,} steps to read, edge's limit against malicious files"
            raise InputError(what, "use a smaller model; no model that we know of comes near this limit")

    def broken(self, reason: str) -> InputError:
        """Build an error about inconsistent data, for the caller to raise."""
        return InputError(f"{self.name} is broken: {reason}", _DAMAGED)

    def unsupported(self, what: str) -> InputError:
        """Build an error about something that may be valid but that edge does not read, for the caller to raise."""
        return InputError(f"{self.name} {what}, which edge does not support", _UNSUPPORTED)
