"""`edge bench MODEL.gguf --bill`: the cost of 100 e-mails, with the cells that the lecture's slide left empty."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from device_profiles.published.api_prices import published_prices
from edge.benchmark.bill import BillOptions, MeasuredSpeed, check_bill, compute_bill
from edge.benchmark.language_model_report import _time
from edge.cli import main
from runtimes.errors import InputError

MODEL = Path(__file__).parents[2] / "runtimes" / "models" / "llama_cpp.gguf"
QUICK = ("--prompt-tokens", "40", "--gen-tokens", "20", "--repeats", "1", "--threads", "1")
SPEED = MeasuredSpeed(
    name="m", prompt_tok_s=40.0, generation_tok_s=10.0, prompt_test="pp400", generation_test="tg200", watts=20.0
)


def bench(capsys, *words):
    status = main(["bench", str(MODEL), *words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_prices_of_the_slide_follow_from_the_published_ones():
    costs = {one.model: one.cost_usd(prompt_tokens=40_000, completion_tokens=20_000) for one in published_prices()}
    assert costs["GPT-4 (8K)"] == pytest.approx(2.40)
    assert costs["ChatGPT (gpt-3.5-turbo)"] == pytest.approx(0.12)
    assert costs["Claude Instant"] == pytest.approx(0.1754)
    on_slide = {one.model: one.slide_usd for one in published_prices()}
    assert on_slide == {"GPT-4 (8K)": 2.40, "ChatGPT (gpt-3.5-turbo)": 0.08, "Claude Instant": 0.1752}
    chatgpt = next(one for one in published_prices() if one.slide_usd == 0.08)
    assert chatgpt.cost_usd(prompt_tokens=40_000, completion_tokens=0) == pytest.approx(0.08)
    assert "prompts alone" in chatgpt.note


def test_time_energy_and_money_follow_from_speed_and_power():
    measured = compute_bill(SPEED, BillOptions(price_kwh=0.25)).lines[0]
    assert measured.seconds == pytest.approx(100 * (400 / 40 + 200 / 10))
    assert measured.kwh == pytest.approx(20 * 3000 / 3.6e6)
    assert measured.usd == pytest.approx(0.25 * 20 * 3000 / 3.6e6)
    assert (measured.kind, measured.watts_from) == ("measured", "measured")


def test_a_given_power_goes_before_a_measured_one_and_none_leaves_the_cells_empty():
    given = compute_bill(SPEED, BillOptions(watts=10.0)).lines[0]
    assert (given.watts, given.watts_from) == (10.0, "given")
    without = MeasuredSpeed(**{**vars(SPEED), "watts": None})
    unknown = compute_bill(without, BillOptions()).lines[0]
    assert (unknown.watts, unknown.kwh, unknown.usd) == (None, None, None)
    assert "--watts" in unknown.note


def test_published_speeds_are_marked_with_their_source_and_have_no_power():
    lines = [line for line in compute_bill(SPEED, BillOptions()).lines if line.kind == "published speed"]
    assert any("LLaMA 2 7B" in line.name for line in lines)
    assert all(line.seconds and line.kwh is None and line.usd is None for line in lines)
    assert all("http" in line.note for line in lines)


def test_the_assumed_price_of_energy_is_reported_as_assumed():
    assert compute_bill(SPEED, BillOptions()).price_kwh_from == "assumed"
    assert compute_bill(SPEED, BillOptions(price_kwh=0.0)).price_kwh == 0.0


def test_current_prices_take_the_place_of_the_published_ones(tmp_path):
    file = tmp_path / "prices.csv"
    file.write_text("model,prompt_usd_per_1k,completion_usd_per_1k\nnew,0.001,0.004\n", encoding="utf-8")
    (line,) = [line for line in compute_bill(SPEED, BillOptions(prices=file)).lines if "price" in line.kind]
    assert (line.kind, line.name) == ("given price", "new")
    assert line.usd == pytest.approx(0.04 + 0.08)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,prompt\na,1\n", "lacks the column prompt_usd_per_1k"),
        ("model,prompt_usd_per_1k,completion_usd_per_1k\na,1\n", "line 2, has no price"),
        ("model,prompt_usd_per_1k,completion_usd_per_1k\na,1,-2\n", "line 2, has no price"),
        ("model,prompt_usd_per_1k,completion_usd_per_1k\na,1,nan\n", "line 2, has no price"),
        ("", "lacks the column model"),
    ],
)
def test_a_file_that_holds_no_prices_is_refused_by_line(tmp_path, text, message):
    file = tmp_path / "prices.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        check_bill(BillOptions(prices=file))


def test_a_missing_or_binary_file_of_prices_is_refused_before_anything_is_measured(tmp_path, capsys):
    status, _, err = bench(capsys, "--bill", "--prices", str(tmp_path / "none.csv"))
    assert status == 3
    assert "cannot be read" in err
    assert "measuring" not in err
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a CSV file"):
        check_bill(BillOptions(prices=tmp_path / "binary.csv"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--watts", "10"), "--watts is for the bill"),
        (("--bill", "--gen-tokens", "0"), "--gen-tokens 0 skips a test"),
    ],
)
def test_options_that_contradict_the_bill_are_usage_errors(capsys, words, message):
    status, _, err = bench(capsys, *words)
    assert status == 2
    assert message in err


def test_the_command_prints_and_writes_the_bill(capsys):
    pytest.importorskip("llama_cpp")
    status, out, err = bench(capsys, *QUICK, "--bill", "--watts", "12", "--json")
    assert status == 0, err
    (row,) = json.loads(out)
    speeds = [test["mean_tok_s"] for test in row["tests"]]
    line = row["bill"]["lines"][0]
    assert line["seconds"] == pytest.approx(100 * (400 / speeds[0] + 200 / speeds[1]))
    assert line["usd"] == pytest.approx(12 * line["seconds"] / 3.6e6 * 0.30)
    assert row["bill"]["price_kwh_from"] == "assumed"
    _, out, _ = bench(capsys, *QUICK, "--bill", "--watts", "12")
    assert "The bill for summarizing 100 e-mails" in out
    assert "GPT-4 (8K), OpenAI, 2023-04" in out
    assert "2.40" in out
    _, out, _ = bench(capsys, *QUICK, "--bill", "--markdown")
    assert "| ChatGPT (gpt-3.5-turbo), OpenAI, 2023-04 | published price |" in out


def test_without_the_option_there_is_no_bill(capsys):
    pytest.importorskip("llama_cpp")
    _, out, _ = bench(capsys, *QUICK, "--csv")
    assert "bill" not in next(csv.reader(io.StringIO(out)))
    _, out, _ = bench(capsys, *QUICK, "--json")
    assert "bill" not in json.loads(out)[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.234, "0.23 s"), (59.4, "59 s"), (59.7, "1 min 00 s"), (3599.7, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations_read_well(seconds, text):
    assert _time(seconds) == text
