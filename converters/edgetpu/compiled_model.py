"""Read a file compiled for the Edge TPU, without the compiler, its log or a device.

The compiler replaces the operators that it maps by operators `edgetpu-custom-op`. Their options are a FlexBuffer map
whose key "4" is a FlatBuffer `Package`. Field numbers are positions in the tables of executable/executable.fbs in
google-coral/libedgetpu (Apache-2.0).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.tflite.reader import Operator, TfliteModel
from converters.wire.buffer import ByteSource
from converters.wire.flatbuffer import Table, flexbuffer_blob

if TYPE_CHECKING:
    from runtimes.artifact.json_fields import JsonObject

CUSTOM_OP = "edgetpu-custom-op"
_PACKAGE_KEY = "4"
_PARAMETER_CACHING = 1  # an executable that only loads parameters into the chip's memory, once


@dataclass(frozen=True, kw_only=True)
class Executable:
    """A program for the chip.

    Attributes:
        chip: The chip that it was compiled for.
        caching: Whether its parameters stay on the chip; otherwise they are sent at every inference.
        parameter_bytes: The size of its parameters.
        narrow_memory_bytes_per_tile: The memory for activations that it uses in each tile of the chip.
        caching_token: The same in models that were compiled to share the chip's parameter memory.
    """

    chip: str
    caching: bool
    parameter_bytes: int
    narrow_memory_bytes_per_tile: int
    caching_token: int


@dataclass(frozen=True, kw_only=True)
class Package:
    """The content of one custom operator: the required runtime, the compiler version, and the programs."""

    min_runtime_version: int
    compiler_version: str
    executables: tuple[Executable, ...]


@dataclass(frozen=True)
class CompiledModel:
    """A compiled model: its packages, one for each custom operator, and the operators left on the CPU by name."""

    packages: tuple[Package, ...]
    cpu_ops: Mapping[str, int]

    @property
    def min_runtime_version(self) -> int:
        """The oldest libedgetpu runtime that can run all packages (10, 12, 13 or 14)."""
        return max(package.min_runtime_version for package in self.packages)

    @property
    def compiler_versions(self) -> tuple[str, ...]:
        """The compiler versions. There is more than one only in a file that was assembled by hand."""
        return tuple(sorted({package.compiler_version for package in self.packages}))

    @property
    def chips(self) -> tuple[str, ...]:
        """The chips that it was compiled for; "beagle" is the Edge TPU that is on the market."""
        return tuple(sorted({one.chip for one in self._executables()}))

    @property
    def cached_bytes(self) -> int:
        """Bytes of parameters that stay in the chip's memory between inferences."""
        return sum(one.parameter_bytes for one in self._executables() if one.caching)

    @property
    def streamed_bytes(self) -> int:
        """Bytes of parameters that are sent to the chip at every inference."""
        return sum(one.parameter_bytes for one in self._executables() if not one.caching)

    @property
    def narrow_memory_bytes_per_tile(self) -> int:
        """The maximum memory for activations that a program uses in each tile of the chip."""
        return max((one.narrow_memory_bytes_per_tile for one in self._executables()), default=0)

    @property
    def caching_token(self) -> int:
        """The token of its parameters; 0 if nothing is cached on the chip."""
        return max((one.caching_token for one in self._executables()), default=0)

    def as_dict(self) -> JsonObject:
        """Return the facts that `edge inspect --json` prints under "edgetpu"."""
        return {
            "custom_ops": len(self.packages),
            "min_runtime_version": self.min_runtime_version,
            "compiler_versions": list(self.compiler_versions),
            "chips": list(self.chips),
            "cached_bytes": self.cached_bytes,
            "streamed_bytes": self.streamed_bytes,
            "narrow_memory_bytes_per_tile": self.narrow_memory_bytes_per_tile,
            "caching_token": f"{self.caching_token:#x}",
            "cpu_ops": dict(self.cpu_ops),
        }

    def _executables(self) -> Iterable[Executable]:
        return (one for package in self.packages for one in package.executables)


def read_compiled(model: TfliteModel) -> CompiledModel | None:
    """Read the compiled parts of a TFLite model. Returns None if there are none.

    Raises InputError if a package is broken.
    """
    operators = model.graphs[0].operators
    packages = tuple(_package(operator) for operator in operators if _is_compiled(operator))
    if not packages:
        return None
    return CompiledModel(packages, Counter(one.name for one in operators if not _is_compiled(one)))


def _is_compiled(operator: Operator) -> bool:
    return operator.is_custom and operator.name == CUSTOM_OP


def _package(operator: Operator) -> Package:
    content = flexbuffer_blob(operator.options, _PACKAGE_KEY)
    if content is None:
        raise operator.options.unsupported(f"has an {CUSTOM_OP} without a package of the compiler")
    table = Table.root(content)
    executables = Table.root(table.raw(1)).raws(0)
    return Package(
        min_runtime_version=table.number(0, "i"),
        compiler_version=table.text(4),
        executables=tuple(_executable(one) for one in executables),
    )


def _executable(content: ByteSource) -> Executable:
    table = Table.root(content)
    return Executable(
        chip=table.text(10),
        caching=table.number(13, "h") == _PARAMETER_CACHING,
        parameter_bytes=len(table.raw(6).view),
        narrow_memory_bytes_per_tile=table.number(12, "i"),
        caching_token=table.number(14, "Q"),
    )
