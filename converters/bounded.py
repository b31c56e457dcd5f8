"""Reading files that nobody vouches for: in place, inside their bounds, and with a limit on the work they may cause."""

from __future__ import annotations

import mmap
import stat
from pathlib import Path

from runtimes.errors import InputError

# The largest graphs we know of have some 10^5 nodes, at a few dozen steps each. A file of a few kilobytes whose
# offsets all lead to the same large part may ask for 10^10: it ends here, after seconds.
MOST_STEPS = 10_000_000
_DAMAGED = "copy or download the file again"


class Source:
    """The bytes of a file, or of a part of it, and the steps that are left for reading them.

    Parts made with `part` draw on the same steps. Raises InputError, naming the file, for what is broken in it.
    """

    def __init__(self, view: memoryview, name: str, steps: list[int] | None = None) -> None:
        self.view = view
        self.name = name
        self._steps = [MOST_STEPS] if steps is None else steps

    @classmethod
    def open(cls, path: Path) -> Source:
        """Map a file: only what is read is loaded, so a model of gigabytes costs no more than its graph."""
        try:
            with path.open("rb") as stream:
                if not stat.S_ISREG(path.stat().st_mode):
                    raise InputError(f"{path} is not a plain file", "give a model file")
                if path.stat().st_size == 0:
                    raise InputError(f"{path} is empty", _DAMAGED)
                return cls(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)), str(path))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None

    def part(self, start: int, size: int) -> Source:
        """`size` bytes from `start`; InputError where the file has no such bytes."""
        return Source(self.slice(start, size), self.name, self._steps)

    def slice(self, start: int, size: int) -> memoryview:
        """`size` bytes from `start`, not copied; InputError where the file has no such bytes."""
        if start < 0 or size < 0 or start + size > len(self.view):
            raise self.broken("a size or offset in it leads outside of it")
        return self.view[start : start + size]

    def text(self, start: int, size: int) -> str:
        """UTF-8 text; a byte that is none becomes the replacement character."""
        self.spend(1 + size // 16)
        return str(self.slice(start, size), "utf-8", "replace")

    def spend(self, steps: int = 1) -> None:
        """Count work done; InputError when the file has asked for more than any real model does."""
        self._steps[0] -= steps
        if self._steps[0] < 0:
            raise self.broken("it asks for more work than any real model")

    def broken(self, reason: str) -> InputError:
        """An error about this file, for the caller to raise."""
        return InputError(f"{self.name} is broken: {reason}", _DAMAGED)
