"""SavedModels and TFLite files with several signatures, one of which is extracted as a separate model and converted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.base import Requirement
from converters.library_calls import loading
from converters.sources.artifact import signature_names
from converters.sources.source import Export, ExportingSource, OpenedSource, SourceOptions
from runtimes.errors import UsageError

_DEFAULT = "serving_default"


class SignatureSource(ExportingSource):
    """A model with several signatures: the one that `--signature` names, or `serving_default`, is converted."""

    id = "signature"

    def recognizes(self, path: Path) -> bool:
        """See `Source`."""
        return len(signature_names(path)) > 1

    def open(self, path: Path, options: SourceOptions) -> OpenedSource:
        """See `Source`. Later steps treat the model as one of the same format with one signature."""
        from converters.sources.artifact import open_source

        self.check(path, options)
        if options.code is not None:
            raise UsageError(f"--code does not apply to {path}", "leave it out; it is for .keras and .h5 files")
        opened = open_source(path, hashed=False)
        return OpenedSource(artifact=opened.artifact, sha256="", export=Export(source=self, path=path, options=options))

    def check(self, path: Path, options: SourceOptions) -> None:
        """Raise UsageError, listing the signatures, for one that does not exist, and if none is the default."""
        _choose(path, signature_names(path), options.signature)

    def describe(self, path: Path) -> str:
        """See `ExportingSource`."""
        others = ", ".join(f"'{name}'" for name in signature_names(path))
        return f"{path} has the signatures {others}; one of them is converted (--signature, default: '{_DEFAULT}')"

    def export(self, path: Path, options: SourceOptions, folder: Path) -> Path:
        """Write the model with the chosen signature alone into the existing `folder`."""
        chosen = _choose(path, signature_names(path), options.signature)
        if path.is_dir():
            Requirement("tensorflow").check(str(path))
            return _save_signature(path, chosen, folder / path.name)
        from converters.tflite.signatures import write_signature

        with loading(path, "TFLite"):
            return write_signature(path, chosen, folder / path.name)


def _choose(path: Path, names: Sequence[str], wanted: str | None) -> str:
    name = wanted or (_DEFAULT if _DEFAULT in names else "")
    if name in names:
        return name
    what = (
        f"{path} has no signature '{wanted}'" if wanted else f"{path} has several signatures, and none is the default"
    )
    raise UsageError(f"{what}; it has {', '.join(names)}", f"choose one, such as --signature {names[0]}")


def _save_signature(path: Path, chosen: str, out: Path) -> Path:
    """Copy the folder, with `chosen` as its only signature, under the name that engines look for."""
    with loading(path, "a SavedModel"):
        from tensorflow.core.protobuf import saved_model_pb2

        shutil.copytree(path, out, copy_function=_link_or_copy)
        file = out / "saved_model.pb"
        definition = saved_model_pb2.SavedModel()
        definition.ParseFromString(file.read_bytes())
        for graph in definition.meta_graphs:
            known = graph.signature_def
            if chosen in known:
                kept = type(known[chosen])()
                kept.CopyFrom(known[chosen])
                for name in [name for name in known if not name.startswith("__")]:
                    del known[name]
                known[_DEFAULT].CopyFrom(kept)
            _keep_child(graph.object_graph_def.nodes, chosen)
        file.unlink()  # it may be a link to the source's own
        (out / "fingerprint.pb").unlink(missing_ok=True)  # a digest of the original
        file.write_bytes(definition.SerializeToString(deterministic=True))
    return out


def _keep_child(nodes: Sequence[Any], chosen: str) -> None:
    """Keep one entry of the object that holds the signatures of a loaded model."""
    for root in nodes[:1]:
        for place in [child.node_id for child in root.children if child.local_name == "signatures"]:
            entries = nodes[place].children
            for position, entry in reversed(list(enumerate(entries))):
                if entry.local_name == chosen:
                    entry.local_name = _DEFAULT
                else:
                    del entries[position]


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copyfile(source, target)
