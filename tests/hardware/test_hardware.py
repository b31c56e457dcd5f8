"""The checks of hardware: edge takes their commands, a wrong answer fails, and the report names nobody."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge.cli import COMMANDS, _parser
from edge.conversion.target import target_of
from edge.table.setups import _CORAL, _CPU, _CUDA, _JETSON
from tests.hardware.__main__ import main
from tests.hardware.checks import KINDS, Check, Kind, found, has_conditions, has_energy, measured, passed, table_row
from tests.hardware.runner import ROOT, Done, Outcome, outcomes, report

ARTIFACTS = ROOT / "tests" / "compatibility" / "artifacts"
PLACES = {"host": "pi@board", "device": "jetson-nano", "out": "/out", "artifacts": str(ARTIFACTS)}
HERE = {**PLACES, "host": ""}
ROW = {
    "setup": "m",
    "status": "ok",
    "runtime": "litert",
    "device": "cpu",
    "machine": {"emulated": False},
    "energy_per_run_j": 0.1,
    "rounds": [{"conditions": {"before": {"governor": "ondemand", "mhz": None}}}],
}


def done(answer: Any, status: int = 0, err: str = "") -> Done:
    return Done(status=status, out=json.dumps(answer), err=err)


def commands(name: str, places: dict[str, str]) -> list[list[str]]:
    seen: list[list[str]] = []

    def run(words: Sequence[str]) -> Done:
        seen.append(list(words))
        return done({"passed": True})

    list(outcomes(KINDS[name], places, run))
    return seen


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("places", [PLACES, HERE], ids=["board", "here"])
def test_every_command_is_one_that_edge_takes(name: str, places: dict[str, str]) -> None:
    if KINDS[name].on_board and not places["host"]:
        return
    found_commands = commands(name, places)
    assert found_commands
    for words in found_commands:
        assert words[0] in COMMANDS
        parsed = _parser(words[0]).parse_args(words)
        assert parsed.json
        assert not any("{" in word for word in words), words
        for path in (word for word in words if word.startswith(str(ARTIFACTS))):
            assert Path(path, "manifest.json").is_file()


def test_the_setups_and_devices_of_the_checks_exist() -> None:
    known = [one.id for one in (*_CUDA, _JETSON, _CORAL)] + [one.id for one in _CPU]
    for kind in KINDS.values():
        for check in kind.checks:
            for word, value in zip(check.words, check.words[1:], strict=False):
                assert word != "--setup" or value in known
    assert target_of("jetson-orin-nano") is not None


@pytest.mark.parametrize(
    ("expectation", "right", "wrong", "says"),
    [
        (
            found("coral-usb"),
            {"accelerators": [{"id": "coral-usb", "present": True}]},
            {"accelerators": [{"id": "coral-usb", "present": False}]},
            "none of coral-usb",
        ),
        (measured("litert"), [ROW], [{**ROW, "runtime": "onnxruntime"}], "measured by onnxruntime"),
        (measured("litert"), [ROW], [{**ROW, "status": "crashed", "message": "it died"}], "it died"),
        (measured("litert"), [ROW], [{**ROW, "machine": {"emulated": True}}], "emulated"),
        (measured("litert", device="cpu"), [ROW], [{**ROW, "device": "gpu"}], "gpu"),
        (measured("litert"), [ROW], [], "nothing was measured"),
        (
            has_conditions("governor"),
            [ROW],
            [{**ROW, "rounds": [{"conditions": None}]}],
            "unknown conditions: governor",
        ),
        (has_conditions(), [ROW], [], ""),
        (has_energy, [ROW], [{**ROW, "energy_per_run_j": None, "energy_note": "no sensor"}], "no sensor"),
        (passed, {"passed": True}, {"passed": False, "message": "max_abs 3"}, "max_abs 3"),
        (
            table_row("coral-usb"),
            [{"id": "coral-usb@pi", "kind": "measured", "agreement": {"pictures": 100, "same_top1": 98}}],
            [{"id": "coral-usb@pi", "kind": "measured", "agreement": {"pictures": 100, "same_top1": 60}}],
            "60 of 100",
        ),
        (
            table_row("x"),
            [{"id": "x", "kind": "measured"}],
            [{"id": "x", "kind": "absent", "source": "needs y"}],
            "needs y",
        ),
    ],
)
def test_a_wrong_answer_is_found_and_a_right_one_passes(expectation: Any, right: Any, wrong: Any, says: str) -> None:
    assert expectation(right) == ""
    assert says in expectation(wrong)
    assert bool(expectation(wrong)) == bool(says)


def test_what_needs_a_failed_check_is_skipped() -> None:
    def run(words: Sequence[str]) -> Done:
        return done(None, 5, "edge: refused\n      use another") if words[0] == "convert" else done([])

    found_outcomes = {one.name: one for one in outcomes(KINDS["jetson"], PLACES, run)}
    assert "status 5" in found_outcomes["an artifact for TensorRT is written"].reason
    assert found_outcomes["TensorRT builds the engine and measures it"].outcome == "skipped"
    assert found_outcomes["the board is recognized"].outcome == "passed"


def test_the_report_names_no_machine_and_no_user() -> None:
    secret = f"{getpass.getuser()}@{socket.gethostname()} {Path.home()} pi@board"
    one = Outcome(
        name="n",
        simulated="s",
        command=f"edge x {secret}",
        outcome="failed",
        reason=secret,
        seconds=1.0,
        answer={"x": secret},
    )
    for text in report("pi", KINDS["pi"], [one], ["pi@board"]):
        assert "pi@board" not in text
        assert socket.gethostname() not in text
        assert f"{Path.home()} " not in text
    document = json.loads(report("pi", KINDS["pi"], [one])[1])
    assert document["outcomes"][0]["outcome"] == "failed"


@pytest.mark.parametrize(
    ("answer", "err", "reason"),
    [
        (
            None,
            '{"error": "engine", "message": "no library", "hint": "install it"}',
            "status 4: no library → install it",
        ),
        (None, "Killed", "status 4: Killed"),
        (
            [{**ROW, "status": "engine missing", "message": "no stick", "hint": "plug it in"}],
            "",
            "no stick → plug it in",
        ),
        (None, "", "status 4: nothing on stderr"),
    ],
)
def test_what_is_missing_is_said_with_its_remedy(answer: Any, err: str, reason: str) -> None:
    check = Check(name="n", simulated="", words=("bench",), expect=(measured("litert"),))
    kind = Kind(title="k", on_board=False, checks=[check])
    (found,) = outcomes(kind, {"host": ""}, lambda _: done(answer, status=4, err=err))
    assert found.reason.endswith(reason)


def test_the_command_writes_both_reports_and_its_status_says_whether_one_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(words: Sequence[str]) -> Done:
        return done({"accelerators": [{"id": "ncs2", "present": True}]} if words[0] == "devices" else [ROW])

    monkeypatch.setattr("tests.hardware.__main__.outcomes", lambda kind, places: outcomes(kind, places, run))
    assert main(["ncs2", "--out", str(tmp_path / "r")]) == 1  # measured by LiteRT
    assert "passed   the stick is found" in capsys.readouterr().out
    assert "| failed: m: measured by litert, not openvino |" in (tmp_path / "r" / "report.md").read_text()
    assert json.loads((tmp_path / "r" / "report.json").read_text())["kind"] == "ncs2"
    with pytest.raises(SystemExit):
        main(["pi"])
    assert "add --on HOST" in capsys.readouterr().err
