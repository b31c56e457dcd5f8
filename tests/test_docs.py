"""The documentation is true: links lead somewhere, commands parse, examples run.

EDGE_WRITE_DOCS=1 pytest tests/test_docs.py    writes docs/reference/cli.md from the help texts
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.errors import UsageError
from tests.markdown import anchors, broken_links, commands, examples, links, missing_paths, run_examples, split

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference" / "cli.md"
README = ROOT / "README.md"
MAX_README_LINES = 150
# argparse words and wraps its help a little differently in each Python.
WRITTEN_WITH = (3, 11)
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _help(*words: str) -> str:
    command = [sys.executable, "-m", "edge", *words, "--help"]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT).stdout


def _commands() -> list[str]:
    from edge.cli import COMMANDS

    return list(COMMANDS)


def _reference() -> str:
    parts = [
        "# The command line\n\n"
        "Every command's `--help`, written by `EDGE_WRITE_DOCS=1 pytest tests/test_docs.py`. Do not edit it by hand.\n"
    ]
    parts += [f"## edge\n\n```text\n{_help()}```\n"]
    parts += [f"## edge {name}\n\n```text\n{_help(name)}```\n" for name in _commands()]
    return "\n".join(parts)


def _rejected(page: Path) -> list[str]:
    """The `edge` command lines of a page that the real parser does not accept."""
    from edge.cli import COMMANDS, _parser, _split

    wrong = []
    for number, words in commands(page.read_text(encoding="utf-8")):
        where = f"{page.name}:{number}: edge {' '.join(words)}"
        command = next((word for word in words if word in COMMANDS), None)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                _, unknown = _parser(command).parse_known_args(_split(words, command)[0])
        except UsageError as error:
            wrong.append(f"{where}: {error.message}")
        except SystemExit as leaving:  # --help and --version
            if leaving.code:
                wrong.append(where)
        else:
            if unknown or command is None:
                wrong.append(f"{where}: unknown words {unknown or words}")
    return wrong


@pytest.mark.skipif(sys.version_info[:2] != WRITTEN_WITH, reason="the reference is written with Python 3.11")
def test_the_reference_is_the_help() -> None:
    found = _reference()
    if os.environ.get("EDGE_WRITE_DOCS"):
        REFERENCE.write_text(found, encoding="utf-8")
    assert REFERENCE.read_text(encoding="utf-8") == found, "EDGE_WRITE_DOCS=1 pytest tests/test_docs.py writes it anew"


def test_the_readme_names_every_command() -> None:
    readme = README.read_text(encoding="utf-8")
    assert [name for name in _commands() if f"edge {name}" not in readme] == []


def test_the_readme_starts_with_its_two_commands() -> None:
    first_screen = README.read_text(encoding="utf-8").splitlines()[:20]
    assert any(line.startswith("make table") for line in first_screen)
    assert any(line.startswith("make test") for line in first_screen)


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def test_the_readme_leads_to_every_page() -> None:
    found, todo = set[Path](), [README.resolve()]
    while todo:
        page = todo.pop()
        found.add(page)
        named = {(page.parent / target.split("#")[0]).resolve() for _, target in links(page.read_text("utf-8"))}
        todo += [one for one in named if one.suffix == ".md" and one.exists() and one not in {*found, *todo}]
    assert [_id(page) for page in PAGES if page.resolve() not in found] == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    assert broken_links(page, ROOT) == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_files_that_a_page_names_exist(page: Path) -> None:
    assert missing_paths(page, ROOT) == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_the_parser_accepts_every_edge_command(page: Path) -> None:
    assert _rejected(page) == []


@pytest.fixture
def example_folder(tmp_path: Path) -> Path:
    """The files that the Python examples name."""
    (tmp_path / "recordings").mkdir()
    values = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    for index, row in enumerate(values):
        np.save(tmp_path / "recordings" / f"{index}.npy", row)
    onnx, pictures = pytest.importorskip("onnx"), pytest.importorskip("PIL.Image")
    for library in ("onnxruntime", "xllamacpp"):
        pytest.importorskip(library)
    shutil.copytree(ROOT / "tests" / "compatibility" / "artifacts" / "gguf-fp16", tmp_path / "tiny-gguf")
    onnx.save(_classifier(), tmp_path / "model.onnx")
    pictures.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "cat.png")
    return tmp_path


def _classifier() -> Any:
    """Ten classes of an image of 3×32×32, with seeded weights."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(10, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["features"], ["means"]),
        helper.make_node("Flatten", ["means"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["classes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page.read_text(encoding="utf-8"))], ids=_id)
def test_the_python_examples_run(page: Path, example_folder: Path) -> None:
    done = run_examples(page, example_folder)
    assert done.returncode == 0, done.stderr


ARCHITECTURE = ROOT / "docs" / "architecture.md"
_STEP = re.compile(r"((?:edge|converters|runtimes)/[\w/]+\.py)\s+([A-Za-z_][\w.]*)")


def _missing_steps(text: str) -> list[str]:
    """The steps of the walks, a file and what is called in it, that the code does not have."""
    wrong = []
    for file, name in (step for block in split(text)[1] for line in block.lines for step in _STEP.findall(line)):
        code = (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).exists() else ""
        for part in name.split("."):
            if not re.search(rf"^ *(?:def|class) {part}\b|^(?:from .* import .*\b)?{part}\b", code, re.MULTILINE):
                wrong.append(f"{file} {name}")
    return wrong


def test_the_walks_of_the_architecture_are_in_the_code() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    assert text.count("──►") > 3
    assert len(_STEP.findall(text)) > 40
    assert _missing_steps(text) == []


class TestTheChecksThemselves:
    """Each check finds a planted fault."""

    def test_a_failing_example_is_reported_with_its_line(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("# A page\n\n```python\nx = 1\n```\n\n```python\nassert x == 2, 'planted'\n```\n")
        done = run_examples(page, tmp_path)
        assert done.returncode != 0
        assert "planted" in done.stderr
        assert f'{page}", line 8' in done.stderr

    def test_examples_share_their_variables_and_see_the_folder(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("```python\nx = 1\n```\n\n```python\nopen('out.txt', 'w').write(str(x))\n```\n")
        assert run_examples(page, tmp_path).returncode == 0
        assert (tmp_path / "out.txt").read_text() == "1"

    @pytest.mark.parametrize(
        ("target", "why"),
        [
            ("missing.md", "does not exist"),
            ("other.md#nowhere", "has no such heading"),
            ("#nowhere", "has no such heading"),
            ("../outside.md", "leaves the project"),
        ],
    )
    def test_a_broken_link_is_found(self, tmp_path: Path, target: str, why: str) -> None:
        (tmp_path / "other.md").write_text("# Somewhere\n")
        page = tmp_path / "page.md"
        page.write_text(f"# A page\n\nSee [this]({target}).\n")
        (line,) = broken_links(page, tmp_path)
        assert line == f"page.md:3: {target} {why}"

    def test_a_link_that_holds_is_not_reported(self, tmp_path: Path) -> None:
        (tmp_path / "other.md").write_text("# Two `words`, here\n\n## Again\n\n## Again\n")
        page = tmp_path / "page.md"
        page.write_text(
            "[a](other.md#two-words-here) [b](other.md#again-1) [c](https://example.org/x.md)\n"
            "`[d](missing.md)`\n\n```\n[e](missing.md)\n```\n"
        )
        assert broken_links(page, tmp_path) == []

    def test_a_file_that_was_moved_away_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "runtimes").mkdir()
        page = tmp_path / "page.md"
        page.write_text("`runtimes/<id>.py` is there, `~/.cache/edge/x` is elsewhere,\n`runtimes/moved.py` is gone.\n")
        assert missing_paths(page, tmp_path) == ["page.md:2: runtimes/moved.py"]

    @pytest.mark.parametrize(
        "line",
        [
            "edge convret model.onnx",
            "edge convert model.onnx --too onnx",
            "edge check model.onnx  # --for is missing",
            "cat notes.txt | edge chat model.gguf --no-such-option",
        ],
    )
    def test_a_command_that_does_not_parse_is_found(self, tmp_path: Path, line: str) -> None:
        page = tmp_path / "page.md"
        page.write_text(f"```sh\n{line}\n```\n")
        assert len(_rejected(page)) == 1

    def test_command_lines_are_read_as_a_shell_reads_them(self) -> None:
        text = (
            "```sh\nedge run a b.jpg  # a comment\n$ edge convert model.keras \\\n    --to onnx > out.txt\n"
            "EDGE_API_KEY=abc edge chat --server URL\ngit diff | edge chat model.gguf 'a message'\n"
            "edge doctor\n```\n\n```python\nedge = 1\n```\n\n- In a list:\n\n  ```sh\n  edge devices\n  ```\n"
        )
        assert [words for _, words in commands(text)] == [
            ["run", "a", "b.jpg"],
            ["convert", "model.keras", "--to", "onnx"],
            ["chat", "--server", "URL"],
            ["chat", "model.gguf", "a message"],
            ["doctor"],
            ["devices"],
        ]
        assert [number for number, _ in commands(text)] == [2, 3, 5, 6, 7, 17]

    def test_headings_become_the_anchors_of_github(self) -> None:
        text = "# What `edge bench` does: a story\n\n```\n# not a heading\n```\n\n## Coral, Movidius & co\n"
        assert anchors(text) == {"what-edge-bench-does-a-story", "coral-movidius--co"}

    def test_a_step_that_the_code_does_not_have_is_found(self) -> None:
        text = "```text\nedge/api.py  convert\n└ edge/api.py  covnert\n└ edge/moved.py  run  why\n```\n"
        assert _missing_steps(text) == ["edge/api.py covnert", "edge/moved.py run"]

    def test_a_fence_that_is_not_closed_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="not closed"):
            split("```sh\nedge devices\n")


def _example_of(page: str, language: str) -> str:
    text = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    (block,) = [block for block in split(text)[1] if block.language == language]
    return "\n".join(block.lines) + "\n"


class TestTheReferencePages:
    def test_the_example_of_the_manifest_is_a_manifest(self) -> None:
        from runtimes.artifact import Manifest

        text = _example_of("manifest.md", "json")
        assert Manifest.from_json(text, "the example").to_json() == text

    def test_the_example_of_a_profile_is_the_file(self) -> None:
        example = _example_of("device-profiles.md", "toml")
        assert example == (ROOT / "device_profiles" / "coral-usb.toml").read_text(encoding="utf-8")

    def test_every_key_of_a_manifest_is_described(self) -> None:
        from runtimes.artifact import Manifest, OutputMeaning, Preprocess, Quantization, SelfCheck, TensorSpec

        described = (ROOT / "docs" / "reference" / "manifest.md").read_text(encoding="utf-8")
        kinds = (Manifest, TensorSpec, Quantization, Preprocess, OutputMeaning, SelfCheck)
        names = {field.name for kind in kinds for field in fields(kind)}
        assert sorted(name for name in names if f"`{name}`" not in described) == []

    def test_every_key_of_a_profile_is_described(self) -> None:
        from device_profiles import facts
        from device_profiles.profiles import Profile

        described = (ROOT / "docs" / "reference" / "device-profiles.md").read_text(encoding="utf-8")
        tables = [kind for kind in vars(facts).values() if is_dataclass(kind)]
        names = {field.name for kind in tables for field in fields(kind)}
        # The id is the file's stem, parts are the joined profiles, and accelerators are one [accelerator] each.
        names |= {field.name for field in fields(Profile)} - {"id", "parts", "accelerators"} | {"accelerator"}
        missing = [name for name in names if not any(f"{a}{name}{b}" in described for a, b in ("``", "[]"))]
        assert sorted(missing) == []
