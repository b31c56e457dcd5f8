"""The source of a language model: a file and its load options, or the address of a server."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.errors import EngineMissingError, InputError, UsageError
from runtimes.model_files.detect import is_language_model

if TYPE_CHECKING:
    from edge.llm.session import WorkerSession
    from runtimes.llm.session import LoadOptions


@dataclass(frozen=True, kw_only=True)
class LlmSource:
    """A language model to open.

    source: A GGUF file, or the address of a server.
    runtime: The engine; None for the preferred one.
    options: How to load it.
    """

    source: str
    runtime: str | None
    options: LoadOptions

    @property
    def name(self) -> str:
        """The name to show before the model is loaded."""
        return self.source.partition("://")[2].rstrip("/") or Path(self.source).stem

    @property
    def is_served(self) -> bool:
        """Whether `source` is an address."""
        return is_address(self.source)

    def with_slots(self, slots: int) -> LlmSource:
        """Return a copy with this many contexts."""
        return replace(self, options=replace(self.options, slots=slots))

    def open(self) -> WorkerSession:
        """Load the model, or connect to its server; see `edge.llm.session.open_session`."""
        from edge.llm.session import open_session

        return open_session(self.source, self.options, self.runtime)


def is_address(source: str) -> bool:
    """Return whether `source` is the address of a server rather than a file."""
    return source.lower().startswith(("http://", "https://"))


def find_encoder(model: str, runtime: str | None) -> str | None:
    """Return the picture encoder that `edge convert` wrote next to a model file; None if there is none.

    Also None if this machine has no llama-server, the only program that runs it: the model is then opened for text.
    """
    from converters.gguf import encoder_name
    from runtimes.llm.llama_cpp.server_program import find_program

    path = Path(model).with_name(encoder_name(Path(model).stem))
    if not path.is_file() or os.name != "posix":
        return None
    with suppress(EngineMissingError, UsageError):
        find_program(runtime)
        return str(path)
    return None


def model_file(given: str) -> str:
    """Return the GGUF file of an artifact's folder, or `given` if it is not a folder.

    Raises InputError for a folder that is not a GGUF artifact.
    """
    from runtimes.artifact import MANIFEST, Artifact

    folder = Path(given)
    if not folder.is_dir():
        return given
    if not (folder / MANIFEST).is_file():
        base = " --base FOLDER" if (folder / "adapter_config.json").is_file() else ""
        raise InputError(
            f"{given} is a folder but not an artifact", f"convert it first: edge convert {given} --to gguf{base}"
        )
    artifact = Artifact.open(folder)
    if not is_language_model(artifact.manifest.format):
        raise InputError(
            f"{given} is not a language model: its format is {artifact.manifest.format}", "pass one in gguf"
        )
    return str(artifact.model)
