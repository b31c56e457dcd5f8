"""Run `runtimes.board.report` on a board. It is sent over the connection and leaves no files behind."""

from __future__ import annotations

import json

from edge.remote.install import archive, runtimes_files
from edge.remote.packages import engine_folders, folder_of
from edge.remote.probe import ROOT, Probe, Python, probe, usable_python
from edge.remote.ssh import SshConnection, quote
from runtimes.board.report import BoardReport
from runtimes.errors import HostError

_INTERPRETERS = ("engines/litert-", "engines/edgetpu-")
# The package is imported from a zip file in memory, so that it also works on a board whose disk is full.
_REPORT_SCRIPT = """
import os, runpy, sys, tarfile, tempfile, warnings, zipfile
warnings.simplefilter("ignore")
if hasattr(os, "memfd_create"):
    memory = os.fdopen(os.memfd_create("edge"), "w+b")
    name = "/proc/self/fd/%d" % memory.fileno()
else:
    memory = tempfile.NamedTemporaryFile()
    name = memory.name
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|gz") as sent, zipfile.ZipFile(memory, "w") as package:
    for member in sent:  # ZipInfo has its own date: zip files reject a clock before 1980
        package.writestr(zipfile.ZipInfo(member.name), sent.extractfile(member).read())
memory.flush()
sys.path[0] = name  # instead of the home folder, whose files could shadow modules
runpy.run_module("runtimes.board.report", run_name="__main__")
"""


def remote_facts(host: str) -> BoardReport:
    """Return everything that `edge devices` and `edge doctor` need to know about the board `host`."""
    with SshConnection(host) as line:
        found = probe(line)
        python = usable_python(found, host)
        script = _environment(found, python) + quote([python.path, "-c", _REPORT_SCRIPT])
        status, out = line.run(script, archive(list(runtimes_files()), compressed=True))
    if status != 0 or not out.strip():
        raise HostError(f"{host} returned no report", f"check that its Python works: ssh {host} python3 -c 1")
    report: BoardReport = json.loads(out.splitlines()[-1])
    return report


def _environment(found: Probe, python: Python) -> str:
    """Return a command prefix that makes the engines of `edge deploy` importable, but not the user's own packages.

    Workers see the same engines.
    """
    names = engine_folders(found.have, python)
    compatible = folder_of("edgetpu", python, found.libedgetpu)
    if compatible in names:  # report only the interpreter that works with the installed libedgetpu
        names = [name for name in names if name == compatible or not name.startswith(_INTERPRETERS)]
    path = ":".join(f'"$HOME"/{ROOT}/{name}' for name in names)
    return f"exec env PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1 PYTHONPATH={path} "
