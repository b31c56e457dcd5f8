"""`docs/cli.md` is the command line's own help; README and changelog say what is so.

EDGE_WRITE_DOCS=1 pytest tests/test_docs.py    writes docs/cli.md anew
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "cli.md"
# argparse words and wraps its help a little differently in each Python.
WRITTEN_WITH = (3, 11)


def _help(*words: str) -> str:
    command = [sys.executable, "-m", "edge", *words, "--help"]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT).stdout


def _commands() -> list[str]:
    from edge.cli import COMMANDS

    return list(COMMANDS)


def _reference() -> str:
    parts = ["# The command line\n\nWritten by `tests/test_docs.py` from each command's `--help`.\n"]
    parts += [f"## edge\n\n```\n{_help()}```\n"]
    parts += [f"## edge {name}\n\n```\n{_help(name)}```\n" for name in _commands()]
    return "\n".join(parts)


@pytest.mark.skipif(sys.version_info[:2] != WRITTEN_WITH, reason="the reference is written with Python 3.11")
def test_the_reference_is_the_help() -> None:
    found = _reference()
    if os.environ.get("EDGE_WRITE_DOCS"):
        REFERENCE.write_text(found, encoding="utf-8")
    assert REFERENCE.read_text(encoding="utf-8") == found, "EDGE_WRITE_DOCS=1 pytest tests/test_docs.py writes it anew"


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in _commands() if f"edge {name}" not in readme] == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_inside_the_project_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (ROOT / link).exists()] == []


def test_the_readme_starts_with_its_two_commands() -> None:
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:20]
    assert any(line.startswith("make table") for line in first_screen)
    assert any(line.startswith("make test") for line in first_screen)
