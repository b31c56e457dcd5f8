"""Base classes of sources, which recognize and check the user's model without running any of its code.

A source is one file `converters/sources/<id>.py` with a class `<Id>Source`, which recognizes and opens one kind of
model and declares its options and requirements. `artifact` accepts everything that no other source recognizes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from converters.base import Requirement
from converters.options import Options, option
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from runtimes.artifact import Artifact, Preprocess


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """Options of every source. A source with its own options derives from this class."""

    shapes: tuple[str, ...] = option(
        (),
        "sizes for the free axes of an input, such as 1x3x480x640 or ids=1x128; once for each input",
        flag="--shape",
        dest="shapes",
        metavar="[NAME=]SIZES",
        repeats=True,
    )
    inputs: tuple[str, ...] = option(
        (),
        "the same with a type (ids=1x128:int64); TorchScript, module:callable and Hugging Face folders need it",
        flag="--input",
        dest="inputs",
        metavar="[NAME=]SIZES[:TYPE]",
        repeats=True,
    )
    opset: int | None = None  # of the ONNX file, if an export writes one instead of a program; None: its choice
    hashed: bool = True  # False leaves hashing to the next process that opens the model
    signature: str | None = option(
        None, "the signature of a SavedModel or .tflite with several (default: serving_default)", metavar="NAME"
    )
    code: str | None = option(
        None, "your own Python code with the custom classes of a Keras model", metavar="FILE.py|MODULE"
    )
    # An option of every source, though only one uses it, so that scripts with models of all kinds can always pass it.
    trusted: bool = option(False, "allow TorchScript operations beyond computing", flag="--trust")


class Source(ABC):
    """One kind of model that a user can convert.

    Attributes:
        suffixes: The suffixes of its files, for messages; empty for folders and names.
        requires: The libraries that opening it uses.
        Options: Its options: `SourceOptions`, or a subclass in the same file.
    """

    id: str
    suffixes: tuple[str, ...] = ()
    requires: tuple[Requirement, ...] = ()
    Options: ClassVar[type[SourceOptions]] = SourceOptions

    @abstractmethod
    def recognizes(self, path: Path) -> bool:
        """Return whether `path` is of this kind. Uses no engine.

        Raises InputError for a file that only has the name of one.
        """

    @abstractmethod
    def open(self, path: Path, options: SourceOptions) -> OpenedSource:
        """Identify the content without running any of it.

        Raises InputError if it is broken, and UsageError for unsuitable options.
        """


@dataclass(frozen=True, kw_only=True)
class SourceHints:
    """Metadata of a source in addition to its weights; None if unknown.

    Attributes:
        labels: The labels, in the order of the classes.
        preprocess: The preprocessing, for NCHW.
        kind: The kind of the output.
        notes: Where these come from, or why they are unknown.
    """

    labels: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None
    kind: str | None = None
    notes: tuple[str, ...] = ()


class ExportingSource(Source):
    """A source whose models are first exported to a `.pt2` with fixed shapes, and compared with it.

    Later steps treat the model as a `.pt2`; one that no exported program can hold becomes an `.onnx` instead. `open`
    needs no library; `export` runs in a converter process.
    """

    def open(self, path: Path, options: SourceOptions) -> OpenedSource:
        """Describe the exported program for planning, before it exists."""
        from runtimes.artifact import Artifact, Manifest

        self.check(path, options)
        for flag, value, models in (
            ("--signature", options.signature, "SavedModels and .tflite files"),
            ("--code", options.code, ".keras and .h5 files"),
        ):
            if value is not None:
                raise UsageError(f"{flag} does not apply to {path}", f"leave it out; it is for {models}")
        program = Artifact(Path(), Manifest(name=self.name_of(path), format="pt2", precision="fp32", model=str(path)))
        return OpenedSource(artifact=program, sha256="", export=Export(source=self, path=path, options=options))

    @abstractmethod
    def check(self, path: Path, options: SourceOptions) -> None:
        """Raise UsageError for missing or unsuitable options, and InputError for missing files."""

    @abstractmethod
    def export(self, path: Path, options: SourceOptions, folder: Path) -> Path:
        """Write `<name>.pt2`, or `<name>.onnx` in `options.opset`, into the existing `folder`. Runs the model."""

    def name_of(self, path: Path) -> str:
        """Return the name of the result."""
        return path.stem

    def describe(self, path: Path) -> str:
        """Return what the user should know before the export."""
        return f"{path} is exported to a PyTorch program (.pt2) first"

    def hints(self, _path: Path) -> SourceHints:
        """Return its metadata. Raises InputError if that is broken."""
        return SourceHints()

    def origin(self, path: Path, _options: SourceOptions) -> dict[str, str]:
        """Return the description of the source for a manifest."""
        from runtimes.artifact import sha256

        return {"name": path.name, "format": self.id, "sha256": sha256(path)}


@dataclass(frozen=True, kw_only=True)
class Export:
    """A model that its source must export first."""

    source: ExportingSource
    path: Path
    options: SourceOptions

    @property
    def description(self) -> str:
        """See `ExportingSource.describe`."""
        return self.source.describe(self.path)

    def hints(self) -> SourceHints:
        """See `ExportingSource.hints`."""
        return self.source.hints(self.path)

    def origin(self) -> dict[str, str]:
        """See `ExportingSource.origin`."""
        return self.source.origin(self.path, self.options)

    def run(self, folder: Path) -> Path:
        """Write the program into the existing `folder`; to be called in a converter process."""
        for requirement in self.source.requires:
            requirement.check(str(self.path))
        return self.source.export(self.path, self.options, folder)


@dataclass(frozen=True, kw_only=True)
class OpenedSource:
    """A model to convert.

    Attributes:
        artifact: Its artifact; one without digests for a bare file.
        sha256: The digest of the model; empty if it was not hashed.
        export: The export that creates the artifact, if it does not exist yet.
    """

    artifact: Artifact
    sha256: str
    export: Export | None = None

    @property
    def format(self) -> str:
        """The name of the format in manifests."""
        return self.artifact.manifest.format

    @property
    def precision(self) -> str:
        """The precision in the manifest; "unknown" for a bare file."""
        return self.artifact.manifest.precision

    @property
    def model(self) -> Path:
        """The model file, or SavedModel folder."""
        return self.artifact.model

    def origin(self) -> dict[str, str]:
        """Return the description of the source for the manifest of a result."""
        return {"name": self.model.name, "format": self.format, "sha256": self.sha256}
