"""Rules that import-linter cannot check: what commands load, import circles, types, and the length of files."""

import ast
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from edge.cli import COMMANDS
from runtimes.model_files.detect import FORMATS

ROOT = Path(__file__).parent.parent
PACKAGES = ("edge", "converters", "runtimes", "device_profiles")

# What `edge --help` may load beyond bare Python and argparse with what argparse needs.
HELP_MODULES = {"edge", "edge.cli", "runtimes", "runtimes.errors"}

# Law 5 allows 80; lower this with every one that goes. 25 are in runtimes/llm/grammar/json_schema.py, which reads JSON
# documents of others.
MAX_UNTYPED = 58


@cache
def parsed(text: str) -> ast.Module:
    """The tree of a file's text: several laws look at each."""
    return ast.parse(text)


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
    foreign = {name for name in _ours_and_foreign(_cli(f"{command} --help")) if name.split(".")[0] not in PACKAGES}
    assert foreign == set()


def test_importing_edge_loads_nothing_else() -> None:
    assert _ours_and_foreign("import edge") == {"edge"}


def _sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _top_level_imports(path: Path) -> set[str]:
    tree = parsed(path.read_text(encoding="utf-8"))
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
    allowed = sys.stdlib_module_names | {"numpy", *PACKAGES}
    assert _top_level_imports(path) - allowed == set()


# Who imports whom, and how long files are. Each check is a function of a tree, so that it is tried on a wrong one too.

MAX_FILE_LINES, MAX_FUNCTION_LINES = 500, 60
# Fewer than 35 files may be small.
SMALL_FILE_LINES, MAX_SMALL_FILES = 60, 34
# Small files that still wait to be folded into the one that imports them; only take away from these.
ONE_IMPORTER = {}
LAYERS = {"edge": 2, "converters": 1, "runtimes": 0}  # `device_profiles` stands beside `converters`


def modules(root: Path) -> dict[str, Path]:
    """Every file of the four packages, by its module's name."""
    found = {}
    for path in (path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> dict[str, set[str]]:
    """What each module imports of the others, anywhere in it: in functions and under TYPE_CHECKING too."""
    files = modules(root)
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        named: set[str] = set()
        for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= inner & files.keys()
                if inner - files.keys():
                    named.add(node.module)
        found[name] = (named & files.keys()) - {name}
    return found


def circles(root: Path) -> list[list[str]]:
    """Groups of modules that import one another, by whatever way round."""
    graph = imports(root)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for name in graph[waiting.pop()] - seen:
                seen.add(name)
                waiting.append(name)
        return seen

    reach = {name: reached(name) for name in graph}
    groups = {tuple(sorted({other for other in reach[name] if name in reach[other]})) for name in graph}
    return sorted(list(group) for group in groups if group)


def upward_imports(root: Path) -> list[str]:
    """Imports that do not go down; device profiles import nobody, and `edge` alone imports them."""
    found = []
    for name, named in imports(root).items():
        mine = name.split(".")[0]
        for other in named:
            theirs = other.split(".")[0]
            if theirs == mine:
                continue
            is_down = mine == "edge" if "device_profiles" in (mine, theirs) else LAYERS[theirs] < LAYERS[mine]
            if not is_down:
                found.append(f"{name} imports {other}")
    return sorted(found)


def long_files(root: Path) -> list[str]:
    return [
        place.relative_to(root).as_posix()
        for place in _with_tests(root)
        if place.read_text(encoding="utf-8").count("\n") > MAX_FILE_LINES
    ]


def long_functions(root: Path) -> list[str]:
    found = []
    for place in _with_tests(root):
        for node in ast.walk(parsed(place.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    found.append(f"{place.relative_to(root).as_posix()}: {node.name} has {lines} lines")
    return found


def _with_tests(root: Path) -> list[Path]:
    return [path for folder in (*PACKAGES, "tests") for path in sorted((root / folder).rglob("*.py"))]


def small_files(root: Path) -> list[str]:
    """Files that hold little, without those that an extension is: an engine, a conversion, a task, an environment."""
    found = []
    for path in modules(root).values():
        place = path.relative_to(root)
        is_extension = (
            place.parts[:-1] in {("runtimes", "engines"), ("runtimes", "tasks"), ("edge", "tasks")}
            or (place.parts[:-1] == ("converters",) and "_to_" in place.stem)
            or (place.parts[:2] == ("converters", "environments") and place.stem == "job")
        )
        lines = path.read_text(encoding="utf-8").count("\n")
        if place.stem != "__init__" and not is_extension and lines <= SMALL_FILE_LINES:
            found.append(place.as_posix())
    return found


def misplaced_files(root: Path) -> list[str]:
    """Small files that one other file alone imports: they belong in it."""
    graph = imports(root)
    names = {path.relative_to(root).as_posix(): name for name, path in modules(root).items()}
    importers = {place: [name for name, named in graph.items() if names[place] in named] for place in small_files(root)}
    return [f"{place} belongs in {users[0]}" for place, users in importers.items() if len(users) == 1]


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circles(ROOT) == []


def test_imports_go_down() -> None:
    assert upward_imports(ROOT) == []


def test_what_travels_to_a_board_is_tested_without_the_other_packages() -> None:
    """`tests/test_travel.py` runs these tests where nothing else is."""
    above = {"edge", "converters", "device_profiles"}
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests" / "runtimes").rglob("*.py"))
        for node in ast.walk(parsed(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in above
    ]
    assert found == []


def test_files_stay_short_enough_to_read() -> None:
    assert long_files(ROOT) == []


def test_functions_stay_short_enough_to_read() -> None:
    assert long_functions(ROOT) == []


def test_few_files_are_small() -> None:
    found = small_files(ROOT)
    assert len(found) <= MAX_SMALL_FILES, "\n".join(found)


def test_a_small_file_has_more_than_one_importer() -> None:
    assert misplaced_files(ROOT) == []


def plant(root: Path, files: Mapping[str, str]) -> Path:
    for place, text in files.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


LINE = "x = 1\n"


@pytest.mark.parametrize(
    "late",
    ["import edge.b", "def f():\n    from edge import b", "if TYPE_CHECKING:\n    from edge.b import x"],
    ids=["plain", "in a function", "under TYPE_CHECKING"],
)
def test_a_circle_is_found_however_it_is_written(late: str, tmp_path: Path) -> None:
    plant(tmp_path, {"edge/a.py": late, "edge/b.py": "from edge.c import x", "edge/c.py": "import edge.a"})
    assert circles(tmp_path) == [["edge.a", "edge.b", "edge.c"]]
    (tmp_path / "edge/c.py").write_text(LINE)
    assert circles(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "imported", "is_down"),
    [
        ("runtimes/a.py", "converters.b", False),
        ("converters/a.py", "edge.b", False),
        ("converters/a.py", "device_profiles.b", False),
        ("device_profiles/a.py", "runtimes.b", False),
        ("edge/a.py", "device_profiles.b", True),
        ("edge/a.py", "runtimes.b", True),
    ],
)
def test_an_import_that_goes_up_is_found(place: str, imported: str, is_down: bool, tmp_path: Path) -> None:
    plant(tmp_path, {place: f"def f():\n    import {imported}\n", imported.replace(".", "/") + ".py": LINE})
    assert (upward_imports(tmp_path) == []) is is_down


def test_a_long_file_is_found(tmp_path: Path) -> None:
    plant(tmp_path, {"edge/long.py": LINE * 501, "edge/short.py": LINE * 500, "tests/test_long.py": LINE * 501})
    assert long_files(tmp_path) == ["edge/long.py", "tests/test_long.py"]


def test_a_long_function_is_found(tmp_path: Path) -> None:
    body = "    x = 1\n"
    text = "class A:\n    async def f(self):\n" + f"    {body}" * 60 + "def g():\n" + body * 59
    plant(tmp_path, {"edge/a.py": text})
    assert long_functions(tmp_path) == ["edge/a.py: f has 61 lines"]


def test_small_files_are_found_and_extensions_may_be_small(tmp_path: Path) -> None:
    extensions = ("runtimes/engines/x.py", "converters/a_to_b.py", "edge/tasks/x.py", "edge/__init__.py")
    plant(tmp_path, dict.fromkeys((*extensions, "edge/small.py"), LINE) | {"edge/large.py": LINE * 61})
    assert small_files(tmp_path) == ["edge/small.py"]


def test_a_small_file_with_one_importer_is_found(tmp_path: Path) -> None:
    plant(tmp_path, {"edge/small.py": LINE, "edge/user.py": "import edge.small\n" + LINE * 60})
    assert misplaced_files(tmp_path) == ["edge/small.py belongs in edge.user"]
    plant(tmp_path, {"edge/other.py": "import edge.small\n" + LINE * 60})
    assert misplaced_files(tmp_path) == []


def listed_formats(root: Path) -> list[str]:
    """Comparisons with two or more names of formats: what these have in common is a field of the table of formats."""
    found = []
    for name, path in modules(root).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_format = isinstance(node, ast.Compare) and "format" in ast.unparse(node.left)
            for side in node.comparators if is_format else ():
                words = getattr(side, "elts", ())
                if sum(isinstance(one, ast.Constant) and one.value in FORMATS for one in words) > 1:
                    found.append(f"{name}:{node.lineno}")
    return found


def test_formats_are_listed_in_their_table_alone() -> None:
    assert listed_formats(ROOT) == []


def test_a_comparison_with_several_formats_is_found(tmp_path: Path) -> None:
    text = 'x = a.format in ("tflite", "edgetpu")\ny = format in ("onnx", g) or engine in ("openvino", "edgetpu")\n'
    plant(tmp_path, {"edge/a.py": text})
    assert listed_formats(tmp_path) == ["edge.a:1"]


_MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping"}


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_untyped(node: ast.AST) -> bool:
    """Whether an annotation says no more than "some JSON object": `dict[str, Any]`, `Mapping[str, object]`, ..."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Tuple):
        return False
    key, *values = node.slice.elts
    return (
        _name(node.value) in _MAPPINGS and _name(key) == "str" and [_name(v) for v in values] in (["Any"], ["object"])
    )


def _untyped_aliases(tree: ast.Module) -> set[str]:
    found = set()
    for node in tree.body:
        value = getattr(node, "value", None)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and value is not None and _is_untyped(value):
            found.update(map(_name, node.targets if isinstance(node, ast.Assign) else [node.target]))
    return found


def untyped_annotations(sources: dict[str, str]) -> dict[str, int]:
    """How often each module ({its dotted name: its text}) says `dict[str, Any]` or the like; aliases count at each use.

    An annotation in quotes counts too.
    """
    trees = {module: parsed(text) for module, text in sources.items()}
    aliases = {(module, name) for module, tree in trees.items() for name in _untyped_aliases(tree)}
    return {module: count for module, tree in trees.items() if (count := _count(module, tree, aliases))}


def _count(module: str, tree: ast.Module, aliases: set[tuple[str, str]]) -> int:
    nodes = [*ast.walk(tree), *(inner for node in ast.walk(tree) for inner in _quoted(node))]
    known = {name for home, name in aliases if home == module}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            known |= {one.asname or one.name for one in node.names if (node.module, one.name) in aliases}
    used = [node for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return sum(map(_is_untyped, nodes)) + sum(node.id in known for node in used)


def _quoted(node: ast.AST) -> list[ast.AST]:
    """The nodes of an annotation in quotes."""
    annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
    if not isinstance(annotation, ast.Constant) or not isinstance(annotation.value, str):
        return []
    return list(ast.walk(ast.parse(annotation.value, mode="eval")))


def test_values_are_typed_where_processes_and_modules_meet() -> None:
    """Law 5: a `dict[str, Any]` exists only where JSON is read or written."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text("utf-8") for path in _sources()}
    found = untyped_annotations({name.removesuffix(".__init__"): text for name, text in modules.items()})
    most = sorted(found.items(), key=lambda one: -one[1])
    assert sum(found.values()) <= MAX_UNTYPED, most[:20]


def test_an_untyped_annotation_is_counted_however_it_is_written() -> None:
    sources = {
        "a": "Row = dict[str, Any]\ndef f(row: Row) -> Row: ...\n",
        "b": "from a import Row as Line\nlines: list[Line] = []\n",
        "c": "def g(x: typing.Mapping[str, object], y: 'Dict[str, Any]' = None) -> dict[str, int]: ...\n",
        "d": "from typing import Any, Mapping\nnames: Mapping[str, str] = {}\nx: Any = None\n",
    }
    assert untyped_annotations(sources) == {"a": 3, "b": 1, "c": 2}
