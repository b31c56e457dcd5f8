"""The page's JavaScript has types, in comments: TypeScript checks them, without a build step."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.npm import need_typescript

PAGE = Path(__file__).parents[3] / "converters" / "browser" / "page"
OPTIONS = (
    *("--noEmit", "--allowJs", "--checkJs", "--strict", "--target", "es2023", "--module", "esnext"),
    *("--moduleResolution", "bundler", "--lib", "es2023,dom,dom.iterable"),
)
# Nothing imports these by a constant name.
ROOTS = ("app.js", "service-worker.js", "engines/litert_js.js", "engines/ort_web.js")


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("node") is None:
        assert not os.environ.get("CI"), "CI has to install node"
        pytest.skip("node is not installed")
    folder = tmp_path_factory.mktemp("typescript")
    with tarfile.open(need_typescript()) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package" / "lib" / "tsc.js"


def _errors(compiler: Path, page: Path) -> list[str]:
    command = ["node", str(compiler), *OPTIONS, *ROOTS]
    done = subprocess.run(command, cwd=page, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if done.stdout else 0), done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith(" ")]


def test_every_module_is_reached_and_its_types_fit(compiler) -> None:
    assert _errors(compiler, PAGE) == []
    command = ["node", str(compiler), *OPTIONS, "--listFilesOnly", *ROOTS]
    listed = subprocess.run(command, cwd=PAGE, capture_output=True, text=True, check=True)
    reached = {(PAGE / line).resolve() for line in listed.stdout.splitlines()}
    assert {path.resolve() for path in PAGE.rglob("*.js")} <= reached


@pytest.mark.parametrize(
    ("file", "right", "wrong", "words"),
    [
        ("tasks/detection.js", "boxToPicture(one.box, placement)", "boxToPicture(placement, one.box)", "TS2345"),
        ("app.js", "fitted.placement)", "fitted.placment)", "did you mean 'placement'"),
        ("statistics.js", " * @param {ArrayLike<number>} samples\n", "", "TS7006"),
        ("backends.js", "readFile(manifest, manifest.model)", "readFile(manifest.model)", "TS2554"),
    ],
)
def test_a_planted_fault_is_found(file, right, wrong, words, compiler, tmp_path) -> None:
    page = Path(shutil.copytree(PAGE, tmp_path / "page"))
    text = (page / file).read_text(encoding="utf-8")
    assert right in text
    (page / file).write_text(text.replace(right, wrong), encoding="utf-8")
    (error,) = _errors(compiler, page)
    assert error.startswith(f"{file}(")
    assert words.lower() in error.lower()
