"""How many conversions have passed the proof, and is any of them wrong?

`python -m tests.breadth.judged --out docs/reference/conversions.md` makes the conversions that are missing (ONNX's node
tests, the networks of the breadth matrix, the real files, and with `--cases FOLDER` the models of a folder), then sums
all up. Each result is stored as soon as it is known, so the command can be interrupted and resumed. `--suite` chooses
what is made, `--until HH:MM` when no more is begun, and `--table` makes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.breadth import node_tests
from tests.breadth.case_files import case_files

_HERE = Path(__file__).resolve().parent
_STORES = {
    "node tests": "node_tests.jsonl",
    "networks": "results.jsonl",
    "real files": "real_files.jsonl",
    "cases": "case_files.jsonl",
}
_RIGHT = ("right", "pass")
_WRONG = "WRONG"
_INTRO = """# Judged conversions

Conversions that passed edge's proof, and what a judge said of them that is not the proof. `python -m
tests.breadth.judged --out docs/reference/conversions.md` makes those that are missing, and writes this page.

- **node tests**: [ONNX's own tests of its operators](node-tests.md). The plain engine of the result, given the inputs
  of the test, gives its outputs.
- **networks**: networks of Keras, torchvision and transformers with random weights (`tests/breadth/matrix.py`). The
  answers to fresh inputs are the library's own.
- **real files**: [public models](real-models.md) of many kinds. The plain engines of source and result agree on fresh
  inputs.
- **cases**: small ONNX models of kinds that people report as failing. The plain engine of the result answers as ONNX
  Runtime does.

A model counts once, however many targets it is converted to, and two files that differ in nothing but names are one.
"""


@dataclass(frozen=True)
class Outcome:
    """What became of one conversion.

    model: The model, the same for two files that compute the same.
    is_right: Whether the judge agrees; None if the proof did not accept the conversion.
    """

    suite: str
    target: str
    model: str
    is_right: bool | None


def outcomes(folder: Path) -> Iterator[Outcome]:
    """Read the stored results; of two for the same conversion, the later one counts."""
    found: dict[tuple[str, ...], Outcome] = {}
    for suite, name in _STORES.items():
        store = folder / name
        for line in store.read_text().splitlines() if store.exists() else ():
            row = json.loads(line)
            title = row.get("case") or row.get("network") or row["model"]
            is_right = {_WRONG: False}.get(row["state"], True if row["state"] in _RIGHT else None)
            model = row["model"] if "model" in row else f"{row['library']} {title}"
            found[suite, title, row["target"]] = Outcome(suite, row["target"], model, is_right)
    yield from found.values()


def page(found: Sequence[Outcome]) -> str:
    """Return Markdown: a row for each suite and target, then the totals."""
    lines = [
        "| suite | target | passed the proof | judged right | wrong | different models |",
        "|---|---|---|---|---|---|",
    ]
    for suite, target in dict.fromkeys((one.suite, one.target) for one in found):
        ours = [one for one in found if (one.suite, one.target) == (suite, target)]
        lines.append(f"| {suite} | {target} | " + " | ".join(map(str, _counts(ours))) + " |")
    passed, right, wrong, models = _counts(found)
    total = f"{passed} conversions of {models} different models passed the proof: {right} judged right, {wrong} wrong."
    return "\n".join([_INTRO, total, "", *lines])


def _counts(found: Sequence[Outcome]) -> tuple[int, int, int, int]:
    """Return how many conversions passed, were judged right and wrong, and of how many models."""
    passed = [one for one in found if one.is_right is not None]
    right = sum(bool(one.is_right) for one in passed)
    return len(passed), right, len(passed) - right, len({one.model for one in passed})


def make(suites: Sequence[str], cases: Path | None, until: str | None) -> None:
    """Make the conversions that the stores lack."""
    more = ["--until", until] if until else []
    small = {
        "node tests": node_tests.cases() if "node tests" in suites else [],
        "cases": case_files(cases) if "cases" in suites and cases is not None else [],
    }
    for suite, chosen in small.items():
        for target in node_tests.TARGETS:
            node_tests.fill(_HERE / _STORES[suite], chosen, target, until)
    if "real files" in suites:
        subprocess.run([sys.executable, "-m", "tests.breadth.real_files", *more], check=True)
    if "networks" in suites:
        matrix = [sys.executable, str(_HERE / "matrix.py"), "--out", str(_HERE / _STORES["networks"]), *more]
        libraries = ["keras", "transformers", *(["torchvision"] if "BREADTH_SITE" in os.environ else [])]
        subprocess.run([*matrix, *(word for one in libraries for word in ("--only", one))], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the page here")
    parser.add_argument("--suite", action="append", choices=list(_STORES))
    parser.add_argument("--cases", type=Path, metavar="FOLDER", help="a folder of ONNX models")
    parser.add_argument("--until", metavar="HH:MM", help="begin no conversion after this time")
    parser.add_argument("--table", action="store_true", help="sum up what is there, and convert nothing")
    args = parser.parse_args()
    if not args.table:
        make(args.suite or list(_STORES), args.cases, args.until)
    text = page(list(outcomes(_HERE)))
    if args.out:
        args.out.write_text(f"{text}\n")
    print(text)


if __name__ == "__main__":
    main()
