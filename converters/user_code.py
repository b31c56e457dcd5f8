"""The user's own Python code by name, `package.module:name` or `path/file.py:name`; for a converter process only."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from converters.quiet import useful_line
from runtimes.errors import InputError

_DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_REFERENCE = re.compile(rf"(?:.+\.py|{_DOTTED}):{_DOTTED}")


def is_reference(text: str) -> bool:
    """Whether it is written as `module:name` or `file.py:name`, and is no file."""
    return _REFERENCE.fullmatch(text) is not None and not Path(text).exists()


def imported(where: str) -> Any:
    """What the reference names. The folder that the command was started in comes first on the path, as for `python -m`.

    Imports, and so runs, the code; InputError for everything that fails on the way.
    """
    place, _, attribute = where.rpartition(":")
    _first_on_path(Path.cwd())
    try:
        value: Any = _file(Path(place)) if place.endswith(".py") else import_module(place)
        for part in attribute.split("."):
            if not hasattr(value, part):
                raise AttributeError(f"{place} has no '{part}'")
            value = getattr(value, part)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise InputError(f"{where} cannot be imported: {useful_line(error)}", _import_hint(place)) from error
    return value


def _file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    _first_on_path(path.parent.resolve())  # as for `python file.py`: its neighbours can be imported
    name = f"_user_{path.stem}"  # a file called random.py is not to stand for the module of that name
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _first_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _import_hint(place: str) -> str:
    command = f"python {place}" if place.endswith(".py") else f"python -c 'import {place}'"
    return f"check that `{command}` works in this folder and with this Python"
