"""A board's outputs compared with this machine's, and emulated boards, whose times are meaningless."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.benchmark import Setup
from edge.benchmark.rows import Round, Row
from edge.table.compare_outputs import OutputDiff, compare_files, compare_with_local
from edge.table.footnotes import _beside_here
from edge.table.measure import TableOptions
from edge.table.rows import row_of_setup
from edge.table.setups import TableSetup, setups_of_board
from runtimes import artifact
from runtimes.artifact import Manifest, Quantization, TensorSpec

MODEL = Path(__file__).parents[2] / "runtimes" / "models" / "onnxruntime.onnx"
STEP = 0.25


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "m.onnx").write_bytes(b"x")
    spec = TensorSpec("y", "uint8", (1, 4), Quantization((STEP,), (0,)))
    artifact.write(folder, Manifest("a", "onnx", "int8", "m.onnx", outputs=(spec,)), {}, {})
    return folder


def saved(path: Path, values: Any) -> Path:
    np.savez(path, y=np.array(values, np.float32))
    return path


def test_values_that_differ_are_counted_in_steps(tmp_path: Path, quantized: Path) -> None:
    here = saved(tmp_path / "here.npz", [[[0, 1, 0, 0]], [[0, 0, 2, 0]]])
    there = saved(tmp_path / "there.npz", [[[0, 1, 0, 0]], [[0, 3, 2 - STEP, 0]]])
    found = compare_files(there, here, "1", quantized)
    assert (found.pictures, found.same_top1, found.values, found.differing) == (2, 1, 8, 2)
    assert (found.max_difference, found.max_steps) == (3.0, 12)
    assert compare_files(here, here, "1", quantized).is_equal


def test_a_bare_model_has_no_steps(tmp_path: Path) -> None:
    one = saved(tmp_path / "one.npz", [[[0.5, 0.25]]])
    assert compare_files(one, one, "1", MODEL).max_steps is None


def test_the_same_engine_is_asked_here_once_for_setups_alike(tmp_path: Path) -> None:
    model, fed = tmp_path / "m.null", tmp_path / "in.npz"
    model.write_bytes(b"x")
    fed.write_bytes(saved(tmp_path / "x.npz", [[3.0], [4.0]]).read_bytes())
    there = {"same@pi": [[3.0], [4.0]], "other@pi": [[3.0], [4.5]], "none@pi": [[3.0], [4.0]]}
    asked = {}
    for name, values in there.items():
        engine = "no-such-engine" if name.startswith("none") else "null"
        outputs = saved(tmp_path / f"{name}.npz", values)
        asked[name] = Setup(
            id=name, title=name, artifact=model, runtime=engine, inputs=fed, evaluate=fed, outputs=outputs, host="pi"
        )
    asked["here"] = Setup(
        id="here", title="here", artifact=model, runtime="null", evaluate=fed, outputs=tmp_path / "same@pi.npz"
    )
    found = compare_with_local(asked, 60, tmp_path)
    assert {name: one.is_equal for name, one in found.items()} == {"same@pi": True, "other@pi": False}
    assert [path.name for path in tmp_path.glob("here-*.npz")] == ["here-0.npz"]


def test_an_emulated_board_is_asked_for_little_and_its_rows_show_no_time() -> None:
    machine = {
        "cpu": {"usable_cores": 4, "int8_saturates": False},
        "accelerators": {"nvidia_gpus": []},
        "os": {"emulated": True},
    }
    slow = setups_of_board("pi", machine, ())
    real = setups_of_board("pi", {**machine, "os": {"emulated": False}}, ())
    assert {setup.threads for setup in slow if setup.default} == {1}
    assert {setup.threads for setup in real if setup.default} == {1, 4}
    assert (
        TableOptions().runs_of(slow[0]),
        TableOptions().runs_of(real[0]),
        TableOptions(runs=9).runs_of(slow[0]),
    ) == (2, 250, 9)
    assert (TableOptions().rounds_of(slow), TableOptions().rounds_of([*slow, *real])) == (1, 2)
    measured = Row(setup="a", total_s=3.0, rounds=[Round(runs=2)])
    row = row_of_setup(slow[0], measured, trained=True)
    assert (row.kind, row.source, row.time_s, row.fps) == ("measured", "emulated", None, None)
    assert row_of_setup(real[0], measured, trained=True).time_s == 3.0


def test_the_notes_group_boards_by_how_much_their_outputs_differ() -> None:
    measured = Row(setup="a", total_s=3.0, rounds=[Round(runs=2)], runtime_version="2.3")
    setups = [
        TableSetup(id=name, title=name.upper(), artifact="m", runtime="litert", threads=1, host="pi") for name in "abc"
    ]
    rows = [row_of_setup(setup, measured, trained=True) for setup in setups]
    alike = {
        "a": OutputDiff(
            architecture="x86_64",
            runtime_version="2.3",
            pictures=2,
            same_top1=2,
            values=2002,
            differing=0,
            max_difference=0.0,
            max_steps=0,
        ),
        "b": OutputDiff(
            architecture="x86_64",
            runtime_version="2.3",
            pictures=2,
            same_top1=2,
            values=2002,
            differing=5,
            max_difference=0.1,
            max_steps=7,
        ),
        "c": OutputDiff(
            architecture="x86_64",
            runtime_version="2.4",
            pictures=2,
            same_top1=1,
            values=2002,
            differing=9,
            max_difference=1e-6,
            max_steps=None,
        ),
    }
    assert _beside_here(rows, alike) == [
        "Outputs compared with those of the same artifacts and engines for the same pictures on this machine (x86_64):",
        "- bit-identical on 2: pi, A",
        "- same top-1 on 2 of 2, 5 of 2002 values differ, by 7 steps of the quantized output at most: pi, B",
        "- same top-1 on 1 of 2, 9 of 2002 values differ, by 1.0e-06 at most "
        "(the engine is 2.3 there, 2.4 here): pi, C",
    ]
    assert _beside_here(rows, {}) == []
