"""`edge bench MODEL.gguf`: speeds as in llama-bench, what limits them, and published speeds."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from device_profiles.published.language_models import published_speeds, speeds_of_class, weight_class
from edge.benchmark.language_model import bytes_per_token
from edge.benchmark.language_model_report import format_count
from edge.cli import main
from runtimes.host.bandwidth import read_bandwidth
from runtimes.model_files.gguf import read_gguf

MODEL = Path(__file__).parents[2] / "runtimes" / "models" / "llama_cpp.gguf"
QUICK = ("--prompt-tokens", "40", "--gen-tokens", "20", "--repeats", "2", "--threads", "1")


def bench(capsys, *words):
    status = main(["bench", str(MODEL), *words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture
def engine():
    pytest.importorskip("llama_cpp")


def test_reading_and_writing_are_measured_with_what_made_them(engine, capsys):
    status, out, _ = bench(capsys, *QUICK, "--json")
    assert status == 0
    (row,) = json.loads(out)
    assert [(test["test"], test["tokens"], len(test["tok_s"])) for test in row["tests"]] == [
        ("pp40", 40, 2),
        ("tg20", 19, 2),
    ]
    assert all(test["mean_tok_s"] > 0 and test["sd_tok_s"] >= 0 for test in row["tests"])
    assert len(row["samples_ms"]) == 2 * 19
    assert row["status"] == "ok"
    assert row["runtime"] == "llama_cpp"
    assert row["threads"] == row["batch_threads"] == 1
    assert row["precision"] == "fp16"
    assert row["memory"] == "map"
    assert row["peak_rss_bytes"] > 10e6
    assert row["ceiling_tok_s"] == pytest.approx(row["read_bytes_s"] / row["bytes_per_token"])
    assert row["top"] == []


@pytest.mark.parametrize(("context", "read"), [((), 510), (("--context", "100"), 98)])
def test_the_usual_prompt_is_shorter_where_the_context_is(engine, capsys, context, read):
    status, out, err = bench(capsys, "--gen-tokens", "20", "--repeats", "1", "--threads", "1", "--json", *context)
    assert status == 0, err
    assert [test["test"] for test in json.loads(out)[0]["tests"]] == [f"pp{read}", "tg20"]


def test_people_see_speeds_and_the_ceiling(engine, capsys):
    status, out, err = bench(capsys, *QUICK)
    assert status == 0
    assert "pp40: " in out
    assert " ± " in out
    assert "ceiling of llama_cpp.gguf" in out
    assert "Published speeds: edge knows none for a model of 7.22 thousand parameters" in out
    assert err == "measuring 1/1 llama_cpp.gguf, 1 threads: ok\n"


def test_spreadsheets_get_plain_numbers(engine, capsys):
    _, out, _ = bench(capsys, *QUICK, "--csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert float(row["pp40_tok_s"]) > 0
    assert float(row["tg20_sd"]) >= 0


def test_more_tokens_than_the_model_was_trained_for_are_a_row_with_the_reason(engine, capsys):
    status, out, _ = bench(capsys, "--prompt-tokens", "1000")
    assert status == 2
    assert "was trained with 512" in out


@pytest.mark.parametrize(
    "words",
    [
        ("--runs", "3"),
        ("--input", "x.npz"),
        ("--seconds", "2"),
        ("--fail-above", "5%"),
        ("--throughput",),
        ("--device", "cuda"),
        ("--energy-csv", "x.csv"),
    ],
)
def test_options_of_other_models_are_refused(capsys, words):
    status, _, err = bench(capsys, *words)
    assert status == 2
    assert f"{words[0]} does not apply to language models" in err


def test_options_of_language_models_are_refused_for_others(capsys):
    assert main(["bench", str(MODEL.with_name("litert.tflite")), "--prompt-tokens", "3"]) == 2
    assert "--prompt-tokens is for language models" in capsys.readouterr().err


def test_a_mixture_is_refused(capsys):
    assert main(["bench", str(MODEL), str(MODEL.with_name("litert.tflite"))]) == 2
    assert "two commands" in capsys.readouterr().err


def test_a_tied_embedding_is_read_for_every_token():
    assert bytes_per_token(MODEL) == sum(tensor.bytes for tensor in read_gguf(MODEL).tensors)


def test_every_published_speed_has_its_source():
    rows = published_speeds()
    assert len(rows) > 100
    assert all(row.source.startswith("http") and row.write_tok_s > 0 and row.year for row in rows)


def test_published_speeds_of_the_same_class_are_found_fastest_first():
    rows = speeds_of_class(6.74e9, 4.5)
    assert {row.bits for row in rows} == {4}
    assert all(5.8e9 < row.parameters < 7.8e9 for row in rows)
    assert [row.write_tok_s for row in rows] == sorted((row.write_tok_s for row in rows), reverse=True)
    assert speeds_of_class(1e6, 4.5) == []
    assert [weight_class(bits) for bits in (4.5, 5.5, 8.5, 16)] == [4, 4, 8, 16]


def test_the_memory_is_read_at_some_speed():
    rounds = read_bandwidth(2, buffer_bytes=64 * 2**20)
    assert len(rounds) == 8  # four of each way of reading
    assert 1e8 < max(rounds) < 1e13


def test_large_numbers_for_people():
    assert [format_count(number) for number in (6.74e9, 260_032, 1.2e6, 12)] == [
        "6.74 billion",
        "260 thousand",
        "1.2 million",
        "12",
    ]
