"""Private words that were replaced by the field's own do not come back, and one spelling is used: the American one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("edge", "converters", "runtimes", "device_profiles")

# Names of functions, classes and files; those that came back with a meaning of their own (Task, Plan) are not listed.
_WORDS = """
    step_id find_steps StepOptions Made StandIn Truth establish Witness Testimony prove translated run_steps blamed
    mended Said meaning_of Judge useful_line Wish make_plan examined TextWish Here LineLost NoAnswer after_start_files
    beside_this_machine Kitchen Likeness Happening take_back take_back_answer go_on Todo OpenModel WarmModel
    protocol_of EngineMissing Crashed TimedOut OutOfMemory UnknownProfile CannotLower Situation same_folder
    Traced traced inlined unrolled packed opened explained wrapped counted aligned stacked measured prepared resized
    reshaped
    kitchen truth patience onnx_half quiet blame mending bare bare_given beside survey kept look
"""
REPLACED = frozenset(_WORDS.split())
# A limit is a MAX_...
_LIMIT = re.compile(r"_?(MOST|LARGEST)_[A-Z]")


def replaced_names(root: Path) -> list[str]:
    """Where a replaced name is defined, or names a file."""
    found = []
    for path in (path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))):
        place = path.relative_to(root).as_posix()
        names = [path.stem]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.append(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and _LIMIT.match(node.id):
                names.append(node.id)
        found += [f"{place}: {name}" for name in names if name in REPLACED or _LIMIT.match(name)]
    return found


def test_replaced_names_are_gone() -> None:
    assert replaced_names(ROOT) == []


def test_a_replaced_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "edge").mkdir()
    text = "_MOST_ROWS = 3\nclass Truth:\n    def fine(self):\n        def prove(): ...\n"
    (tmp_path / "edge" / "kitchen.py").write_text(text)
    found = ["kitchen", "Truth", "_MOST_ROWS", "prove"]
    assert replaced_names(tmp_path) == [f"edge/kitchen.py: {name}" for name in found]


_BRITISH = re.compile(
    r"(?:quant|recogn|normal|initial|token|serial|summar|util|synchron|minim|maxim|organ|visual|standard|optim)"
    r"is(?:e|ing|ation)|colour|behaviour|centre|neighbour|favour|flavour|labelled|judgement|grey",
    re.IGNORECASE,
)
# Published names: a key of `edge check --json`, and a table that older device profiles may have. The others are a breed
# of dogs and an attribute of HTML.
_KEPT = {"recognise", "after_quantisation", "greyhound", "labelledby"}
_SUFFIXES = {".py", ".md", ".toml", ".js", ".html", ".css", ".json"}


def british_words(root: Path) -> list[str]:
    """Return words in British spelling, in texts and in the names of files."""
    found = []
    folders = [root / name for name in (*PACKAGES, "tests", "docs")]
    for path in sorted(path for folder in (root, *folders) for path in folder.glob("*" if folder == root else "**/*")):
        place = path.relative_to(root).as_posix()
        if path.suffix not in _SUFFIXES or "compatibility/artifacts" in place or path == Path(__file__):
            continue
        words = set(re.findall(r"\w+", f"{place} {path.read_text(encoding='utf-8')}"))
        found += [f"{place}: {word}" for word in sorted(words - _KEPT) if _BRITISH.search(word)]
    return found


def test_one_spelling_is_used() -> None:
    assert british_words(ROOT) == []


def test_british_spelling_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "labelled.md").write_text(
        "Quantising is optimistic. `after_quantisation`, gray, COLOURS, recognise\n"
    )
    assert british_words(tmp_path) == [f"docs/labelled.md: {word}" for word in ("COLOURS", "Quantising", "labelled")]
