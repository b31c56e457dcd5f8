"""Releases of TensorRT: which opset each reads, how it takes int8, and which one a Jetson is bound to.

Sources: docs/operators.md and docs/Changelog.md of https://github.com/onnx/onnx-tensorrt at its release branches;
"Deprecated and removed features" in the release notes of TensorRT 10 and 11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtimes.errors import RefusedError, UsageError

# The first release that reads an opset, oldest first.
_OPSETS = {(8, 0): 13, (8, 4): 17, (10, 0): 20, (10, 15): 24}
# The release of the JetPack that a board is bound to, by the newest opset in its profile: JetPack 4.6.1 to 4.6.6,
# 5.1, 6.1 and 6.2.
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
        """From "8.2" or "8.2.1"; UsageError for anything else, RefusedError for what is too old for this edge."""
        found = re.fullmatch(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{1,2})(?:[.-].*)?)?", text)
        if found is None:
            raise UsageError(
                f"'{text}' is no release of TensorRT", "say it as 8.2 or 10.3.0: dpkg -l tensorrt tells it"
            )
        release = cls(*(int(part or 0) for part in found.groups()))
        if release.pair < _OLDEST:
            raise RefusedError(f"{release} reads neither opset 13 nor QDQ", "what works: TensorRT 8.0 and later")
        return release

    @classmethod
    def of_board(cls, max_opset: int | None) -> Release:
        """The release of a board whose profile names `max_opset`; the newest of them where it names none."""
        return cls.read(_OF_BOARDS.get(max_opset or 0, _OF_BOARDS[max(_OF_BOARDS)]))

    @classmethod
    def asked(cls, text: str | None) -> Release:
        """The release in `text`, or where none was asked for the newest of a Jetson."""
        return cls.read(text) if text else cls.of_board(None)

    @property
    def pair(self) -> tuple[int, int]:
        """Major and minor, which decide what a release can do."""
        return self.major, self.minor

    @property
    def max_opset(self) -> int:
        """The newest ONNX opset that its parser reads."""
        return max(opset for first, opset in _OPSETS.items() if first <= self.pair)

    @property
    def has_implicit(self) -> bool:
        """Whether it takes int8 ranges from a calibration cache beside a float model, as releases before 11 do."""
        return self.pair < _WITHOUT_IMPLICIT

    @property
    def is_strongly_typed(self) -> bool:
        """Whether it computes in the types of the graph only, and has no flags for fp16 and int8."""
        return self.pair >= _WITHOUT_IMPLICIT

    @property
    def number(self) -> int:
        """NV_TENSORRT_VERSION of its headers: 8201 for 8.2.1, 100300 for 10.3.0."""
        if self.major < 10:
            return self.major * 1000 + self.minor * 100 + self.patch
        return self.major * 10000 + self.minor * 100 + self.patch

    @property
    def text(self) -> str:
        """As `read` reads it."""
        return f"{self.major}.{self.minor}.{self.patch}"

    def check_implicit(self) -> None:
        """RefusedError for a release without implicit calibration."""
        if not self.has_implicit:
            what = f"{self} takes no calibration cache: implicit int8 was removed in 11.0"
            raise RefusedError(what, "what works: leave out --implicit; the scales then stand in the graph (QDQ)")

    def __str__(self) -> str:
        return f"TensorRT {self.major}.{self.minor}"
