"""The search on simulated machines: it finds the fastest right way, and looks at slow ones once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.benchmark.harness import Measurement, Setup
from edge.tuning.candidates import first_candidates, thread_counts, variants
from edge.tuning.search import FINAL_ROUNDS, MAX_FINALISTS, Search
from runtimes.errors import EngineMissingError, UsageError
from runtimes.jobs import EngineOptions
from runtimes.measurement.answer import MeasureAnswer

ARTIFACTS = Path(__file__).parents[2] / "compatibility" / "artifacts"


class Machine:
    """Measures setups with given true times; each process differs by `spread`, each run by 1 %.

    looks: How often each setup was measured.
    seconds: What it would have taken, with the costs below, as measured for MobileNetV2 on two cores.
    """

    START_S, LOAD_S, LOOK_S, MEASURE_S, PROOF_S = 0.9, 0.2, 0.2, 0.6, 0.6
    GRID_S = PROOF_S + START_S + 2 * (START_S + LOAD_S + 1.9)  # for a setup: a proof, and two steady measurements

    def __init__(self, times: Mapping[str, float], spread: float = 0.01, seed: int = 0) -> None:
        self.times, self.spread = times, spread
        self.random = np.random.default_rng(seed)
        self.looks: dict[str, int] = {}
        self.seconds = 0.0
        self.started: set[object] = set()

    def look(self, setups: Sequence[Setup]) -> Iterator[Measurement]:
        for one in setups:
            self.seconds += self.LOAD_S + self.LOOK_S + (0 if one.runtime in self.started else self.START_S)
            self.started.add(one.runtime)
            yield self._measured(one)

    def measure(self, setups: Sequence[Setup]) -> Iterator[Measurement]:
        for one in setups:
            self.seconds += self.START_S + self.LOAD_S + self.MEASURE_S
            yield self._measured(one)

    def prove(self, _setup: Setup) -> str:
        self.seconds += self.PROOF_S
        return ""

    def _measured(self, setup: Setup) -> Measurement:
        self.looks[setup.id] = self.looks.get(setup.id, 0) + 1
        return Measurement(setup=setup, round=0, values=self._values(setup))

    def _values(self, setup: Setup) -> MeasureAnswer:
        if setup.id not in self.times:
            return {"status": "crashed", "error": "worker", "message": "it crashed", "hint": ""}
        process = self.times[setup.id] * float(np.exp(self.random.normal(0, self.spread)))
        samples = process * np.exp(self.random.normal(0, 0.01, 200))
        return {"status": "ok", "samples_ms": samples.tolist(), "total_s": 1.0, "threads": 1}


def setups(*names: str) -> list[Setup]:
    """Return setups of different models. Without an engine's id they have no variants."""
    return [Setup(id=name, title=name, artifact=Path(name), options=EngineOptions(1)) for name in names]


def search(machine: Machine, candidates: Sequence[Setup], wrong: Sequence[str] = ()) -> Search:
    found = Search(
        look=machine.look, measure=machine.measure, prove=lambda one: "outputs differ" if one.id in wrong else ""
    )
    found.run(candidates)
    return found


def statuses(found: Search) -> dict[str, str]:
    return {one.setup.id: one.status for one in found.trials()}


def test_the_fastest_wins_and_what_is_slow_is_looked_at_once() -> None:
    machine = Machine({"a": 20.0, "b": 10.0, "c": 10.6, "d": 13.5, "e": 40.0})
    found = search(machine, setups(*"abcde"))
    assert found.winner is not None
    assert found.winner.setup == "b"
    assert statuses(found) == {"b": "winner", "c": "slower", "d": "slower", "a": "slower", "e": "slower"}
    assert machine.looks == {"a": 1, "b": 1 + FINAL_ROUNDS, "c": 1 + FINAL_ROUNDS, "d": 2, "e": 1}


def test_a_wrong_way_is_never_the_winner_however_fast() -> None:
    found = search(Machine({"right": 10.0, "wrong": 2.0}), setups("right", "wrong"), wrong=["wrong"])
    assert found.winner is not None
    assert found.winner.setup == "right"
    assert statuses(found) == {"right": "winner", "wrong": "wrong"}
    assert found.trials()[-1].reason == "outputs differ"


def test_if_everything_is_wrong_or_fails_there_is_no_winner() -> None:
    found = search(Machine({"a": 1.0}), setups("a", "crashes"), wrong=["a"])
    assert found.winner is None
    assert statuses(found) == {"a": "wrong", "crashes": "failed"}


def test_ways_that_are_equally_fast_share_the_place() -> None:
    found = search(Machine({"a": 10.0, "b": 10.0, "c": 12.0}, seed=1), setups(*"abc"))
    assert sorted(statuses(found).values()) == ["slower", "tied", "winner"]
    assert statuses(found)["c"] == "slower"


def test_at_most_a_few_are_compared_in_turn() -> None:
    machine = Machine({str(place): 10.0 + place / 100 for place in range(9)})
    search(machine, setups(*map(str, range(9))))
    assert sum(looks > 2 for looks in machine.looks.values()) == MAX_FINALISTS


def test_the_winner_is_within_three_percent_of_the_best_of_the_grid() -> None:
    far = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        times = {f"way {place}": float(10 * np.exp(random.exponential(0.4))) for place in range(12)}
        machine = Machine(times, spread=0.02, seed=seed)
        found = search(machine, setups(*times))
        assert found.winner is not None
        far += times[found.winner.setup] > 1.03 * min(times.values())
        assert sum(machine.looks.values()) <= 2 * 12 + MAX_FINALISTS * FINAL_ROUNDS
    assert far <= 5


def test_the_search_takes_a_fifth_of_the_time_of_the_grid() -> None:
    """Three models with four numbers of threads each, by the costs of MobileNetV2 on a quiet machine."""
    shares = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        models = {name: float(10 * np.exp(random.uniform(0, 0.7))) for name in "abc"}
        times = {f"{name}{count}": ms * count**-0.7 for name, ms in models.items() for count in (1, 2, 4, 8)}
        candidates = [
            Setup(id=f"{name}{count}", title="", artifact=Path(name), options=EngineOptions(count))
            for name in models
            for count in (1, 2, 4, 8)
        ]
        machine = Machine(times, seed=seed)
        Search(look=machine.look, measure=machine.measure, prove=machine.prove).run(candidates)
        shares.append(machine.seconds / (len(candidates) * machine.GRID_S))
    assert np.median(shares) <= 0.2


def test_fewer_threads_are_tried_until_they_are_far_slower() -> None:
    times = {16: 12.0, 8: 10.0, 4: 11.0, 2: 21.0, 1: 40.0}
    machine = Machine({str(count): ms for count, ms in times.items()})
    search(
        machine,
        [Setup(id=str(count), title="", artifact=Path("m"), options=EngineOptions(count)) for count in sorted(times)],
    )
    assert set(machine.looks) == {"16", "8", "4", "2"}


def test_one_proof_serves_all_numbers_of_threads() -> None:
    machine = Machine({"1": 10.0, "2": 9.0})
    proven: list[str] = []

    def prove(one: Setup) -> str:
        proven.append(one.id)
        return ""

    found = Search(look=machine.look, measure=machine.measure, prove=prove)
    found.run([Setup(id=str(count), title="", artifact=Path("m"), options=EngineOptions(count)) for count in (1, 2)])
    assert proven == ["2"]


def test_a_finalist_that_turns_out_far_slower_leaves_the_comparison() -> None:
    machine = Machine({"a": 10.0, "b": 10.1, "c": 10.2})
    found = Search(look=machine.look, measure=machine.measure, prove=machine.prove)
    looks = dict(machine.times)
    machine.times = {**looks, "c": 10.0}
    for one in setups("a", "b", "c"):
        found._keep(machine.look([one]))
    machine.times = {**looks, "c": 15.0}
    found._compare(setups("a", "b", "c"))
    assert machine.looks == {"a": 1 + FINAL_ROUNDS, "b": 1 + FINAL_ROUNDS, "c": 2}
    assert statuses(found)["c"] == "slower"


def test_settings_are_those_that_engines_declare_and_int8_is_for_int8() -> None:
    fp32, int8 = (first_candidates([ARTIFACTS / name], ["onnxruntime"], [1])[0] for name in ("onnx-fp32", "onnx-int8"))
    assert [one.options.settings for one in variants(fp32)] == [{"spinning": "off"}]
    assert [one.options.settings for one in variants(int8)] == [{"int8": "fast"}, {"spinning": "off"}]
    bare = first_candidates([ARTIFACTS / "onnx-fp32" / "tiny.onnx"], ["onnxruntime"], [1])[0]
    assert list(variants(bare)) == []


def test_every_installed_engine_of_the_format_is_tried() -> None:
    found = first_candidates([ARTIFACTS / "onnx-fp32"], [], [1, 2])
    engines = {one.runtime for one in found}
    assert {"onnxruntime", "openvino"} & engines
    assert len(found) == 2 * len(engines)


def test_threads_are_powers_of_two_and_all_cores() -> None:
    assert [thread_counts(cores) for cores in (1, 2, 4, 6, 12)] == [
        [1],
        [1, 2],
        [1, 2, 4],
        [1, 2, 4, 6],
        [1, 2, 4, 8, 12],
    ]


def test_language_models_and_missing_engines_are_one_clear_line() -> None:
    with pytest.raises(UsageError, match="language models are not tuned"):
        first_candidates([ARTIFACTS / "gguf-fp16"], [], [1])
    with pytest.raises(EngineMissingError, match="the engine 'tensorrt' is not installed"):
        first_candidates([ARTIFACTS / "tensorrt-fp16"], [], [1])
