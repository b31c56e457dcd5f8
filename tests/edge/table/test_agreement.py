from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.table.agreement import AnswerFile, Answers, TableAgreement, agreements, compare, read_answers
from edge.table.images import Pictures
from runtimes.artifact import Artifact, Manifest, OutputMeaning

TRUTH = np.array([2, 0, 1])
REFERENCE = np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1], [0.5, 0.3, 0.2]], np.float32)


def _said(shares: np.ndarray) -> Answers:
    return Answers(shares.argmax(axis=1), shares)


def _agreement(precision: str, same: int, difference: float, correct: int = 80, own: bool = False) -> TableAgreement:
    return TableAgreement(
        pictures=100,
        same_top1=same,
        max_difference=difference,
        correct=correct,
        reference_correct=80,
        precision=precision,
        own_weights=own,
    )


def test_compare_counts_equal_classes_and_true_ones() -> None:
    given = REFERENCE.copy()
    given[2] = [0.2, 0.6, 0.2]
    found = compare(_said(given), _said(REFERENCE), TRUTH, "int8")
    assert (found.same_top1, found.correct, found.reference_correct) == (2, 3, 2)
    assert found.max_difference == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("agreement", "right"),
    [
        (_agreement("fp32", 100, 9e-5), True),
        (_agreement("fp32", 100, 2e-4), False),
        (_agreement("fp32", 99, 1e-6), False),
        (_agreement("fp16", 100, 5e-3), True),
        (_agreement("fp16", 99, 5e-3), False),
        (_agreement("int8", 97, 0.2), True),
        (_agreement("int8", 96, 0.2), False),
        (_agreement("int8", 50, 0.9, correct=80, own=True), True),
        (_agreement("int8", 100, 0.0, correct=79, own=True), False),
    ],
)
def test_each_precision_owes_its_own_agreement(agreement: TableAgreement, right: bool) -> None:
    assert agreement.is_right is right


def test_logits_become_probabilities_and_the_background_is_counted_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "out.npz", logits=np.array([[[0.0, 1.0, 3.0]], [[9.0, 0.0, 0.0]]], np.float32))
    found = read_answers(tmp_path / "out.npz", OutputMeaning("logit", label_offset=1))
    expected = np.exp([1.0, 3.0]) / np.exp([0.0, 1.0, 3.0]).sum()
    np.testing.assert_allclose(found.shares[0], expected, rtol=1e-6)
    assert found.top.tolist() == [1, -1]


def _answered(folder: Path, name: str, values: np.ndarray) -> AnswerFile:
    path = folder / f"{name}.npz"
    np.savez(path, y=values)
    manifest = Manifest(name, "onnx", "fp32", "m.onnx", output=OutputMeaning("probability"))
    return AnswerFile(outputs=path, artifact=Artifact(folder, manifest), own_weights=False)


def _pictures(reference: np.ndarray | None, truth: np.ndarray | None) -> Pictures:
    pixels = np.zeros((1, 2, 2, 3), np.uint8)
    return Pictures(benchmark=pixels, calibration=pixels, evaluation=pixels, truth=truth, reference=reference)


def _rows(tops: list[int], classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[tops]


def test_answers_with_and_without_a_background_row_compare(tmp_path: Path) -> None:
    answered = {"same": _answered(tmp_path, "same", _rows([2, 0, 1], 1000))}
    found = agreements(answered, _pictures(_rows([3, 1, 2], 1001), TRUTH))
    assert (found["same"].same_top1, found["same"].correct, found["same"].max_difference) == (3, 3, 0.0)


def test_without_a_reference_or_the_truth_nothing_is_judged(tmp_path: Path) -> None:
    answered = {"b": _answered(tmp_path, "b", _rows([2, 0, 1], 1000))}
    assert agreements(answered, _pictures(None, TRUTH)) == {}
    assert agreements(answered, _pictures(_rows([2, 0, 1], 1000), None)) == {}
