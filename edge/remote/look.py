"""What `runtimes.tell` says on a board. It is carried there in memory, and nothing of it stays."""

from __future__ import annotations

import json
from typing import Any

from edge.remote.engines import brought, folder_of
from edge.remote.install import archive, runtimes_files
from edge.remote.ssh import Line, quoted
from edge.remote.survey import ROOT, Python, Survey, survey, usable_python
from runtimes.errors import HostError

_INTERPRETERS = ("engines/litert-", "engines/edgetpu-")
# The package is imported from a zip file in memory: a board with a full disk is one that people look at.
_TELL = """
import os, runpy, sys, tarfile, tempfile, warnings, zipfile
warnings.simplefilter("ignore")
if hasattr(os, "memfd_create"):
    memory = os.fdopen(os.memfd_create("edge"), "w+b")
    name = "/proc/self/fd/%d" % memory.fileno()
else:
    memory = tempfile.NamedTemporaryFile()
    name = memory.name
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|gz") as sent, zipfile.ZipFile(memory, "w") as package:
    for member in sent:  # ZipInfo has its own date: a clock that stands before 1980 is none for zip files
        package.writestr(zipfile.ZipInfo(member.name), sent.extractfile(member).read())
memory.flush()
sys.path[0] = name  # in place of the home folder, in which anything may lie
runpy.run_module("runtimes.tell", run_name="__main__")
"""


def look(host: str) -> dict[str, Any]:
    """All that `edge devices` and `edge doctor` look at, of the board `host`."""
    with Line(host) as line:
        found = survey(line)
        python = usable_python(found, host)
        script = _environment(found, python) + quoted([python.path, "-c", _TELL])
        status, out = line.run(script, archive(list(runtimes_files()), compressed=True))
    if status != 0 or not out.strip():
        raise HostError(f"{host} does not tell what it is", f"check that its Python works: ssh {host} python3 -c 1")
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


def _environment(found: Survey, python: Python) -> str:
    """The engines that `edge deploy` has brought count as installed there; the user's own do not, as for workers."""
    names = brought(found.have, python)
    fitting = folder_of("edgetpu", python, found.libedgetpu)
    if fitting in names:  # the interpreter that fits the Edge TPU's library stands for them all
        names = [name for name in names if name == fitting or not name.startswith(_INTERPRETERS)]
    path = ":".join(f'"$HOME"/{ROOT}/{name}' for name in names)
    return f"exec env PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1 PYTHONPATH={path} "
