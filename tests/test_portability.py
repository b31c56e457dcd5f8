"""Modules that use POSIX-only features say so, and every module can be imported without them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("edge", "converters", "runtimes", "device_profiles")

MODULES = ("fcntl", "termios", "resource", "pwd", "grp", "tty", "pty", "syslog")
CALLS = {
    "os": (
        *("killpg", "setsid", "setpgid", "getpgid", "fork", "wait3", "wait4", "getuid", "geteuid", "uname", "mkfifo"),
        *("getloadavg", "sched_getaffinity", "sched_setaffinity", "sysconf", "confstr", "sync"),
    ),
    "signal": ("SIGKILL", "SIGHUP", "SIGALRM", "SIGSTOP", "SIGUSR1", "setitimer", "alarm"),
    "socket": ("AF_UNIX",),
    "asyncio": ("open_unix_connection", "start_unix_server"),
}
ARGUMENTS = ("start_new_session", "preexec_fn", "process_group")


def posix_only(path: Path) -> list[str]:
    """What a file uses that Windows' Python lacks; nothing where its docstring speaks of POSIX."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if "POSIX" in (ast.get_docstring(tree) or ""):
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            forbidden = {*MODULES, *(f"{module}.{name}" for module, calls in CALLS.items() for name in calls)}
            found += [name for name in names if name in forbidden]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in CALLS.get(node.value.id, ()):
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.keyword) and node.arg in ARGUMENTS:
            found.append(str(node.arg))
    return found


def sources() -> list[Path]:
    return [path for room in PACKAGES for path in sorted((ROOT / room).rglob("*.py"))]


def test_what_posix_alone_has_is_used_in_modules_that_say_so() -> None:
    found = {str(path.relative_to(ROOT)): posix_only(path) for path in sources()}
    assert {place: names for place, names in found.items() if names} == {}


def test_a_call_that_posix_alone_has_is_found(tmp_path: Path) -> None:
    text = (
        "import fcntl\nfrom os import fork\nos.killpg(1, signal.SIGKILL)\nf(start_new_session=True)\nsocket.AF_UNIX\n"
    )
    path = tmp_path / "a.py"
    path.write_text(text)
    found = ["fcntl", "os.fork", "os.killpg", "signal.SIGKILL", "socket.AF_UNIX", "start_new_session"]
    assert sorted(posix_only(path)) == found
    path.write_text(f'"""Uses POSIX."""\n{text}')
    assert posix_only(path) == []


IMPORT_ALL = """
import importlib, os, signal, sys
for name in {modules!r}:
    sys.modules[name] = None  # importing it raises ImportError, as on Windows
for module, names in (("os", {os!r}), ("signal", {signal!r})):
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
failed = []
for name in {ours!r}:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append(f"{{name}}: {{error!r}}")
print("\\n".join(failed))
"""


def import_all(root: Path, ours: list[str]) -> str:
    calls = [name for name in CALLS["os"] if name != "uname"]  # Linux' own Python and numpy ask for it
    code = IMPORT_ALL.format(modules=MODULES, os=calls, signal=CALLS["signal"], ours=ours)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    return done.stdout.strip()


def test_every_module_is_imported_without_what_posix_alone_has() -> None:
    ours = []
    for path in sources():
        parts = path.relative_to(ROOT).with_suffix("").parts
        # Scripts that other environments run, and the command itself, which runs when it is imported.
        if parts[-1] not in ("__main__", "job"):
            ours.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    assert len(ours) > 300
    assert import_all(ROOT, ours) == ""


def test_a_module_that_needs_posix_is_found(tmp_path: Path) -> None:
    (tmp_path / "needs_fcntl.py").write_text("import fcntl\n")
    (tmp_path / "needs_kill.py").write_text("import signal\nKILL = signal.SIGKILL\n")
    (tmp_path / "fine.py").write_text("def f():\n    import fcntl\n")
    told = import_all(tmp_path, ["needs_fcntl", "needs_kill", "fine"])
    assert [line.split(":")[0] for line in told.splitlines()] == ["needs_fcntl", "needs_kill"]


def test_the_functions_of_the_api_stay_functions_when_every_module_is_imported() -> None:
    """A module named like a function would overwrite it in the package."""
    code = """
import edge, importlib, inspect, pkgutil
before = {name: getattr(edge, name) for name in edge.__all__}
for found in pkgutil.walk_packages(edge.__path__, "edge."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
after = {name: getattr(edge, name) for name in edge.__all__}
print(*[name for name in before if after[name] is not before[name]])
print(*[name for name in after if name != "__version__" and not callable(after[name])])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []
