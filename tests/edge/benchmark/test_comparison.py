"""Comparisons: their intervals, verdicts and rankings, on rounds with known differences."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.benchmark import Measurement, Setup, measure_all, report, rows_of
from edge.benchmark.compare import LOOKS, compare, compare_in_turn, is_decided, verdict_of
from edge.benchmark.harness import IsDecided
from edge.benchmark.ranking import rank_setups
from edge.benchmark.round_intervals import paired_ratio, separate_ratio, t_quantile
from edge.benchmark.rows import Row
from edge.cli import main
from runtimes.measurement.statistics import Interval
from tests.edge.benchmark.simulated_rounds import KINDS, in_turn, two_sessions

SIMULATIONS = 40  # of each kind; `python -m tests.benchmarks.calibration` makes 2,000


def rows(other_cores: float = 0.0, **medians: list[float]) -> list[Row]:
    """Rows whose rounds have these medians, in ms; ten equal runs in each round."""
    found = [
        Measurement(
            setup=Setup(id=name, title=name.upper(), artifact=Path(f"{name}.onnx")),
            round=number,
            values={"status": "ok", "samples_ms": [value] * 10, "other_cores": other_cores},
        )
        for name, values in medians.items()
        for number, value in enumerate(values)
    ]
    return rows_of(found)


@pytest.mark.parametrize(
    ("confidence", "freedom", "expected"),
    # Table 2 of any book: 12.706 for one degree of freedom at 95 %, ...; the last is the normal distribution.
    [
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.99, 4, 4.604),
        (0.95, 10, 2.228),
        (0.98, 30, 2.457),
        (0.95, math.inf, 1.960),
    ],
)
def test_quantiles_of_students_distribution_are_those_of_the_tables(confidence, freedom, expected):
    assert t_quantile(confidence, freedom) == pytest.approx(expected, abs=5e-4)


def test_a_paired_interval_is_students_on_the_logarithms():
    new, old = [11.0, 12.0, 13.0, 12.5, 11.5], [10.0, 10.5, 12.0, 11.0, 10.0]
    logs = np.log(new) - np.log(old)
    half = 2.776 * logs.std(ddof=1) / math.sqrt(5)
    found = paired_ratio(new, old, 0.95)
    assert (found.low, found.value, found.high) == pytest.approx(
        (math.exp(logs.mean() - half), math.exp(logs.mean()), math.exp(logs.mean() + half)), rel=1e-3
    )


def test_one_disturbed_round_of_eight_does_not_widen_the_interval():
    old = [10.0, 10.1, 9.9, 10.0, 10.05, 9.95, 10.02, 9.98]
    new = [value * 1.05 for value in old]
    disturbed = [*new[:-1], new[-1] * 3]
    calm, found = paired_ratio(new, old, 0.95), paired_ratio(disturbed, old, 0.95)
    assert calm.value == pytest.approx(1.05)
    assert found.value == pytest.approx(1.05, rel=1e-3)
    assert found.high < 1.06


def test_what_lies_between_sessions_is_in_the_interval_against_a_file_however_many_rounds():
    found = separate_ratio([10.0, 10.001] * 50, [10.0, 10.001] * 50, 0.95)
    assert found.high - 1 == pytest.approx(1.96 * math.sqrt(2) * 0.01, rel=0.05)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.90, 0.99, "faster"),
        (1.01, 1.10, "slower"),
        (0.98, 1.02, "no difference"),
        (0.98, 1.04, "too few rounds"),
        (0.96, 1.02, "too few rounds"),
        (1.001, 1.002, "slower"),
    ],
)
def test_the_verdict_follows_from_the_interval(low, high, verdict):
    assert verdict_of(Interval(low, (low + high) / 2, high)) == verdict


@pytest.mark.parametrize("kind", KINDS)
def test_a_setup_compared_with_itself_is_seldom_different_and_5_percent_are_found(kind):
    random = np.random.default_rng(3)
    same = Counter(in_turn(kind, random).verdict for _ in range(SIMULATIONS))
    slower = Counter(in_turn(kind, random, 0.05).verdict for _ in range(SIMULATIONS))
    # With 5 % false, 40 simulations have more than 6 in three of a thousand cases.
    assert same["faster"] + same["slower"] <= 6
    assert slower["slower"] >= 0.85 * SIMULATIONS
    assert slower["faster"] == 0


def test_a_rule_that_takes_the_extremes_of_two_rounds_fails_this_test():
    """The rule of before: its interval were the smallest and the largest ratio of two rounds."""
    random, wrong = np.random.default_rng(3), 0
    for _ in range(SIMULATIONS):
        new, old = np.exp(random.normal(0, 0.015, (2, 2)))
        wrong += bool(new.max() < old.min() or new.min() > old.max())
    assert wrong > 6


@pytest.mark.parametrize("rounds", [5, 20])
def test_two_sessions_of_the_same_setup_are_seldom_different(rounds):
    random = np.random.default_rng(3)
    same = Counter(two_sessions(rounds, random).verdict for _ in range(SIMULATIONS))
    slower = Counter(two_sessions(rounds, random, 0.1).verdict for _ in range(SIMULATIONS))
    assert same["faster"] + same["slower"] <= 6
    assert same["one session only"] > SIMULATIONS / 2
    assert slower["slower"] >= 0.9 * SIMULATIONS


def test_two_rounds_are_too_few_to_tell_a_small_difference():
    (found,) = compare(rows(a=[10.2, 10.4]), rows(a=[10.0, 10.1]))
    assert found.verdict == "too few rounds"
    assert found.notes == ("measure both with --rounds 5 or more",)


def test_one_round_has_no_interval():
    (found,) = compare(rows(a=[20.0]), rows(a=[10.0] * 5))
    assert (found.verdict, found.ratio, found.rounds) == ("too few rounds", None, (1, 5))


def test_five_rounds_of_one_session_leave_a_difference_of_2_percent_open():
    (found,) = compare(rows(a=[10.2, 10.21, 10.2, 10.22, 10.2]), rows(a=[10.0, 10.0, 10.01, 10.0, 10.02]))
    assert found.verdict == "one session only"
    assert "in turn" in found.notes[0]


def test_in_turn_a_difference_of_2_percent_is_found():
    measured = rows(new=[10.2, 10.21, 10.2, 10.22, 10.2], old=[10.0, 10.0, 10.01, 10.0, 10.02])
    (found,) = compare_in_turn(measured, {"new": "old"})
    assert (found.verdict, found.baseline, found.rounds) == ("slower", "old", (5, 5))
    assert found.ratio.value == pytest.approx(1.02, abs=0.001)


def test_a_busy_machine_is_compared_by_its_fastest_runs():
    (calm,) = compare(rows(a=[10.0] * 5), rows(a=[10.0] * 5))
    (busy,) = compare(rows(1.5, a=[10.0] * 5), rows(a=[10.0] * 5))
    (uneven,) = compare(rows(a=[10.0, 11.0, 10.0, 10.0, 10.0]), rows(a=[10.0] * 5))
    assert [item.statistic for item in (calm, busy, uneven)] == ["median", "1st percentile", "1st percentile"]


def scripted(new: float, old: list[float]) -> tuple[list[Measurement], IsDecided]:
    heard: list[int] = []

    def decided(done):
        heard.append(len(done))
        return is_decided(done, {"new": "old"})

    measured = [
        Measurement(
            setup=Setup(id=name, title=name, artifact=Path("m.onnx")),
            round=number,
            values={"status": "ok", "samples_ms": [value] * 10},
        )
        for number, before in enumerate(old)
        for name, value in (("new", before * new), ("old", before))
    ]
    return measured, decided


def test_rounds_end_at_the_first_look_that_decides():
    measured, decided = scripted(1.1, [10.0, 10.1, 9.9, 10.0, 10.2, 10.1])
    assert [decided(measured[: 2 * rounds]) for rounds in range(1, 7)] == [False, False, False, False, True, False]


def test_rounds_go_on_while_nothing_is_decided():
    random = np.random.default_rng(0)
    measured, decided = scripted(1.0, [])
    for number in range(LOOKS[0][0]):
        for name, value in (("new", random.uniform(5, 20)), ("old", random.uniform(5, 20))):
            answer = {"status": "ok", "samples_ms": [value] * 10}
            measured.append(
                Measurement(setup=Setup(id=name, title=name, artifact=Path("m.onnx")), round=number, values=answer)
            )
    assert not decided(measured)


def test_the_harness_ends_the_rounds_when_it_is_told_that_all_is_decided(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.null").write_bytes(b"x")
    few = {"name": "published", "runs": 2, "pause_s": 0}
    setups = [Setup(id=name, title=name, artifact=tmp_path / f"{name}.null", protocol=few) for name in ("a", "b")]
    found = list(measure_all(setups, 5, is_decided=lambda done: len(done) == 4))
    assert [one.round for one in found] == [0, 0, 1, 1]


def test_setups_that_the_rounds_do_not_tell_apart_share_a_place():
    measured = rows(c=[20.0, 20.1, 19.9, 20.0, 20.0], a=[10.0, 10.2, 9.9, 10.1, 10.0], b=[10.1, 10.0, 10.1, 10.0, 10.1])
    ranks = rank_setups(measured)
    assert [(rank.setup, rank.place, rank.is_tied) for rank in ranks] == [
        ("a", 1, True),
        ("b", 1, True),
        ("c", 3, False),
    ]
    assert ranks[0].slowdown is None
    assert ranks[2].slowdown.value == pytest.approx(2.0, rel=0.01)


def test_the_text_ranks_the_setups_of_one_run():
    measured = rows(
        a=[10.0, 10.01, 10.0, 10.0, 10.0], b=[10.0, 10.02, 10.0, 10.0, 10.01], c=[19.2, 19.3, 19.2, 19.1, 19.2]
    )
    lines = report.as_text(measured, ranks=rank_setups(measured)).split("\n\n")[-1].splitlines()
    assert lines[0] == "A and B are equally fast, the ratio of their times is 1.00 [1.00, 1.00]"
    assert lines[1].startswith("A is 1.92× as fast as C [1.9")


def test_setups_of_different_boards_are_not_ranked_together():
    measured = rows(a=[10.0, 10.0], b=[20.0, 20.0])
    assert rank_setups([measured[0], replace(measured[1], host="pi")]) == []
    assert rank_setups(rows(a=[10.0], b=[20.0])) == []


def test_the_json_has_interval_and_rank():
    measured = rows(new=[11.0, 11.1, 11.0, 11.05, 11.0], old=[10.0] * 5)
    found = compare_in_turn(measured, {"new": "old"})
    new, old = json.loads(report.as_json(measured, (), found, rank_setups(measured)))
    assert new["comparison"]["verdict"] == "slower"
    assert new["comparison"]["interval"] == [new["comparison"]["ratio"]["low"], new["comparison"]["ratio"]["high"]]
    assert (new["comparison"]["baseline"], "comparison" in old) == ("old", False)
    assert (old["rank"]["place"], new["rank"]["place"], new["rank"]["fastest"]) == (1, 2, "old")


# --- the command ------------------------------------------------------------------------------------------------------

QUICK = ("--seconds", "0.2")


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.null", "b.null"):
        Path(name).write_bytes(b"x")


def older(factor: float, rounds: int = 5) -> None:
    """Write old.json: the rows of new.json with every time multiplied by `factor`, in as many rounds."""
    (row,) = json.loads(Path("new.json").read_text())
    median = row["median_ms"] * factor
    samples = [median * (1 + 0.001 * (place % 3)) for place in range(10 * rounds)]
    parts = [{**row["rounds"][0], "round": number, "runs": 10, "median_ms": median} for number in range(rounds)]
    Path("old.json").write_text(json.dumps([{**row, "samples_ms": samples, "rounds": parts}]))


def test_twice_as_slow_ends_with_status_9(models, capsys):
    assert main(["bench", "a.null", *QUICK, "--rounds", "2", "--out", "new.json"]) == 0
    older(0.001)
    words = ["bench", "a.null", *QUICK, "--rounds", "2", "--compare", "old.json"]
    capsys.readouterr()
    assert main([*words, "--fail-above", "5%"]) == 9
    out, err = capsys.readouterr()
    assert "a.null: slower (new/old time" in out
    assert "takes" in err.splitlines()[-2]
    assert "--fail-above allows 5%" in err.splitlines()[-1]
    assert main([*words, "--fail-above", "5%", "--json"]) == 9
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["error"] == "slower"
    assert main(words) == 0  # without a limit it is only reported


def test_what_is_not_decided_is_said_and_does_not_fail(models, capsys):
    assert main(["bench", "a.null", *QUICK, "--rounds", "1", "--out", "new.json"]) == 0
    older(1.0)
    assert main(["bench", "a.null", *QUICK, "--rounds", "1", "--compare", "old.json", "--fail-above", "5%"]) == 0
    assert "'a.null, null' is not decided: too few rounds" in capsys.readouterr().err


def test_a_baseline_is_measured_in_turn(models, capsys):
    assert main(["bench", "a.null", *QUICK, "--rounds", "2", "--compare", "b.null", "--json"]) == 0
    new, old = json.loads(capsys.readouterr().out)
    assert [new["setup"], old["setup"]] == ["a.null, null", "b.null, null"]
    assert (new["comparison"]["baseline"], new["comparison"]["rounds"]) == ("b.null, null", [2, 2])
    began = sorted((part["began_at"], row["setup"][0]) for row in (new, old) for part in row["rounds"])
    assert [name for _, name in began] == ["a", "b", "b", "a"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["a.null", "--fail-above", "5%"], 2, "--fail-above needs something to compare with"),
        (["a.null", "--compare", "old.json", "--fail-above", "0.05"], 2, "'0.05' is not a share in percent"),
        (["a.null", "--compare", "a.null"], 2, "a.null is compared with itself"),
        (["a.null", "--compare", "absent.json"], 3, "absent.json cannot be read as JSON"),
        (["a.null", "--compare", "absent"], 3, "absent does not exist"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_measured(words, status, message, models, capsys):
    assert main(["bench", *words]) == status
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
