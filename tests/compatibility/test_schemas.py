"""`docs/reference/schemas/` describes the `--json` output of the commands; `docs/reference/json.md` explains it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jsonschema")
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

HERE = Path(__file__).parent
REFERENCE = HERE.parents[1] / "docs" / "reference"
SCHEMAS = {path.name.removesuffix(".schema.json"): path for path in sorted((REFERENCE / "schemas").iterdir())}
SHARED = ("common", "manifest", "error")  # of several commands
COMMANDS = sorted(set(SCHEMAS) - set(SHARED))
GOLDEN = {path.stem: list(json.loads(path.read_text(encoding="utf-8"))) for path in sorted((HERE / "json").iterdir())}
# The table converts MobileNetV2, which takes 45 s of CPU time.
SLOW = {"table": [pytest.mark.slow]}
CASES = [
    pytest.param(command, case, marks=SLOW.get(command, [])) for command, cases in GOLDEN.items() for case in cases
]
# Objects whose keys differ between formats or protocols.
OPEN = ("protocol", "settings", "metadata", "source", "conversion", "usb", "pci", "published", "details")
# Objects that are part of another one by `allOf`: the outer one rejects undescribed keys.
PARTS = ("measurement", "report", "manifest")
UNITS = {
    "_ms": "millisecond",
    "_bytes": "byte",
    "_mhz": "MHz",
    "_j": "joule",
    "_c": "degrees Celsius",
    "_db": "decibel",
}

Schema = Any
Answer = dict[str, Any]


def read(name: str) -> Schema:
    return json.loads(SCHEMAS[name].read_text(encoding="utf-8"))


def validator(name: str, change: Callable[[Schema], Schema] = lambda schema: schema) -> Draft202012Validator:
    """Return the validator of the schema of that name, which resolves references by file name."""
    resources = [(SCHEMAS[one].name, Resource.from_contents(change(read(one)))) for one in SCHEMAS]
    registry = Registry().with_resources(resources)
    return Draft202012Validator({"$ref": f"{name}.schema.json"}, registry=registry)


def faults(name: str, answer: Any, change: Callable[[Schema], Schema] = lambda schema: schema) -> list[str]:
    errors = validator(name, change).iter_errors(answer)
    return [f"{one.json_path}: {one.message}" for one in errors]


def subschemas(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Yield every object of a document that is a schema, with its path."""
    if isinstance(schema, list):
        for one in schema:
            yield from subschemas(one, path)
    if not isinstance(schema, dict):
        return
    yield path, schema
    for word in ("properties", "$defs"):
        for name, one in schema.get(word, {}).items():
            yield from subschemas(one, (*path, name))
    for word in ("items", "anyOf", "allOf", "additionalProperties"):
        yield from subschemas(schema.get(word), path)


def closed(document: Schema) -> Schema:
    """Return the same schema, which rejects every key that it does not describe."""
    document = copy.deepcopy(document)
    for path, schema in subschemas(document):
        is_part = bool(path) and path[-1] in PARTS and (len(path) == 1)
        if "properties" in schema and not is_part and not (path and path[-1] in OPEN):
            schema["unevaluatedProperties"] = False
    return document


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    document = read(name)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(document)


def test_every_command_with_json_has_a_schema() -> None:
    assert sorted(GOLDEN) == COMMANDS


def test_the_page_links_every_schema() -> None:
    links = re.findall(r"\]\((schemas/[^)]*\.json)\)", (REFERENCE / "json.md").read_text(encoding="utf-8"))
    assert {REFERENCE / link for link in links} == set(SCHEMAS.values())


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_key_is_described_with_its_unit(name: str) -> None:
    bare, without_unit = [], []
    for path, schema in subschemas(read(name)):
        for key, one in schema.get("properties", {}).items():
            words = one.get("description", "") + schema.get("description", "")
            refers = any("$ref" in alternative for alternative in (one, *one.get("anyOf", [])))
            if not refers and not one.get("description"):
                bare.append(".".join((*path, key)))
            unit = next((word for end, word in UNITS.items() if key.endswith(end)), "")
            if not refers and unit not in words:
                without_unit.append(f"{'.'.join((*path, key))}: {unit}")
    assert bare == []
    assert without_unit == []


@pytest.mark.parametrize(("command", "case"), CASES)
def test_an_answer_is_as_its_schema_says(command: str, case: str, answer: Callable[[str, str], Answer]) -> None:
    assert faults(command, answer(command, case)["stdout"]) == []


@pytest.mark.parametrize(("command", "case"), CASES)
def test_an_answer_holds_nothing_that_is_not_described(
    command: str, case: str, answer: Callable[[str, str], Answer]
) -> None:
    assert faults(command, answer(command, case)["stdout"], closed) == []


def test_an_estimated_row_of_the_table_is_as_its_schema_says() -> None:
    from device_profiles.published import published_rows
    from edge.table.estimates import with_estimates
    from edge.table.rows import row_of_published

    rows = with_estimates([row_of_published(one) for one in published_rows()])
    assert any(row.estimate is not None for row in rows)
    assert faults("table", [row.to_json() for row in rows], closed) == []


@pytest.mark.parametrize("case", ["verify", "inspect", "deploy"])
def test_an_error_is_as_its_schema_says(case: str, artifacts: Path, wrong: Path, edge: Callable[..., Any]) -> None:
    words = {"verify": (wrong,), "inspect": (artifacts / "missing.onnx",), "deploy": (artifacts / "onnx-fp32", "board")}
    done = edge(case, *words[case], "--json", EDGE_SSH="no-such-ssh")
    assert done.returncode in (4, 6, 3, 7)
    assert faults("error", json.loads(done.stderr.splitlines()[-1]), closed) == []


@pytest.mark.parametrize(
    "path", sorted((HERE / "artifacts").glob("*/manifest.json")), ids=lambda path: path.parent.name
)
def test_a_manifest_is_as_its_schema_says(path: Path) -> None:
    manifest = json.loads(path.read_text(encoding="utf-8"))
    assert faults("manifest", manifest) == []
    assert faults("manifest", {**manifest, "schema": 2}) != []
    assert faults("manifest", {**manifest, "files": {"tiny.onnx": "0"}}) != []


# --- docs/reference/json.md -------------------------------------------------------------------------------------------


def examples() -> dict[str, list[Any]]:
    """Return heading → its examples."""
    text = (REFERENCE / "json.md").read_text(encoding="utf-8")
    found: dict[str, list[Any]] = {}
    for part in text.split("\n## ")[1:]:
        heading = part.splitlines()[0].strip()
        name = heading.removeprefix("edge ") if heading.startswith("edge ") else "error"
        found[name] = [json.loads(one) for one in re.findall(r"```json\n(.*?)```", part, re.DOTALL)]
    return found


EXAMPLES = [(name, example) for name, found in examples().items() for example in found]
NAMES = [f"{name}-{number}" for number, (name, _) in enumerate(EXAMPLES)]


def objects(example: Any) -> dict[str, Any]:
    """Return the objects of an example: one, or the elements of a list."""
    return example[0] if isinstance(example, list) else example


def test_every_command_is_explained_by_an_example() -> None:
    found = examples()
    assert sorted(found) == sorted([*COMMANDS, "error"])
    assert [name for name, one in found.items() if not one] == []


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=NAMES)
def test_an_example_is_as_its_schema_says(name: str, example: Any) -> None:
    assert faults(name, example, closed) == []


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=NAMES)
def test_a_key_that_is_gone_is_refused(name: str, example: Any) -> None:
    required = {key for one in _required(name) if set(one) <= set(objects(example)) for key in one}
    assert required
    for key in required:
        changed = copy.deepcopy(example)
        del objects(changed)[key]
        assert faults(name, changed) != [], f"without {key}"


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=NAMES)
def test_a_wrong_type_is_refused(name: str, example: Any) -> None:
    for key, value in objects(example).items():
        changed = copy.deepcopy(example)
        objects(changed)[key] = "wrong" if isinstance(value, bool) else True
        assert faults(name, changed) != [], f"{key} of another type"


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=NAMES)
def test_a_new_key_is_no_fault(name: str, example: Any) -> None:
    changed = copy.deepcopy(example)
    objects(changed)["added later"] = 1
    assert faults(name, changed) == []
    assert faults(name, changed, closed) != []


def _required(name: str) -> Iterator[list[str]]:
    """Return the required keys: of each kind of answer, and of its parts."""
    document, common = read(name), read("common")
    for path, schema in subschemas(document):
        if len(path) < 2 and "required" in schema:
            yield schema["required"]
        for one in schema.get("allOf", []):
            if str(one.get("$ref", "")).startswith("common.schema.json#/$defs/"):
                yield common["$defs"][one["$ref"].rsplit("/", 1)[-1]]["required"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("run", lambda one: one[0]["top"][0].update(probability="high")),
        ("run", lambda one: one[0].update(latency_ms=-1)),
        ("check", lambda one: one["nodes"][0].update(placement="gpu")),
        ("check", lambda one: one.update(accelerator_macs_share=2)),
        ("bench", lambda one: one[0].update(status="crashed")),  # which needs a message
        ("bench", lambda one: one[0]["samples_ms"].append("fast")),
        ("bench", lambda one: one[0]["rounds"][0].pop("runs")),
        ("inspect", lambda one: one["inputs"][0].update(shape=[None])),
        ("convert", lambda one: one["proof"].pop("metrics")),
        ("doctor", lambda one: one[0].update(level="fatal")),
        ("error", lambda one: one.update(error="trouble")),
        ("error", lambda one: one.update(message="")),
    ],
)
def test_a_fault_within_is_refused(name: str, change: Callable[[Any], Any]) -> None:
    example = copy.deepcopy(examples()[name][0])
    assert faults(name, example) == []
    change(example)
    assert faults(name, example) != []
