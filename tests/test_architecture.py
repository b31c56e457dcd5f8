"""The laws that import-linter cannot hold: what loading costs, and what travels to a board."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli import COMMANDS

ROOT = Path(__file__).parent.parent
ROOMS = ("edge", "converters", "runtimes", "device_profiles")

# What `edge --help` may load beyond bare Python and argparse with what argparse needs.
HELP_MODULES = {"edge", "edge.cli", "runtimes", "runtimes.errors"}


def _modules_loaded(statement: str) -> set[str]:
    tell = "print(*(set(sys.modules) - before), sep='\\n', file=sys.stderr)"
    code = f"import sys; before = set(sys.modules)\n{statement}\n{tell}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stderr.split())


def _ours_and_foreign(statement: str) -> set[str]:
    """Modules that the statement loads beyond those of argparse, a JSON reader and the standard library."""
    return {name for name in _modules_loaded(statement) if name.split(".")[0] not in sys.stdlib_module_names}


def _cli(arguments: str) -> str:
    return f"import edge.cli\ntry:\n    edge.cli.main({arguments!r}.split())\nexcept SystemExit:\n    pass"


def test_help_loads_the_command_line_alone() -> None:
    assert _ours_and_foreign(_cli("--help")) == HELP_MODULES


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_no_engine_and_no_numpy(command: str) -> None:
    foreign = {name for name in _ours_and_foreign(_cli(f"{command} --help")) if name.split(".")[0] not in ROOMS}
    assert foreign == set()


def test_importing_edge_loads_nothing_else() -> None:
    assert _ours_and_foreign("import edge") == {"edge"}


def _sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short_enough_to_read(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n") < 500


def _top_level_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def _imported() -> list[Path]:
    """All but the scripts that other environments run: they are programs there, and nobody here imports them."""
    return [path for path in _sources() if "environments" not in path.parts or path.name != "job.py"]


@pytest.mark.parametrize("path", _imported(), ids=lambda path: str(path.relative_to(ROOT)))
def test_engines_and_libraries_are_imported_inside_functions(path: Path) -> None:
    allowed = sys.stdlib_module_names | {"numpy", *ROOMS}
    assert _top_level_imports(path) - allowed == set()
