"""Typed reading of JSON: fields that are present are returned, those that are not are named by their path."""

from __future__ import annotations

import pytest

from runtimes.artifact.json_fields import Fields
from runtimes.artifact.manifest import Manifest
from runtimes.errors import InputError

DOCUMENT = {
    "name": "x",
    "count": 3,
    "ratio": 0.5,
    "whole_ratio": 2,
    "flag": True,
    "none": None,
    "words": ["a", "b"],
    "numbers": [1, 2.5],
    "integers": [1, 2],
    "object": {"inner": {"deep": "down"}},
    "objects": [{"name": "first"}, {"name": 2}],
}


@pytest.fixture
def fields():
    return Fields(DOCUMENT, "m.json")


def test_values_of_the_right_kind_are_returned(fields):
    assert fields.text("name") == "x"
    assert fields.integer("count") == 3
    assert fields.number("ratio") == 0.5
    assert fields.number("whole_ratio") == 2.0
    assert fields.texts("words") == ("a", "b")
    assert fields.integers("integers") == (1, 2)
    assert fields.numbers("numbers") == (1.0, 2.5)
    assert fields.mapping("object") == {"inner": {"deep": "down"}}
    assert fields.mapping("absent") == {}
    assert fields.child("object").child("inner").text("deep") == "down"
    assert fields.optional("absent", lambda inner: inner.text("name")) is None
    assert fields.optional("object", lambda inner: inner.child("inner").text("deep")) == "down"
    assert fields.has("flag")
    assert not fields.has("none")


@pytest.mark.parametrize(
    ("read", "last_error"),
    [
        (lambda f: f.text("absent"), "missing value in 'absent'"),
        (lambda f: f.text("none"), "missing value in 'none'"),
        (lambda f: f.text("count"), "'count' is 3, not text"),
        (lambda f: f.integer("name"), "'name' is 'x', not a whole number"),
        (lambda f: f.integer("flag"), "'flag' is True, not a whole number"),
        (lambda f: f.number("flag"), "'flag' is True, not a number"),
        (lambda f: f.integers("numbers"), "'numbers[1]' is 2.5, not a whole number"),
        (lambda f: f.texts("name"), "'name' is 'x', not a list"),
        (lambda f: f.child("words"), "'words' is a list, not an object"),
        (lambda f: f.child("object").child("inner").integer("deep"), "'object.inner.deep' is 'down'"),
        (lambda f: [item.text("name") for item in f.children("objects")], "'objects[1].name' is 2, not text"),
        (lambda f: f.mapping("words"), "'words' is a list, not an object"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(fields, read, last_error):
    with pytest.raises(InputError) as caught:
        read(fields)
    assert caught.value.message.startswith("m.json: ")
    assert last_error in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("document", [[], "x", 3, None])
def test_a_document_that_is_no_object_is_refused(document):
    with pytest.raises(InputError, match=r"'the document' is .*, not an object"):
        Fields(document, "m.json")


def test_only_artifacts_are_written_again() -> None:
    with pytest.raises(InputError) as told:
        Fields({}, "config.json").text("model_type")
    assert told.value.hint == "check that value in the file"
    with pytest.raises(InputError) as told:
        Manifest.from_json("{}", "manifest.json")
    assert told.value.hint == "write the artifact again with `edge convert`"
