"""`edge doctor` as users run it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import pytest

import edge.doctor
from edge.cli import doctor
from edge.doctor import Finding, is_broken

FINE = Finding(level="ok", what="Python 3.11.7")
SLOW = Finding(
    level="warning", what="the CPU governor is 'powersave'", why="the clock follows the load", fix="sudo something"
)
BROKEN = Finding(level="error", what="no permission", why="only root may", fix="sudo something else")


def run(monkeypatch, findings, as_json=False):
    monkeypatch.setattr(edge.doctor, "observe", lambda: None)
    monkeypatch.setattr(edge.doctor, "examine", lambda snapshot: findings)
    return doctor.run(argparse.Namespace(json=as_json, on=None))


@pytest.mark.parametrize(("findings", "status"), [([], 0), ([FINE], 0), ([FINE, SLOW], 0), ([SLOW, BROKEN], 7)])
def test_only_what_is_broken_changes_the_exit_status(monkeypatch, capsys, findings, status):
    assert run(monkeypatch, findings) == status
    assert is_broken(findings) is (status == 7)
    assert capsys.readouterr().err == ""


def test_findings_are_printed_with_reason_and_remedy(monkeypatch, capsys):
    run(monkeypatch, [FINE, SLOW, BROKEN])
    assert capsys.readouterr().out == (
        "ok       Python 3.11.7\n"
        "warning  the CPU governor is 'powersave'\n"
        "         the clock follows the load\n"
        "         → sudo something\n"
        "error    no permission\n"
        "         only root may\n"
        "         → sudo something else\n"
        "\n"
        "1 error, 1 warning\n"
    )


def test_a_healthy_machine_hears_so(monkeypatch, capsys):
    run(monkeypatch, [FINE])
    assert capsys.readouterr().out.endswith("\n\nnothing is missing and nothing is wrong\n")


def test_json_holds_the_same(monkeypatch, capsys):
    run(monkeypatch, [FINE, SLOW], as_json=True)
    assert json.loads(capsys.readouterr().out) == [
        {"level": "ok", "what": "Python 3.11.7", "why": "", "fix": ""},
        {"level": "warning", "what": SLOW.what, "why": SLOW.why, "fix": SLOW.fix},
    ]


def test_the_doctor_examines_this_machine():
    done = subprocess.run([sys.executable, "-m", "edge", "doctor", "--json"], capture_output=True, text=True)
    findings = json.loads(done.stdout)
    assert done.stderr == ""
    assert done.returncode == (7 if any(one["level"] == "error" for one in findings) else 0)
    assert all(one["what"] and "\n" not in "".join(one.values()) for one in findings)
    assert all(one["why"] and one["fix"] for one in findings if one["level"] != "ok")
