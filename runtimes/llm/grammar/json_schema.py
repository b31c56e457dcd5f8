"""Translate a JSON schema to GBNF. Every answer under the grammar validates; what it cannot enforce is refused.

The converters inside llama.cpp and llama-cpp-python ignore words that they do not know, and with a SentencePiece
vocabulary the guidance library inside xllamacpp accepts prose. So all engines get the grammar that is written here.
Words: https://json-schema.org/draft/2020-12/json-schema-validation. GBNF: grammars/README.md of llama.cpp.
"""

from __future__ import annotations

import json
import math
from typing import Any, Callable, Mapping, Sequence
from urllib.parse import unquote

from runtimes.errors import InputError
from runtimes.llm.grammar.expressions import MAX_INTEGER, integer, literal, string_matching

MAX_BYTES = 256 * 1024  # llama.cpp's parser is recursive
_MAX_REPEATED = 2000  # llama.cpp's own limit (src/llama-grammar.cpp)
Schema = Mapping[str, Any]

_ANNOTATIONS = {
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$schema", "$id",
    "$comment", "$anchor", "$defs", "definitions", "contentEncoding", "contentMediaType",
}  # fmt: skip
_BY_TYPE = {
    "object": {"properties", "required", "additionalProperties", "minProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"pattern", "minLength", "maxLength", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "boolean": set(),
    "null": set(),
}
_GENERAL = {"type", "const", "enum", "$ref", "anyOf", "oneOf", "allOf"}
_KNOWN = _ANNOTATIONS | _GENERAL | set().union(*_BY_TYPE.values())
# What the value of a word is, where another one would be read wrongly.
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("$ref", "pattern", "format"), str),
    **dict.fromkeys(("properties", "$defs", "definitions"), dict),
    **dict.fromkeys(("required", "enum", "anyOf", "oneOf", "allOf", "prefixItems"), list),
    "type": (str, list),
    "minProperties": int,
}

_DAY = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
_DATE = f"[1-9][0-9]{{3}}-{_DAY}"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HOST = r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?){1,3}"
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}",
    "hostname": _HOST,
    "email": rf"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@{_HOST}",
    "uri": rf"https?://{_HOST}(/[A-Za-z0-9._~-]*)*",
}
_RULES = {
    "ws": '" "?',
    "char": r"""[^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" unit)""",
    "unit": "([0-9a-cefA-CEF] [0-9a-fA-F] | [dD] [0-7]) [0-9a-fA-F]{2}",  # no surrogate, which is half a character
    "string": r'"\"" char* "\""',
    "fraction": '("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?',
    "whole": '("0" | [1-9] [0-9]{0,14})',
    "value": "object | array | string | number | boolean | null",
    "number": '"-"? whole fraction',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "object": '"{" ws (pair ("," ws pair)*)? ws "}"',
    "pair": 'string ws ":" ws value',
    "array": '"[" ws (value ("," ws value)*)? ws "]"',
}


def grammar_of(schema: str) -> str:
    """Return the grammar of a schema in JSON. Raises InputError that names the word that cannot be enforced."""
    if len(schema.encode()) > MAX_BYTES:
        raise InputError(f"the JSON schema is longer than {MAX_BYTES // 1024} KiB", "use a smaller one")
    try:
        document = json.loads(schema)
        return _Translation(document).grammar()
    except ValueError as error:
        raise InputError(f"the JSON schema is not JSON: {error}", "pass a JSON schema") from None
    except RecursionError:
        raise InputError("the JSON schema is nested too deeply", "use a smaller one") from None


class _Translation:
    """Rules by their names, and the references that are or were translated."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._rules: dict[str, str] = dict(_RULES)
        self._references: dict[str, str] = {}
        self._followed: list[str] = []  # the references that lead here, within the innermost brackets

    def grammar(self) -> str:
        self._rules["root"] = self._value(self._document, "#")
        text = "\n".join(f"{name} ::= {rule}" for name, rule in self._rules.items())
        if len(text.encode()) > MAX_BYTES:
            raise InputError(
                f"the JSON schema's grammar is longer than {MAX_BYTES // 1024} KiB", "use a smaller schema"
            )
        return text

    def _rule(self, expression: str) -> str:
        name = f"r{len(self._rules)}"
        self._rules[name] = expression
        return name

    def _value(self, schema: Any, place: str) -> str:
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, dict):
            raise _refusal(place, f"{json.dumps(schema)[:40]} is not a schema that has an answer")
        _check_words(schema, place)
        words = {name for name in schema if name not in _ANNOTATIONS and not name.startswith("x-")}
        if "$ref" in words:
            return self._reference(schema, words, place)
        if "allOf" in words:
            return self._value(self._merged(schema, place), place)
        for word in ("anyOf", "oneOf"):
            if word in words:
                return self._any(schema, word, place)
        if "const" in words or "enum" in words:
            return self._constant(schema, words, place)
        if isinstance(schema.get("type"), list):
            return self._union([self._value({**schema, "type": kind}, place) for kind in schema["type"]])
        return self._typed(schema, _type_of(schema, place), place)

    def _typed(self, schema: Schema, kind: str | None, place: str) -> str:
        if kind is None:
            return "value"
        if kind in ("boolean", "null"):
            return kind
        translate: dict[str, Callable[[Schema, str], str]] = {
            "object": self._object,
            "array": self._array,
            "string": _string,
            "integer": _integer,
            "number": _number,
        }
        outside, self._followed = self._followed, []
        expression = translate[kind](schema, place)
        self._followed = outside
        return expression

    def _union(self, options: Sequence[str]) -> str:
        return f"({' | '.join(options)})"

    def _reference(self, schema: Schema, words: Any, place: str) -> str:
        if words != {"$ref"}:
            raise _refusal(place, f"{_quote(words - {'$ref'})} next to '$ref' cannot be enforced")
        target = str(schema["$ref"])
        if target in self._followed:
            raise _refusal(place, f"'$ref' to {target[:80]} leads to itself")
        if target not in self._references:
            name = self._references[target] = self._rule("")
            self._followed.append(target)
            self._rules[name] = self._value(self._resolve(target, place), target)
            self._followed.remove(target)
        return self._references[target]

    def _resolve(self, target: str, place: str) -> Any:
        if target != "#" and not target.startswith("#/"):
            raise _refusal(place, f"'$ref' to {target[:80]} cannot be followed: only parts of the schema itself can")
        found = self._document
        for part in target[1:].split("/")[1:]:
            key: Any = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                key = int(key)
            elif not isinstance(found, dict) or key not in found:
                raise _refusal(place, f"'$ref' names {target[:80]}, which does not exist")
            found = found[key]
        return found

    def _any(self, schema: Schema, word: str, place: str) -> str:
        outer = {name: value for name, value in schema.items() if name != word and name not in _ANNOTATIONS}
        branches = schema[word]
        if not branches:
            raise _refusal(place, f"'{word}' is not a list of schemas")
        options = [_merge([outer, self._follow(branch, place)], place) if outer else branch for branch in branches]
        if word == "oneOf":
            _check_apart([self._follow(option, place) for option in options], place)
        return self._union([self._value(option, f"{place}/{word}") for option in options])

    def _merged(self, schema: Schema, place: str) -> Schema:
        parts = schema["allOf"]
        if not parts:
            raise _refusal(place, "'allOf' is not a list of schemas")
        outer = {name: value for name, value in schema.items() if name != "allOf"}
        return _merge([outer, *(self._follow(part, place) for part in parts)], place)

    def _follow(self, schema: Any, place: str) -> Schema:
        for _ in range(16):
            if not (isinstance(schema, dict) and "$ref" in schema):
                break
            schema = self._resolve(str(schema["$ref"]), place)
        if not isinstance(schema, dict):
            raise _refusal(place, f"{json.dumps(schema)[:40]} cannot be combined with other schemas")
        _check_words(schema, place)
        return schema

    def _constant(self, schema: Schema, words: Any, place: str) -> str:
        if words - {"const", "enum", "type"}:
            raise _refusal(
                place, f"{_quote(words - {'const', 'enum', 'type'})} next to fixed values cannot be enforced"
            )
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if "const" in schema and values[0] not in schema.get("enum", values):
            raise _refusal(place, "'enum' leaves no value")
        kinds = schema.get("type", list(_BY_TYPE))
        kinds = kinds if isinstance(kinds, list) else [kinds]
        fitting = [value for value in values if any(_is_of(value, kind) for kind in kinds)]
        if not fitting:
            raise _refusal(place, "'enum' leaves no value")
        return self._union([literal(json.dumps(value, ensure_ascii=False, allow_nan=False)) for value in fitting])

    def _object(self, schema: Schema, place: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        others = schema.get("additionalProperties", not properties)
        undeclared = [str(name) for name in required if name not in properties]
        if undeclared and schema.get("additionalProperties") is False:
            raise _refusal(place, f"'required' names {undeclared[0]}, which 'additionalProperties' forbids")
        if schema.get("minProperties", 0) > len(set(required)):
            raise _refusal(place, "'minProperties' cannot be enforced beyond the required ones")
        fields = {**properties, **dict.fromkeys(undeclared, True if others is True else others or True)}
        if not fields and others is True:
            return "object"
        pairs = [
            (self._rule(f'{_key(name)} ws ":" ws {self._value(value, f"{place}/{name}")}'), name in required)
            for name, value in fields.items()
        ]
        rest = self._others(fields, others, place)
        first, after = f'({rest} ("," ws {rest})*)?' if rest else "", f'("," ws {rest})*' if rest else ""
        for name, needed in reversed(pairs):
            follow = self._rule(after) if after else ""
            pair = f"{name} {follow}".strip()
            first = pair if needed else f"({pair} | {first})" if first else f"({pair})?"
            first = self._rule(first)
            after = f'"," ws {pair}' if needed else f'("," ws {name})? {follow}'.strip()
        return f'"{{" ws {first} ws "}}"'

    def _others(self, fields: Mapping[str, Any], others: Any, place: str) -> str:
        """Return the rule of a pair that is not declared; its key begins like none of the declared ones."""
        if others is False:
            return ""
        begins = "".join(
            sorted({f"\\x{ord(name[0]):02X}" if ord(name[0]) < 128 else name[0] for name in fields if name})
        )
        key = f'"\\"" [^"\\\\\\x7F\\x00-\\x1F{begins}] char* "\\""' if fields else "string"
        return self._rule(f'{key} ws ":" ws {self._value(others, f"{place}/additionalProperties")}')

    def _array(self, schema: Schema, place: str) -> str:
        least, most = _counts(schema, "Items", place)
        if schema.get("uniqueItems") and (most is None or most > 1):
            raise _refusal(place, "'uniqueItems' cannot be enforced")
        first = schema.get("prefixItems", schema.get("items") if isinstance(schema.get("items"), list) else [])
        if first:
            if least > len(first) or (most is not None and most < len(first)):
                raise _refusal(place, "'minItems' and 'maxItems' do not fit 'prefixItems'")
            items = [self._value(item, f"{place}/{number}") for number, item in enumerate(first)]
            return f"""\"[" ws {' "," ws '.join(items)} ws "]\""""
        item = self._rule(self._value(schema.get("items", True), f"{place}/items"))
        if most == 0:
            return '"[" ws "]"'
        more = f'("," ws {item}){{{max(0, least - 1)},{"" if most is None else most - 1}}}'
        inner = f"{item} {more}"
        return f'"[" ws {inner if least else f"({inner})?"} ws "]"'


def _string(schema: Schema, place: str) -> str:
    least, most = _counts(schema, "Length", place)
    pattern, form = schema.get("pattern"), schema.get("format")
    if form is not None and form not in _FORMATS:
        raise _refusal(place, f"'format' {form} cannot be enforced (what works: {', '.join(_FORMATS)})")
    if (pattern is not None) + (form is not None) + ("minLength" in schema or "maxLength" in schema) > 1:
        raise _refusal(place, "'pattern', 'format' and a length cannot be enforced together")
    if form is not None:
        return string_matching(f"^{_FORMATS[form]}$")
    if pattern is not None:
        try:
            return string_matching(pattern)
        except (ValueError, TypeError) as error:
            raise _refusal(place, f"'pattern' cannot be enforced: {error}") from None
    if least or most is not None:
        return f'"\\"" char{{{least},{"" if most is None else most}}} "\\""'
    return "string"


def _integer(schema: Schema, place: str) -> str:
    if schema.get("multipleOf", 1) != 1:
        raise _refusal(place, f"'multipleOf' {schema['multipleOf']} cannot be enforced")
    bounds = {word: _bound(schema, word, place) for word in _BY_TYPE["integer"] - {"multipleOf"}}
    lows = [math.ceil(bounds["minimum"])] if bounds["minimum"] is not None else []
    lows += [math.floor(bounds["exclusiveMinimum"]) + 1] if bounds["exclusiveMinimum"] is not None else []
    highs = [math.floor(bounds["maximum"])] if bounds["maximum"] is not None else []
    highs += [math.ceil(bounds["exclusiveMaximum"]) - 1] if bounds["exclusiveMaximum"] is not None else []
    low, high = max(lows, default=None), min(highs, default=None)
    if max(low or 0, -(high or 0)) >= MAX_INTEGER:
        raise _refusal(place, f"integers of more than {len(str(MAX_INTEGER)) - 1} digits cannot be enforced")
    if low is not None and high is not None and low > high:
        raise _refusal(place, f"no integer is at least {low} and at most {high}")
    return integer(low, high)


def _number(schema: Schema, place: str) -> str:
    """Return an expression for numbers, which have no bounds in a grammar except zero."""
    for word in ("maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
        if schema.get(word) is not None:
            raise _refusal(place, f"'{word}' of a number cannot be enforced; of an integer most can")
    if schema.get("minimum") is None:
        return "number"
    if schema["minimum"] != 0:
        raise _refusal(place, "'minimum' of a number cannot be enforced unless it is 0; of an integer it can")
    return "whole fraction"


def _bound(schema: Schema, word: str, place: str) -> Any:
    value = schema.get(word)
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)
    ):
        raise _refusal(place, f"'{word}' is not a number")
    return value


def _counts(schema: Schema, what: str, place: str) -> tuple[int, int | None]:
    """Return the least and the most `what`: "Items" or "Length"."""
    least, most = schema.get(f"min{what}"), schema.get(f"max{what}")
    for word, value in ((f"min{what}", least), (f"max{what}", most)):
        is_whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_REPEATED
        if value is not None and not is_whole:
            raise _refusal(place, f"'{word}' is not a whole number up to {_MAX_REPEATED}")
    if least is not None and most is not None and least > most:
        raise _refusal(place, f"'min{what}' {least} is more than 'max{what}' {most}")
    return least or 0, most


def _type_of(schema: Schema, place: str) -> str | None:
    """Return the type, or that which the words are about; None for any value."""
    if "type" in schema:
        if schema["type"] not in _BY_TYPE:
            raise _refusal(place, f"'type' is {json.dumps(schema['type'])[:40]}")
        return str(schema["type"])
    return next((kind for kind, words in _BY_TYPE.items() if words & set(schema)), None)


def _check_words(schema: Schema, place: str) -> None:
    unknown = {word for word in schema if word not in _KNOWN and not word.startswith("x-")}
    if unknown:
        raise _refusal(place, f"{_quote(unknown)} cannot be enforced")
    for word in sorted(_KINDS.keys() & set(schema)):
        value = schema[word]
        names = value if word in ("type", "required") and isinstance(value, list) else []
        if not isinstance(value, _KINDS[word]) or not all(isinstance(name, str) for name in names):
            raise _refusal(place, f"'{word}' is {json.dumps(value)[:40]}")
    if schema.get("type") == []:
        raise _refusal(place, "'type' is []")


def _merge(parts: Sequence[Schema], place: str) -> Schema:
    """Return one schema that requires all of `parts`. Raises InputError if two words contradict each other."""
    found: dict[str, Any] = {}
    objects = sum("properties" in part for part in parts)
    for part in parts:
        for word, value in part.items():
            if word in _ANNOTATIONS:
                continue
            if word == "additionalProperties" and value is False and objects > 1:
                raise _refusal(place, "'additionalProperties' next to other schemas' properties cannot be enforced")
            if word == "required":
                value = [*found.get(word, []), *(name for name in value if name not in found.get(word, []))]
            elif word == "properties":
                twice = [name for name in value if found.get(word, {}).get(name, value[name]) != value[name]]
                if twice:
                    raise _refusal(place, f"'{twice[0]}' is described twice, which cannot be enforced")
                value = {**found.get(word, {}), **value}
            elif found.get(word, value) != value:
                raise _refusal(place, f"'{word}' occurs twice, which cannot be enforced")
            found[word] = value
    return found


def _check_apart(options: Sequence[Schema], place: str) -> None:
    """Raise InputError unless no value can match two options: 'oneOf' demands exactly one."""
    for index, one in enumerate(options):
        if any(not _are_apart(one, other) for other in options[:index]):
            raise _refusal(place, "'oneOf' cannot be enforced where a value may match two of its schemas: use 'anyOf'")


def _are_apart(one: Schema, other: Schema) -> bool:
    values = [_fixed(schema) for schema in (one, other)]
    if values[0] is not None and values[1] is not None:
        return not any(value in values[1] for value in values[0])
    kinds = [schema.get("type") for schema in (one, other)]
    if all(isinstance(kind, str) for kind in kinds) and kinds[0] != kinds[1]:
        return set(kinds) != {"integer", "number"}
    shared = set(one.get("required", [])) & set(other.get("required", []))
    for name in shared:
        fields = [_fixed(schema.get("properties", {}).get(name, {})) for schema in (one, other)]
        if fields[0] is not None and fields[1] is not None and not any(value in fields[1] for value in fields[0]):
            return True
    return False


def _fixed(schema: Any) -> list[Any] | None:
    if not isinstance(schema, dict):
        return None
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _is_of(value: Any, kind: str) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {
        "null": value is None,
        "boolean": isinstance(value, bool),
        "integer": is_number and float(value).is_integer(),
        "number": is_number,
        "string": isinstance(value, str),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }.get(kind, False)


def _key(name: str) -> str:
    return literal(json.dumps(name, ensure_ascii=False))


def _quote(words: Any) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))


def _refusal(place: str, what: str) -> InputError:
    hint = "leave it out, or check the answer yourself; docs/guides/chat.md lists the words that are enforced"
    return InputError(f"the JSON schema at {place[:120]}: {what}", hint)
