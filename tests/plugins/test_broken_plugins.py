"""A plugin that cannot be used is named in one line, and no command fails because of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def install(folder: Path, name: str, group: str, points: dict[str, str], modules: dict[str, str]) -> None:
    """What pip leaves of a package: its modules, its name and its entry points."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{point} = {value}\n" for point, value in points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
    command = [sys.executable, "-m", "edge", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


ENGINE = """
from runtimes.session import Engine
class Adapter(Engine):
    id, formats, requires, settings = "{id}", ("null",), "", {{}}
    def version(self): return "1"
"""


@pytest.mark.parametrize(
    ("points", "modules", "words"),
    [
        ({"raising": "raising:Adapter"}, {"raising": "1 / 0"}, "ZeroDivisionError: division by zero"),
        ({"leaving": "leaving:Adapter"}, {"leaving": "raise SystemExit('bye')"}, "SystemExit: bye"),
        ({"absent": "absent:Adapter"}, {}, "ModuleNotFoundError: No module named 'absent'"),
        ({"empty": "empty:Adapter"}, {"empty": ""}, "AttributeError: module 'empty' has no attribute 'Adapter'"),
        ({"other": "other:Adapter"}, {"other": "class Adapter: id = 'other'"}, "it is not a runtimes.session.Engine"),
        ({"litert": "mine:Adapter"}, {"mine": ENGINE.format(id="litert")}, "edge already has that name"),
        ({"mine": "mine:Adapter"}, {"mine": ENGINE.format(id="yours")}, "mine:Adapter"),
    ],
)
def test_an_engine_that_cannot_be_used_is_named_once(tmp_path, points, modules, words):
    install(tmp_path, "somebodys", "edge.engines", points, modules)
    done = run(tmp_path, "devices", "--json")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    (name,) = points
    assert line.startswith(f"edge: '{name}' of the package somebodys 1.0 (edge.engines) is left out: ")
    assert words in line
    ids = [one["id"] for one in json.loads(done.stdout)["engines"]]
    assert ids.count("litert") == 1
    assert name == "litert" or name not in ids


def test_an_engine_that_cannot_be_used_and_is_asked_for_is_an_error(tmp_path):
    install(tmp_path, "somebodys", "edge.engines", {"raising": "raising:Adapter"}, {"raising": "1 / 0"})
    (tmp_path / "m.null").write_text("anything")
    done = run(tmp_path, "run", tmp_path / "m.null", tmp_path / "x.npy", "--runtime", "raising", "--json")
    assert done.returncode == 4
    error = json.loads(done.stderr.splitlines()[-1])
    assert "ZeroDivisionError" in error["message"]
    assert error["hint"] == "update or uninstall that package"


def test_two_packages_with_one_name_leave_the_first(tmp_path):
    good = ENGINE.format(id="twice")
    for package in ("apples", "pears"):
        install(tmp_path, package, "edge.tasks", {"tensors": "nothing:There"}, {})
    install(tmp_path, "cherries", "edge.tasks", {"raising": "raising:Task"}, {"raising": good})
    model = tmp_path / "m.null"
    model.write_text("anything")
    np.save(tmp_path / "x.npy", np.zeros(1, np.float32))
    done = run(tmp_path, "run", model, tmp_path / "x.npy", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["task"] == "tensors"
    left_out = [line for line in done.stderr.splitlines() if "is left out" in line]
    assert [line.split()[5] for line in left_out] == ["cherries", "apples", "pears"]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("my-board.toml", "name = ", "my-board.toml"),
        ("my-board.toml", 'name = "x"\nkind = "toaster"\nsource = "https://example.org"', "kind"),
        ("ncs2.toml", 'name = "x"\nkind = "board"\nsource = "https://example.org"', "of that name already"),
    ],
)
def test_a_device_that_cannot_be_used_is_named_once(tmp_path, file, text, words):
    install(tmp_path, "boards", "edge.devices", {"boards": "my_boards"}, {})
    (tmp_path / "my_boards").mkdir()
    (tmp_path / "my_boards" / file).write_text(text)
    done = run(tmp_path, "devices", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"edge: the device profile {file} of the package boards 1.0 is left out: ")
    assert words in line
    ids = [one["id"] for one in json.loads(done.stdout)["profiles"]]
    assert "my-board" not in ids
    assert ids.count("ncs2") == 1


def test_devices_of_a_package_that_is_not_there_are_named(tmp_path):
    install(tmp_path, "boards", "edge.devices", {"boards": "nowhere.at_all"}, {})
    done = run(tmp_path, "devices", "--json")
    assert done.returncode == 0
    words = "edge: the device profiles of the package boards 1.0 are left out: no package nowhere.at_all"
    assert done.stderr.splitlines() == [words]
