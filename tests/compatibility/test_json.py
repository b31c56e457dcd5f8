"""What programs read in `--json` does not change: `json/<command>.json` has the keys and types of 0.1.0 for each case.

A shape is the name of a type, several joined by `|`, `{key: shape}` for an object, `[shape]` for a list, all of whose
elements it describes, and a `?` after a key that not every element of a list has. New keys are fine. To pin them as
well, write the files again and read the difference:

    EDGE_WRITE_GOLDEN=1 pytest tests/compatibility/test_json.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "json"
Answer = dict[str, Any]
Shape = Any

# Command → its cases in conftest.py.
CASES = {
    "devices": ["this machine", "a board"],
    "inspect": ["a bare file", "an artifact", "an Edge TPU model", "a language model"],
    "check": [
        *("a processor", "an Edge TPU", "an Edge TPU, before quantization", "a Jetson", "a Movidius"),
        "a language model",
    ],
    "convert": [
        *("made-up inputs", "int8, with accuracy", "for the Edge TPU, not compiled", "a plan", "a language model"),
        "a language model's plan",
    ],
    "estimate": ["all devices"],
    "quantize": ["with perplexity", "without"],
    "verify": ["right", "wrong", "a language model"],
    "run": ["an artifact", "a bare file"],
    "evaluate": ["two models"],
    "bench": ["measured", "steady, compared", "not measured", "a language model"],
    "history": ["removed"],
    "report": ["an artifact"],
    "tune": ["one engine"],
    "table": ["one setup"],
    "deploy": ["an artifact", "uninstalled"],
    "chat": ["one answer"],
    "serve": ["with a new key", "on loopback"],
    "worker": ["ready"],
    "doctor": ["this machine", "a board"],
}
# The table converts MobileNetV2, which takes 45 s of CPU time.
SLOW = {"table": [pytest.mark.slow]}
# Objects whose keys are data: names of devices, operators, files. All their values have one shape.
BY_NAME = ("ops", "parameter_bytes", "files", "tensors", "libraries", "cpu_ops", "left", "settings")
# Facts that can be read on one machine and not on another.
VARIES = ("conditions", "machine", "energy_source", "energy_note", "energy_per_run_j", "energy_j", "other_cores")


def shape_of(value: Any, key: str = "") -> Shape:
    if isinstance(value, dict) and key in BY_NAME:
        return {"*": merged([shape_of(one) for one in value.values()])}
    if isinstance(value, dict):
        return {name: shape_of(one, name) for name, one in sorted(value.items())}
    if isinstance(value, list):
        return [merged([shape_of(one) for one in value])]
    if value is None:
        return "null"
    return {bool: "boolean", int: "number", float: "number", str: "string"}[type(value)]


def merged(shapes: list[Shape]) -> Shape:
    """Return one shape for all elements of a list; None if it is empty. An object that may be null is an object."""
    shapes = [one for one in shapes if one is not None]
    if not all(isinstance(one, str) for one in shapes):
        shapes = [one for one in shapes if one != "null"]
    if not shapes:
        return None
    if all(isinstance(one, dict) for one in shapes):
        return _merged_objects(shapes)
    if all(isinstance(one, list) for one in shapes):
        return [merged([one[0] for one in shapes])]
    assert all(isinstance(one, str) for one in shapes), f"one key holds {shapes}"
    return "|".join(sorted({kind for word in shapes for kind in word.split("|")}))


def _merged_objects(shapes: list[dict[str, Shape]]) -> Shape:
    found = {}
    for name in sorted({name for one in shapes for name in one}):
        having = [one[name] for one in shapes if name in one]
        found[name if len(having) == len(shapes) else f"{name}?"] = merged(having)
    return found


def lost(before: Shape, now: Shape, where: str = "", varies: bool = False) -> Iterator[str]:
    """Return what a program that reads `before` would miss, or find with another type."""
    if before in (None, "null") or now is None or (varies and now == "null"):
        return  # the value is unknown, or cannot be read on this machine
    if isinstance(before, dict):
        if not isinstance(now, dict):
            yield f"{where or 'all'} was an object, is {now}"
            return
        there = {name.rstrip("?"): (name, one) for name, one in now.items()}
        for name, one in before.items():
            plain = name.rstrip("?")
            if plain not in there:
                if plain == name and name != "*":
                    yield f"{where}.{name} is gone".lstrip(".")
            elif there[plain][0] != plain and plain == name:
                yield f"{where}.{name} is not in all elements".lstrip(".")
            else:
                yield from lost(one, there[plain][1], f"{where}.{plain}".lstrip("."), varies or plain in VARIES)
    elif isinstance(before, list):
        if not isinstance(now, list):
            yield f"{where or 'all'} was a list, is {now}"
            return
        yield from lost(before[0], now[0], f"{where}[]", varies)
    elif not isinstance(now, str) or not set(now.split("|")) <= {*before.split("|"), *(["null"] if varies else [])}:
        yield f"{where or 'all'} was {before}, is {now}"


def golden(command: str) -> dict[str, Shape]:
    return dict(json.loads((FOLDER / f"{command}.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("command", "case"),
    [pytest.param(command, case, marks=SLOW.get(command, [])) for command, cases in CASES.items() for case in cases],
)
def test_an_answer_keeps_its_keys(command: str, case: str, answer: Callable[[str, str], Answer]) -> None:
    found = shape_of(answer(command, case)["stdout"])
    path = FOLDER / f"{command}.json"
    if os.environ.get("EDGE_WRITE_GOLDEN"):
        known = golden(command) if path.exists() else {}
        text = json.dumps({**known, case: found}, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    assert list(lost(golden(command)[case], found)) == []


def test_every_command_with_json_has_its_file() -> None:
    assert sorted(CASES) == sorted(path.stem for path in FOLDER.iterdir())
    for command, cases in CASES.items():
        assert sorted(golden(command)) == sorted(cases)


BEFORE = {"a": "number", "rows": [{"top": ["string"], "more?": "null|number"}], "machine": {"mhz": "number"}}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, ["a is gone", "rows is gone", "machine is gone"]),
        ({"a": "1"}, ["a was number, is string", "rows is gone", "machine is gone"]),
        ({"a": None, "rows": [], "machine": {"mhz": None}}, ["a was number, is null"]),
        ({"a": 1, "rows": {}, "machine": {"mhz": 1}}, ["rows was a list, is {}"]),
        ({"a": 1, "rows": [{"top": []}, {}], "machine": {"mhz": 1}}, ["rows[].top is not in all elements"]),
        ({"a": 1, "rows": [{"top": [1]}], "machine": {"mhz": 1}}, ["rows[].top[] was string, is number"]),
        ({"a": 1, "rows": [], "machine": {"mhz": "1"}}, ["machine.mhz was number, is string"]),
        ({"a": {}, "rows": [], "machine": {"mhz": 1}}, ["a was number, is {}"]),
        (
            {"a": 1, "rows": [{"top": ["x"], "more": True}], "machine": {"mhz": 1}},
            ["rows[].more was null|number, is boolean"],
        ),
    ],
)
def test_what_a_program_would_miss_is_noticed(answer: Answer, words: list[str]) -> None:
    assert list(lost(BEFORE, shape_of(answer))) == words


@pytest.mark.parametrize(
    "answer",
    [
        {"a": 1.5, "rows": [{"top": ["x"], "more": 2}], "machine": {"mhz": 1}, "new": True},
        {"a": 1, "rows": [{"top": [], "new": 1}], "machine": {"mhz": None}},
    ],
)
def test_more_keys_are_no_loss(answer: Answer) -> None:
    assert list(lost(BEFORE, shape_of(answer))) == []
