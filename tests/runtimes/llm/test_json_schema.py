"""JSON schemas as grammars: texts that a grammar accepts are valid, and what it cannot enforce is refused by name."""

from __future__ import annotations

import json
import random
import re
from datetime import datetime, time
from typing import Any

import pytest

from runtimes.errors import InputError
from runtimes.llm.grammar.expressions import integer
from runtimes.llm.grammar.json_schema import grammar_of

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "age": {"type": "integer", "minimum": 5, "exclusiveMaximum": 19},
        "tags": {"type": "array", "items": {"enum": ["a", 'b"c', "d\\e"]}, "maxItems": 3},
        "mail": {"type": "string", "format": "email"},
    },
    "required": ["age", "mail"],
}
ENFORCED: dict[str, Any] = {
    "anything": {},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "number": {"type": "number", "minimum": 0},
    "integer": {"type": "integer"},
    "between": {"type": "integer", "minimum": -37, "maximum": 1205},
    "below": {"maximum": -7},
    "constant": {"const": {"a": [1, None, "é\n"]}},
    "choice": {"enum": ["red", "green", 3, None], "type": ["string", "null"]},
    "types": {"type": ["integer", "string"], "maxLength": 2, "minimum": 3},
    "an object": PERSON,
    "optional alone": {"properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}},
    "open": {
        "properties": {"a": {"type": "null"}},
        "additionalProperties": {"type": "boolean"},
        "required": ["a", "z"],
    },
    "required and not declared": {"properties": {"a": {"const": 1}}, "required": ["z"]},
    "closed": {"type": "object", "additionalProperties": False},
    "a map": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
    "length": {"type": "string", "minLength": 2, "maxLength": 3},
    "list": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    "list without end": {"items": {"type": "null"}, "minItems": 1},
    "empty list": {"type": "array", "maxItems": 0},
    "tuple": {"prefixItems": [{"type": "boolean"}, {"const": 3}], "minItems": 2, "items": False},
    "pattern": {"type": "string", "pattern": r"^(ab|[^a-z]\d{2})+x?[\w-]*$"},
    "pattern within": {"pattern": "a+"},
    "any characters": {"pattern": "^.{1,3}$"},
    "a length of escapes": {"type": "string", "minLength": 1, "maxLength": 1},
    "a part of a list": {
        "anyOf": [{"const": True}, {"$ref": "#/anyOf/0"}, {"$ref": "#/$defs/a%20b"}],
        "$defs": {"a b": {"type": "null"}},
    },
    "quotes": {"pattern": r'^["\\]{2}[ -~]$'},
    "any of": {"anyOf": [PERSON, {"type": "null"}]},
    "one of": {
        "type": "object",
        "required": ["kind"],
        "oneOf": [
            {"properties": {"kind": {"const": "a"}, "x": {"type": "null"}}, "required": ["kind", "x"]},
            {"properties": {"kind": {"const": "b"}}, "required": ["kind"]},
        ],
    },
    "all of": {
        "allOf": [{"$ref": "#/$defs/p"}, {"required": ["n"]}],
        "$defs": {"p": {"properties": {"n": {"const": 1}}}},
    },
    "a tree": {
        "$ref": "#/definitions/node",
        "definitions": {
            "node": {
                "type": "object",
                "properties": {"children": {"type": "array", "items": {"$ref": "#/definitions/node"}, "maxItems": 1}},
                "required": ["children"],
                "title": "Node",
            }
        },
    },
    **{f"format {name}": {"type": "string", "format": name} for name in ("date", "time", "date-time", "uuid", "ipv4")},
    **{f"format {name}": {"type": "string", "format": name} for name in ("email", "hostname", "uri")},
}


class Sampler:
    """Draws texts from a grammar in GBNF, as its notation says; knows nothing of what wrote it."""

    def __init__(self, grammar: str) -> None:
        lines = dict(line.split(" ::= ", 1) for line in grammar.splitlines())
        self.rules = {name: self.options(source, 0)[0] for name, source in lines.items()}

    def options(self, source: str, at: int) -> tuple[list[Any], int]:
        """The alternatives from `at` to the end or the closing bracket: lists of (kind, value, least, most)."""
        found: list[Any] = [[]]
        while at < len(source) and source[at] != ")":
            if source[at] in " |":
                found += [[]] if source[at] == "|" else []
                at += 1
                continue
            if source[at] == "(":
                value, at = self.options(source, at + 1)
                kind, at = "group", at + 1
            else:
                match = ITEM.match(source, at)
                assert match, source[at:]
                kind, value, at = str(match.lastgroup), match[0], match.end()
            if kind == "set":  # Python's sets are written alike
                value = [one for one in LETTERS if re.fullmatch(value, one, re.DOTALL)]
            if kind == "text":
                value = re.sub(r"\\(.)", lambda one: {"n": "\n", "r": "\r"}.get(one[1], one[1]), value[1:-1])
            match = COUNT.match(source, at)
            least, most = 1, 1
            if match:
                least, most = {"*": (0, 3), "+": (1, 3), "?": (0, 1)}.get(match[0], (0, 0))
                if match[1]:
                    least = int(match[1])
                    most = (int(match[3]) if match[3] else least + 3) if match[2] else least
                at = match.end()
            found[-1].append((kind, value, least, most))
        return found, at

    def draw(self, choice: random.Random, options: Any, depth: int = 0) -> str:
        if depth > 60:
            raise RecursionError
        text = ""
        for kind, value, least, most in choice.choice(options):
            for _ in range(choice.randint(least, least if depth > 15 else most)):
                if kind in ("group", "name"):
                    text += self.draw(choice, self.rules[value] if kind == "name" else value, depth + 1)
                else:
                    text += value if kind == "text" else choice.choice(value)
        return text


ITEM = re.compile(r'(?P<text>"(?:[^"\\]|\\.)*")|(?P<set>\[(?:[^\]\\]|\\.)*\])|(?P<name>[a-z0-9]+)')
COUNT = re.compile(r"[*+?]|\{(\d+)(,?)(\d*)\}")
LETTERS = [*map(chr, range(256)), "€"]


@pytest.mark.parametrize("name", ENFORCED)
def test_what_a_grammar_lets_pass_validates(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = ENFORCED[name]
    checker = jsonschema.FormatChecker()
    checker.checks("time", ValueError)(lambda text: time.fromisoformat(text) is not None)  # jsonschema's knows no zone
    checker.checks("date-time", ValueError)(lambda text: datetime.fromisoformat(text) is not None)
    validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
    sampler, judged = Sampler(grammar_of(json.dumps(schema))), 0
    for seed in range(60):
        try:
            text = sampler.draw(random.Random(seed), sampler.rules["root"])
        except RecursionError:  # values inside values
            continue
        validator.validate(json.loads(text))
        judged += 1
    assert judged > 10


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "'uniqueItems'"),
        ({"type": "integer", "multipleOf": 5}, "'multipleOf' 5"),
        ({"type": "number", "maximum": 1}, "'maximum' of a number"),
        ({"type": "number", "minimum": 0.5}, "'minimum' of a number"),
        ({"not": {"type": "string"}}, "'not'"),
        ({"type": "object", "minProperties": 2}, "'minProperties'"),
        ({"type": "object", "patternProperties": {"a": {}}}, "'patternProperties'"),
        ({"type": "integer", "minimun": 5}, "'minimun'"),
        ({"if": {}, "then": {}}, "'if', 'then'"),
        ({"type": "string", "format": "color"}, "'format' color"),
        ({"type": "string", "pattern": "(?=a)"}, "'pattern'"),
        ({"type": "string", "pattern": "a|^b"}, "'pattern'"),
        ({"type": "string", "pattern": "^a$", "maxLength": 3}, "together"),
        ({"$ref": "http://example.com/schema"}, "'$ref' to http://example.com"),
        ({"$ref": "#/$defs/a"}, "does not exist"),
        ({"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}}, "'$ref' to #a"),
        ({"$ref": "#"}, "leads to itself"),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#"}}}, "leads to itself"),
        ({"type": []}, "'type' is []"),
        ({"type": {"a": 1}}, "'type' is {"),
        ({"type": "object", "required": [["a"]]}, "'required' is [["),
        ({"properties": [], "type": "object"}, "'properties' is []"),
        ({"type": "object", "minProperties": "a"}, "'minProperties' is"),
        ({"allOf": [{"required": 5}, {}]}, "'required' is 5"),
        ({"const": float("inf")}, "not JSON"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "'oneOf'"),
        ({"allOf": [{"type": "integer"}, {"type": "string"}]}, "'type' occurs twice"),
        ({"type": "integer", "minimum": 9, "maximum": 5}, "no integer"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "'minLength' 3 is more than 'maxLength' 2"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "'minItems' 3 is more than 'maxItems' 2"),
        ({"type": "integer", "minimum": 10**16}, "more than 15 digits"),
        ({"type": "text"}, "'type' is"),
        ({"enum": [3], "type": "string"}, "leaves no value"),
        ({"properties": {}, "required": ["a"], "additionalProperties": False}, "'additionalProperties' forbids"),
        ({"properties": {"a": False}, "required": ["a"]}, "false is not a schema"),
        ({"properties": {"deep": {"items": {"contains": {}}}}}, "at #/deep/items: 'contains'"),
    ],
)
def test_a_word_that_cannot_be_enforced_is_refused_by_name(schema: Any, word: str) -> None:
    with pytest.raises(InputError, match=re.escape(word)):
        grammar_of(json.dumps(schema))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"title": "' + "a" * 300_000 + '"}'])
def test_no_schema_at_all_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match="the JSON schema is"):
        grammar_of(text)


@pytest.mark.parametrize(("low", "high"), [(5, 9), (0, 0), (-3, 120), (99, 1001), (-250, -8), (7, 7), (10, 10999)])
def test_bounds_of_integers_are_exact(low: int, high: int) -> None:
    expression = re.sub(r'"([^"]*)"', r"\1", integer(low, high)).replace(" ", "")
    matching = {number for number in range(low - 300, high + 300) if re.fullmatch(expression, str(number))}
    assert matching == set(range(low, high + 1))
