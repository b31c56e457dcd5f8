"""`build.sh`: the trtexec line that builds an engine on a board, with what the board's release understands."""

from __future__ import annotations

import shlex
from pathlib import PurePath

from converters.tensorrt.releases import Release

_POOLS = (8, 4)  # the first release whose trtexec says --memPoolSize instead of --workspace
_WORKSPACE_MIB = 512  # leaves a Jetson Nano, whose 4 GB are also its main memory, enough to build
_TEXT = """\
#!/bin/sh
# Builds {engine} with {release}, on the machine that will run it: an engine works nowhere else.
# Further options of trtexec may follow: sh build.sh --useCudaGraph
set -eu
cd "$(dirname "$0")"
trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
if [ ! -x "$trtexec" ]; then
  echo "trtexec is missing; JetPack installs it: sudo apt-get install libnvinfer-bin" >&2
  exit 1
fi
exec "$trtexec" {options} "$@"
"""


def script(model: str, release: Release, precision: str, cache: str | None) -> str:
    """The script for the model file `model`, beside which `cache` may lie."""
    engine = str(PurePath(model).with_suffix(".engine"))
    options = [f"--onnx={model}", f"--saveEngine={engine}", *_precision(release, precision, cache), _workspace(release)]
    return _TEXT.format(engine=engine, release=release, options=" ".join(map(shlex.quote, options)))


def _precision(release: Release, precision: str, cache: str | None) -> list[str]:
    """Beside int8, fp16 is allowed for the layers that are faster so; newest releases read all from the graph."""
    if release.is_strongly_typed:
        return []
    flags = {"fp32": [], "fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}[precision]
    return [*flags, *([f"--calib={cache}"] if cache else [])]


def _workspace(release: Release) -> str:
    return f"--workspace={_WORKSPACE_MIB}" if release.pair < _POOLS else f"--memPoolSize=workspace:{_WORKSPACE_MIB}"
