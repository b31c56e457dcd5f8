"""Releases of TensorRT: the opset that each reads, its support of int8, and the release of each Jetson.

Sources: docs/operators.md and docs/Changelog.md of https://github.com/onnx/onnx-tensorrt at its release branches;
"Deprecated and removed features" in the release notes of TensorRT 10 and 11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtimes.errors import RefusedError, UsageError

# The first release that reads an opset, oldest first.
_OPSETS = {(8, 0): 13, (8, 4): 17, (10, 0): 20, (10, 15): 24}
# The release in the JetPack of a board, by the newest opset in its profile: JetPack 4.6.1 to 4.6.6, 5.1, 6.1 and 6.2.
_OF_BOARDS = {13: "8.2.1", 17: "8.5.2", 20: "10.3.0"}
_OLDEST, _WITHOUT_IMPLICIT = (8, 0), (11, 0)


@dataclass(frozen=True)
class Release:
    """One release of TensorRT."""

    major: int
    minor: int
    patch: int = 0

    @classmethod
    def read(cls, text: str) -> Release:
        """Parse "8.2" or "8.2.1". Raises UsageError for anything else, RefusedError for an unsupported old release."""
        found = re.fullmatch(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{1,2})(?:[.-].*)?)?", text)
        if found is None:
            raise UsageError(
                f"'{text}' is not a release of TensorRT", "write it as 8.2 or 10.3.0: see dpkg -l tensorrt"
            )
        release = cls(*(int(part or 0) for part in found.groups()))
        if release.pair < _OLDEST:
            raise RefusedError(f"{release} reads neither opset 13 nor QDQ", "what works: TensorRT 8.0 and later")
        return release

    @classmethod
    def of_board(cls, max_opset: int | None) -> Release:
        """Return the release of a board whose profile has `max_opset`; the newest board release if it has none."""
        return cls.read(_OF_BOARDS.get(max_opset or 0, _OF_BOARDS[max(_OF_BOARDS)]))

    @classmethod
    def asked(cls, text: str | None) -> Release:
        """Parse the release in `text`; None stands for the newest one of a Jetson."""
        return cls.read(text) if text else cls.of_board(None)

    @property
    def pair(self) -> tuple[int, int]:
        """Major and minor version, which determine the features of a release."""
        return self.major, self.minor

    @property
    def max_opset(self) -> int:
        """The newest ONNX opset that its parser reads."""
        return max(opset for first, opset in _OPSETS.items() if first <= self.pair)

    @property
    def has_implicit(self) -> bool:
        """Whether it reads int8 ranges from a calibration cache next to a float model, as releases before 11 do."""
        return self.pair < _WITHOUT_IMPLICIT

    @property
    def is_strongly_typed(self) -> bool:
        """Whether it computes only in the types of the graph, and has no flags for fp16 and int8."""
        return self.pair >= _WITHOUT_IMPLICIT

    @property
    def number(self) -> int:
        """NV_TENSORRT_VERSION in its headers: 8201 for 8.2.1, 100300 for 10.3.0."""
        if self.major < 10:
            return self.major * 1000 + self.minor * 100 + self.patch
        return self.major * 10000 + self.minor * 100 + self.patch

    @property
    def text(self) -> str:
        """The text that `read` parses."""
        return f"{self.major}.{self.minor}.{self.patch}"

    def check_implicit(self) -> None:
        """Raise RefusedError for a release without implicit calibration."""
        if not self.has_implicit:
            what = f"{self} does not read calibration caches: implicit int8 was removed in 11.0"
            raise RefusedError(what, "what works: leave out --implicit; the scales are then in the graph (QDQ)")

    def __str__(self) -> str:
        return f"TensorRT {self.major}.{self.minor}"
