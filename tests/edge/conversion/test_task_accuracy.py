"""`edge convert --evaluate` with models that do not classify: the same figures as `edge evaluate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.cli import main
from edge.console.progress import ignore_progress
from edge.conversion.task_accuracy import TaskAccuracy
from edge.evaluation.runner import EvaluateOptions
from runtimes.errors import InputError, ProofError
from tests.edge.evaluation.test_labeled_objects import YOLO_LINE, save
from tests.edge.inference.test_detection import ULTRALYTICS, answering, yolo

COUNT = 24


@pytest.fixture
def birds(tmp_path) -> Path:
    """Pictures with a bird where the detector of the tests finds one."""
    pytest.importorskip("faster_coco_eval")
    for number in range(COUNT):
        save(tmp_path / "birds" / f"{number}.png")
        (tmp_path / "birds" / f"{number}.txt").write_text(YOLO_LINE.format(index=2))
    return tmp_path / "birds"


def worse(place: Path) -> Path:
    """The same detector, whose box is half as high."""
    array = np.zeros((1, 7, 84), np.float32)
    array[0, :4] = 3
    array[0, :4, 10], array[0, 6, 10] = (32, 30, 32, 8), 0.75
    return answering(place, {"output0": array}, ULTRALYTICS)


def checked(source: Path, data: Path, allowed: float = 0.01) -> TaskAccuracy:
    return TaskAccuracy(
        source=source,
        data=data,
        options=EvaluateOptions(),
        allowed=allowed,
        kept=Path("out.failed"),
        on_progress=ignore_progress,
    )


def test_a_result_that_finds_less_fails(birds, tmp_path):
    accuracy = checked(yolo(tmp_path / "right.onnx"), birds)
    accuracy.check_source()
    with pytest.raises(ProofError, match=r"map falls from 1\.0000 to 0\.") as caught:
        accuracy.compare(worse(tmp_path / "wrong.onnx"))
    assert "out.failed" in caught.value.hint
    found = checked(yolo(tmp_path / "right.onnx"), birds, allowed=1).compare(tmp_path / "wrong.onnx")
    assert found["drop"] > 0.8
    low, high = found["interval"]
    assert low <= found["drop"] <= high


def test_data_of_which_the_source_finds_nothing_stops_the_conversion(capsys, birds, tmp_path):
    for place in birds.glob("*.txt"):
        place.write_text("0 0.1 0.1 0.1 0.1\n")  # cats, elsewhere
    words = ["--to", "onnx", "--evaluate", str(birds), "--out", str(tmp_path / "out")]
    assert main(["convert", str(yolo(tmp_path / "m.onnx")), *words]) == InputError.exit_code
    assert "the source itself finds nothing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unreadable_pictures_stop_the_conversion(birds, tmp_path):
    (birds / "3.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=f"1 of the {COUNT} evaluation inputs could not be read"):
        checked(yolo(tmp_path / "m.onnx"), birds).check_source()
