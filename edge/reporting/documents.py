"""Read what a report shows: the JSON of other commands, artifacts, and the history of measurements."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from device_profiles.published import published_rows
from edge.benchmark import history
from edge.benchmark.history import Entry
from edge.benchmark.rows import Row
from edge.benchmark.warnings import findings
from edge.estimation.results import Estimate
from edge.reporting.results import (
    ESTIMATED,
    MISSING,
    PUBLISHED,
    MeasuredAccuracy,
    ReportedResult,
    result_of_estimate,
    result_of_published,
    result_of_row,
)
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import Fields, JsonObject
from runtimes.errors import InputError

_log = logging.getLogger(__name__)
_HINT = "edge report reads artifacts, and what bench, table, evaluate, convert and estimate print with --json"


@dataclass(frozen=True, kw_only=True)
class ProvenConversion:
    """An artifact and its proof.

    metrics: Metric → its value; limits: Metric → what is required.
    facts: What made it.
    command: What checks it again.
    """

    name: str
    format: str
    precision: str
    passed: bool
    samples: int
    inputs: str
    metrics: Mapping[str, float]
    limits: Mapping[str, float]
    facts: Sequence[tuple[str, str]]
    command: str


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a report shows.

    sources: The files that were read, each with its digest.
    entries, recorded: The history: its entries and their rows.
    notes: Paragraphs below the table.
    """

    results: Sequence[ReportedResult] = ()
    conversions: Sequence[ProvenConversion] = ()
    sources: Sequence[str] = ()
    entries: Sequence[Entry] = ()
    recorded: Sequence[Row] = ()
    notes: Sequence[str] = ()


class _EvaluatedModel(NamedTuple):
    """The accuracy of a model, as `edge evaluate` printed it."""

    artifact: str
    runtime: str
    accuracy: MeasuredAccuracy


@dataclass(kw_only=True)
class _FileContents:
    results: list[ReportedResult] = field(default_factory=list)
    conversions: list[ProvenConversion] = field(default_factory=list)
    evaluated: list[_EvaluatedModel] = field(default_factory=list)
    artifacts: list[Path] = field(default_factory=list)


def read(files: Sequence[Path], *, with_history: bool) -> Content:
    """Read the files; without any, the published table and the newest measurement of each setup in the history.

    with_history: Whether the report also shows all of the history.

    Raises InputError for a file that is none of those that a report shows.
    """
    found = _FileContents()
    sources = [_read_file(path, found) for path in files]
    kept = _kept(history.entries() if with_history or not files else [])
    entries, recorded = [entry for entry, _ in kept], [row for _, row in kept]
    if not files:
        newest = {(row.setup, row.host): row for row in recorded}
        found.results += [*map(result_of_published, published_rows()), *results_of(list(newest.values()))]
        found.artifacts += [Path(row.artifact) for row in newest.values() if row.artifact]
    count = f"{len(entries)} measurement{'s' if len(entries) != 1 else ''}"
    return Content(
        results=[_with_accuracy(one, found.evaluated) for one in found.results],
        conversions=_proofs(found),
        sources=[*sources, *([f"the history, {count}"] if entries else [])],
        entries=entries if with_history else (),
        recorded=recorded if with_history else (),
    )


def _kept(entries: Sequence[Entry]) -> list[tuple[Entry, Row]]:
    """Return the measurements of the history with their rows, without those that cannot be read."""
    found = []
    for entry in entries:
        try:
            (values,) = history.rows([entry.id])
            found.append((entry, Row.from_json(Fields(values, "the history", f"[{entry.id}]"))))
        except InputError as error:
            _log.warning("measurement %d is not in the report: %s", entry.id, error.message)
    return found


def results_of(rows: Sequence[Row]) -> list[ReportedResult]:
    """Return measured rows with the reasons to doubt them."""
    doubts = findings(rows)
    return [
        result_of_row(row, doubts=[f"{one.what} → {one.remedy}" for one in doubts if one.setup == row.setup])
        for row in rows
    ]


def content_of_rows(rows: Sequence[JsonObject], notes: Sequence[str] = ()) -> Content:
    """Return the content of rows of `edge bench` or `edge table`, and the proofs of their artifacts."""
    found = _FileContents()
    for place, values in enumerate(rows):
        _read_row(Fields(values, "the rows", f"[{place}]"), found)
    return Content(results=found.results, conversions=_proofs(found), notes=notes)


def _proofs(found: _FileContents) -> list[ProvenConversion]:
    """Return the conversions, and the proofs of measured artifacts that are still there."""
    proven = (_proof_of(path) for path in dict.fromkeys(found.artifacts))
    conversions = [*found.conversions, *(one for one in proven if one is not None)]
    return list({(one.name, one.command): one for one in conversions}.values())


def _read_file(path: Path, found: _FileContents) -> str:
    """Add what a file holds; returns its name and digest."""
    if path.is_dir():
        conversion = _proof_of(path)
        if conversion is None:
            raise InputError(f"{path} is not an artifact with a proof", _HINT)
        found.conversions.append(conversion)
        return str(path)
    try:
        content = path.read_bytes()
        document = json.loads(content)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", _HINT) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}", _HINT) from None
    if isinstance(document, list):
        for place, values in enumerate(document):
            _read_row(Fields(values, str(path), f"[{place}]", hint=_HINT), found)
    else:
        _read_object(Fields(document, str(path), hint=_HINT), path, found)
    return f"{path}, sha256 {hashlib.sha256(content).hexdigest()[:12]}"


def _read_object(fields: Fields, path: Path, found: _FileContents) -> None:
    readers: Mapping[str, Callable[[Fields, _FileContents], None]] = {
        "models": _read_evaluation,
        "estimates": _read_estimates,
        "proof": _read_conversion,
    }
    reader = next((readers[key] for key in readers if fields.has(key)), None)
    if reader is None:
        raise InputError(f"{path} holds nothing that a report shows", _HINT)
    reader(fields, found)


def _read_row(fields: Fields, found: _FileContents) -> None:
    """Read a row of `edge bench` or `edge table`."""
    kind = fields.optional_text("kind")
    if kind == "published":
        found.results.append(_read_published(fields))
        return
    if kind == "absent":
        found.results.append(ReportedResult(kind=MISSING, setup=fields.text("setup"), reason=fields.text("source")))
        return
    if kind == "estimated":
        found.results.append(_read_estimate(fields))
        return
    row = Row.from_json(fields)
    command = ""
    if kind is not None:  # a row of the table, whose title is its setup
        row = replace(row, title=row.setup)
        on = f" --on {shlex.quote(row.host)}" if row.host else ""
        command = f"edge table --setup {shlex.quote(fields.text('id').partition('@')[0])}{on}"
    doubts = [f"{one.text('what')} → {one.text('remedy')}" for one in _children(fields, "findings")]
    speeds = {one.text("test"): one.number("mean_tok_s") for one in _children(fields, "tests")}
    result = result_of_row(row, command=command, accuracy=_agreement(fields), doubts=doubts, speeds=speeds)
    found.results.append(replace(result, facts=(*result.facts, *_comparison(fields))))
    if row.artifact:
        found.artifacts.append(Path(row.artifact))


def _read_published(fields: Fields) -> ReportedResult:
    """Return the published row that the table's row names."""
    name = fields.text("id")
    row = next((one for one in published_rows() if one.id == name), None)
    if row is None:
        raise fields.reject("id", f"is '{name}', which is not a published row (`edge table --json` writes their ids)")
    return result_of_published(row)


def _children(fields: Fields, key: str) -> Iterator[Fields]:
    if fields.has(key):
        yield from fields.children(key)


def _agreement(fields: Fields) -> MeasuredAccuracy | None:
    """Return how many of its pictures a row of the table classified correctly."""
    if not fields.has("agreement"):
        return None
    found = fields.child("agreement")
    count, data = found.integer("pictures"), "the evaluation pictures of edge table"
    return MeasuredAccuracy(metric="top1", value=found.integer("correct") / max(count, 1), count=count, data=data)


def _comparison(fields: Fields) -> Iterator[tuple[str, str]]:
    """Yield what `--compare` said, and the place among the setups of the run."""
    if fields.has("comparison"):
        found = fields.child("comparison")
        times = f", {found.child('ratio').number('value'):.3f} × the time" if found.has("ratio") else ""
        yield "compared", f"{found.text('verdict')}{times} of {found.optional_text('baseline') or 'the older run'}"
    if fields.has("rank"):
        place = fields.child("rank")
        yield "place", f"{place.integer('place')}{' (tied)' if place.flag('tied') else ''} among the setups of this run"


def _read_estimate(fields: Fields) -> ReportedResult:
    """Read an estimated row of the table."""
    return replace(
        result_of_estimate("mobilenet-v2-1.0-224", _estimate(fields.child("estimate"))), setup=fields.text("setup")
    )


def _read_estimates(fields: Fields, found: _FileContents) -> None:
    model = fields.text("model")
    found.results += [result_of_estimate(model, _estimate(item)) for item in fields.children("estimates")]


def _estimate(item: Fields) -> Estimate:
    return Estimate(
        device=item.text("device"),
        processor=item.text("processor"),
        engine=item.text("engine"),
        engine_version=item.text("engine_version"),
        precision=item.text("precision"),
        latency_ms=item.number("latency_ms"),
        low_ms=item.optional_number("low_ms"),
        high_ms=item.optional_number("high_ms"),
        fps=item.number("fps"),
        energy_mj=item.optional_number("energy_mj"),
        memory_bytes=item.integer("memory_bytes"),
        basis=item.text("basis"),
        error=item.optional_number("error"),
        models=item.integer("models"),
        source=item.text("source"),
        sending_ms=item.optional_number("sending_ms"),
    )


def _read_evaluation(fields: Fields, found: _FileContents) -> None:
    """Read the first metric of each model, which is the one that models are compared by."""
    data = fields.text("data")
    for model in fields.children("models"):
        metrics = model.numbers_by_name("metrics")
        metric = next(iter(metrics), None)
        if metric is not None:
            accuracy = MeasuredAccuracy(metric=metric, value=metrics[metric], count=model.integer("inputs"), data=data)
            found.evaluated.append(_EvaluatedModel(model.text("artifact"), model.text("runtime"), accuracy))


def _with_accuracy(result: ReportedResult, evaluated: Sequence[_EvaluatedModel]) -> ReportedResult:
    """Add the accuracy of the same artifact and engine, if it was evaluated."""
    if result.accuracy is not None or result.kind in (PUBLISHED, ESTIMATED):
        return result
    name = Path(dict(result.facts).get("model", "")).name
    for one in evaluated:
        if Path(one.artifact).name == name and result.engine.partition(" ")[0] == one.runtime:
            return replace(result, accuracy=one.accuracy)
    return result


def _read_conversion(fields: Fields, found: _FileContents) -> None:
    """Read what `edge convert --json` printed: the artifact itself if it is still there."""
    name = fields.text("artifact")
    found.conversions.append(
        _proof_of(Path(name))
        or _conversion(
            name,
            fields.text("format"),
            fields.text("precision"),
            fields.child("proof"),
            [("files", ", ".join(fields.texts("files")))],
        )
    )


def _proof_of(folder: Path) -> ProvenConversion | None:
    """Return an artifact's proof; None if there is none, or no artifact."""
    try:
        artifact = Artifact.open(folder)
    except InputError:
        return None
    manifest = artifact.manifest
    if artifact.is_bare or "metrics" not in manifest.proof:
        return None
    source, conversion = manifest.source, manifest.conversion
    options, libraries = conversion.get("options"), conversion.get("libraries")
    steps = conversion.get("steps")
    facts = [
        ("source", f"{source.get('name')} ({source.get('format')})"),
        ("source's sha256", str(source.get("sha256", ""))),
        ("steps", ", ".join(map(str, steps)) if isinstance(steps, list) else ""),
        ("options", _pairs(options)),
        ("libraries", _pairs(libraries)),
        ("model's sha256", manifest.files.get(manifest.model, "")),
    ]
    fields = Fields(manifest.proof, str(folder))
    return _conversion(str(folder), manifest.format, manifest.precision, fields, [pair for pair in facts if pair[1]])


def _conversion(
    name: str, model_format: str, precision: str, proof: Fields, facts: Sequence[tuple[str, str]]
) -> ProvenConversion:
    return ProvenConversion(
        name=Path(name).name,
        format=model_format,
        precision=precision,
        passed=proof.values.get("passed") is True,
        samples=proof.optional_integer("samples") or 0,
        inputs=proof.optional_text("inputs") or "",
        metrics=_numbers(proof, "metrics"),
        limits=_numbers(proof, "limits"),
        facts=facts,
        command=f"edge verify {shlex.quote(name)}",
    )


def _numbers(proof: Fields, key: str) -> Mapping[str, float]:
    """Return the numbers of an object that may hold other values, too."""
    values = proof.child(key) if proof.has(key) else None
    if values is None:
        return {}
    return {
        name: values.number(name)
        for name, value in values.values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _pairs(values: object) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items()) if isinstance(values, dict) else ""
