"""No command loses an option, a default, a choice or an accepted value: `parsers.json` describes 0.1.0.

Additions are fine: a new optional option or positional argument, one more choice, one more name. To pin them, write the
file again and read the difference:

    EDGE_WRITE_GOLDEN=1 pytest tests/compatibility/test_parsers.py
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge.cli import main

GOLDEN = Path(__file__).with_name("parsers.json")
COMMANDS = [
    *("devices", "inspect", "check", "convert", "quantize", "verify", "run", "bench", "table", "deploy", "chat"),
    *("serve", "worker", "doctor"),
]
# Words that are passed to an option's type: the golden file has those that it accepts, and the values.
WORDS = ["", "0", "1", "-1", "2.5", "0.5", "1e3", "inf", "nan", "x", "a=b", "1,2,3", "1,2", "65535", "65536", "129"]

Description = dict[str, Any]


def parser_of(*words: str) -> argparse.ArgumentParser:
    """Return the parser that prints the help of a command."""
    found: list[argparse.ArgumentParser] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "print_help", lambda self, file=None: found.append(self))
        with pytest.raises(SystemExit):
            main([*words, "--help"])
    return found[0]


def described(parser: argparse.ArgumentParser) -> Description:
    """Return everything that a caller may rely on, as JSON."""
    actions = [one for one in parser._actions if not isinstance(one, argparse._SubParsersAction)]
    options = {max(one.option_strings, key=len): _action(one) for one in actions if one.option_strings}
    groups = [sorted(one.dest for one in group._group_actions) for group in parser._mutually_exclusive_groups]
    return {
        "positionals": [_action(one) for one in actions if not one.option_strings],
        "options": dict(sorted(options.items())),
        "exclusive": sorted(groups),
    }


def _action(action: argparse.Action) -> Description:
    return {
        "names": sorted(action.option_strings),
        "dest": action.dest,
        "action": type(action).__name__.strip("_").removesuffix("Action"),
        "nargs": action.nargs,
        "const": action.const,
        "default": _plain(action.default),
        "choices": None if action.choices is None else [_plain(one) for one in action.choices],
        "required": action.required,
        "takes": _takes(action.type),
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _takes(kind: Any) -> Any:
    """Return `text`, `path`, or for numbers and the like the value of each of WORDS."""
    if kind is None or kind is Path:
        return "path" if kind else "text"
    return {word: _converted(kind, word) for word in WORDS}


def _converted(kind: Callable[[str], Any], word: str) -> str:
    try:
        value = kind(word)
    except (argparse.ArgumentTypeError, TypeError, ValueError):
        return "refused"
    return f"{type(value).__name__} {value}"


def differences(before: Description, now: Description) -> list[str]:
    """Return what was removed or changed; empty if there are only additions."""
    found = []
    for place, positional in enumerate(before["positionals"]):
        if place >= len(now["positionals"]):
            found.append(f"the argument {positional['dest']} is gone")
        else:
            found += _changes(positional["dest"], positional, now["positionals"][place])
    for one in now["positionals"][len(before["positionals"]) :]:
        if one["nargs"] not in ("?", "*"):
            found.append(f"{one['dest']} is new and required")
    for name, option in before["options"].items():
        present = next((one for one in now["options"].values() if name in one["names"]), None)
        found += [f"{name} is gone"] if present is None else _changes(name, option, present)
    known = {name for option in before["options"].values() for name in option["names"]}
    for name, option in now["options"].items():
        if option["required"] and not known & set(option["names"]):
            found.append(f"{name} is new and required")
    return found + _exclusions(before, now)


def _changes(name: str, before: Description, now: Description) -> list[str]:
    found = [f"{name}: {word} is gone" for word in before["names"] if word not in now["names"]]
    keys = ("dest", "action", "nargs", "const", "default", "takes")
    found += [f"{name}: {key} was {before[key]!r}, is {now[key]!r}" for key in keys if before[key] != now[key]]
    if now["required"] and not before["required"]:
        found.append(f"{name} is now required")
    if now["choices"] is not None:
        lost = "any" if before["choices"] is None else [one for one in before["choices"] if one not in now["choices"]]
        found += [f"{name}: no longer takes {lost}"] if lost else []
    return found


def _exclusions(before: Description, now: Description) -> list[str]:
    """Return the pairs of options that could be combined, and no longer can."""
    known = {option["dest"] for option in before["options"].values()}
    apart = {frozenset((one, other)) for group in before["exclusive"] for one in group for other in group}
    pairs = {frozenset((one, other)) for group in now["exclusive"] for one in group for other in group}
    return [f"{sorted(pair)} can no longer be combined" for pair in pairs - apart if len(pair) == 2 and pair <= known]


def _document(found: dict[str, Description]) -> str:
    """Return JSON with one line for each argument, for readable differences."""
    commands = []
    for name, command in found.items():
        positionals = ",".join(f"\n  {json.dumps(one)}" for one in command["positionals"])
        options = ",".join(f'\n  "{name}": {json.dumps(one)}' for name, one in command["options"].items())
        parts = f'"positionals": [{positionals}],\n "options": {{{options}}},\n "exclusive": '
        commands.append(f'"{name}": {{\n {parts}{json.dumps(command["exclusive"])}}}')
    return "{\n" + ",\n".join(commands) + "\n}\n"


@pytest.fixture(scope="module")
def golden() -> dict[str, Description]:
    if os.environ.get("EDGE_WRITE_GOLDEN"):
        found = {"edge": described(parser_of()), **{name: described(parser_of(name)) for name in COMMANDS}}
        GOLDEN.write_text(_document(found), encoding="utf-8")
    return dict(json.loads(GOLDEN.read_text(encoding="utf-8")))


@pytest.mark.parametrize("command", ["edge", *COMMANDS])
def test_a_command_takes_what_it_took(command: str, golden: dict[str, Description]) -> None:
    words: Sequence[str] = () if command == "edge" else (command,)
    assert differences(golden[command], json.loads(json.dumps(described(parser_of(*words))))) == []


def test_every_command_is_still_there(golden: dict[str, Description]) -> None:
    (commands,) = (one for one in parser_of()._actions if isinstance(one, argparse._SubParsersAction))
    assert set(golden) - {"edge"} == set(COMMANDS)
    assert set(COMMANDS) <= set(commands.choices)


def _change(change: Callable[[Description], Any], golden: dict[str, Description]) -> list[str]:
    now = copy.deepcopy(golden["run"])
    change(now)
    return differences(golden["run"], now)


NEW = {"names": ["--new"], "dest": "new", "action": "Store", "nargs": None, "const": None, "default": None}
NEW |= {"choices": None, "required": False, "takes": "text"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda now: now["options"].pop("--threads"), "--threads is gone"),
        (lambda now: now["options"]["--threads"].update(names=["--cores"]), "--threads is gone"),
        (lambda now: now["options"]["--top"].update(default=3), "--top: default was 5, is 3"),
        (lambda now: now["options"]["--output"].update(choices=["logit"]), "no longer takes ['probability']"),
        (lambda now: now["options"]["--runtime"].update(choices=["null"]), "no longer takes any"),
        (lambda now: now["options"]["--runtime"].update(required=True), "is now required"),
        (lambda now: now["options"]["--frames"].update(takes="text"), "--frames: takes was"),
        (lambda now: now["options"]["--json"].update(dest="as_json"), "--json: dest was 'json', is 'as_json'"),
        (lambda now: now["options"].update({"--new": {**NEW, "required": True}}), "--new is new and required"),
        (lambda now: now["positionals"].pop(), "the argument pictures is gone"),
        (lambda now: now["positionals"].reverse(), "artifact: dest was 'artifact'"),
        (lambda now: now["positionals"].append({**NEW, "names": []}), "new is new and required"),
        (lambda now: now["exclusive"].append(["json", "top"]), "['json', 'top'] can no longer be combined"),
    ],
)
def test_what_is_taken_away_is_noticed(
    change: Callable[[Description], Any], words: str, golden: dict[str, Description]
) -> None:
    assert words in "; ".join(_change(change, golden))


@pytest.mark.parametrize(
    "change",
    [
        lambda now: now["options"].update({"--new": NEW}),
        lambda now: now["options"]["--output"]["choices"].append("score"),
        lambda now: now["options"]["--threads"]["names"].append("-t"),
        lambda now: now["positionals"].append({**NEW, "names": [], "nargs": "*"}),
        lambda now: now["exclusive"].append(["new", "top"]),
    ],
)
def test_what_is_added_is_no_difference(change: Callable[[Description], Any], golden: dict[str, Description]) -> None:
    assert _change(change, golden) == []
