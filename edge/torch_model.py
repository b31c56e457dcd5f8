"""PyTorch models that have to be exported before anything else: their options, their place in a plan, the export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.source import Source
    from converters.torch_source import TorchSource
    from edge.workers import Worker

_TIMEOUT_S = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only such models take."""
    group = parser.add_argument_group("TorchScript, module:callable and Hugging Face folders")
    group.add_argument(
        "--input",
        dest="inputs",
        action="append",
        default=[],
        metavar="[NAME=]SIZES[:TYPE]",
        help="what it takes, as 1x3x224x224 or ids=1x128:int64; once for each input",
    )
    group.add_argument("--weights", type=Path, metavar="FILE", help="a state_dict (.pt) or .safetensors for the module")
    group.add_argument("--trust", action="store_true", help="let TorchScript do more than compute")


def said(args: argparse.Namespace) -> TorchSource | None:
    """What has to be exported first; None for every other model."""
    from converters.torch_source import recognise  # only here: `edge convert --help` needs the options alone

    return recognise(args.model, args.inputs, args.weights, args.trust)


def planned(torch_source: TorchSource) -> Source:
    """The exported program as a plan sees it, before there is one."""
    from converters.source import Source
    from runtimes.artifact import Artifact, Manifest

    manifest = Manifest(torch_source.name, "pt2", "fp32", torch_source.where)
    return Source(Artifact(Path(), manifest), "")


def exported(torch_source: TorchSource, work: Path, worker: Worker) -> Source:
    """Export it into a folder below `work`, in the converter process, and open what came out."""
    from converters.source import open_source

    folder = work / "exported"
    folder.mkdir()
    job = {
        "job": "export",
        "kind": torch_source.kind,
        "where": torch_source.where,
        "inputs": [[one.name, list(one.shape), one.dtype] for one in torch_source.inputs],
        "weights": str(torch_source.weights) if torch_source.weights else None,
        "trusted": torch_source.trusted,
        "out": str(folder),
    }
    return open_source(Path(worker.run(job, timeout_s=_TIMEOUT_S)["model"]))
