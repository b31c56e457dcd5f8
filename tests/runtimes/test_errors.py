"""The error tree: a status for each branch, and errors that cross a process boundary and back."""

from __future__ import annotations

import pytest

from runtimes import errors
from runtimes.errors import EdgeError, EngineError, EngineMissingError, InputError, first_line, from_dict

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdgeError)]


def test_every_branch_has_the_status_that_the_module_draws():
    lines = [line for line in errors.__doc__.splitlines() if "── " in line and "in `edge." not in line]
    drawn = [line.split("── ")[1].split()[:2] for line in lines]
    assert {name for name, _ in drawn} == {kind.__name__ for kind in KINDS if kind is not EdgeError}
    for name, status in drawn:
        assert getattr(errors, name).exit_code == int(status)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_a_process_boundary(kind):
    back = from_dict(kind("what happened", "what to do").as_dict())
    assert (back.message, back.hint, back.exit_code) == ("what happened", "what to do", kind.exit_code)
    assert str(back) == "what happened"


def test_a_missing_engine_is_an_engine_error_on_the_other_side():
    assert type(from_dict(EngineMissingError("m", "h").as_dict())) is EngineError


def test_an_unknown_error_is_still_an_error():
    assert type(from_dict({"error": "tomorrow's"})) is EdgeError
    assert from_dict({}).message == "unknown error"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n\n  one \n"), "one"),
        (KeyError(), "KeyError"),
        (InputError(""), "InputError"),
    ],
)
def test_the_first_line_of_a_native_error(error, line):
    assert first_line(error) == line


def test_the_first_line_is_bounded():
    assert len(first_line(ValueError("x" * 1000))) == 300
