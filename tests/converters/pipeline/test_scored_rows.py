"""A detector's rows are compared as its decoder reads them: what nobody reads may differ, what somebody reads may not.

The detector is plain numpy: 64 anchors with a box and a logit each. Far from the object, both are of no use, as in
BlazeFace: they hardly vary from picture to picture, and int8 adds noise that is as large.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from converters.pipeline.tensor_matching import TensorPair
from converters.pipeline.verification import complete_checks, selfcheck_rows, selfcheck_rule, verify
from converters.proof.origins import whole_output
from converters.proof.output_checks import describe_row_scores, with_row_scores
from runtimes.artifact import TensorSpec
from runtimes.artifact.json_fields import Fields, to_json
from runtimes.artifact.self_check import OutputCheck, RowScores, SelfCheck
from runtimes.errors import InputError
from runtimes.verification.selfcheck import judge

SAMPLES, GRID, STRIDE = 16, 8, 16
BOXES, LOGITS = TensorSpec("boxes", "float32", (1, 64, 6)), TensorSpec("logits", "float32", (1, 64, 1))
PAIRS = (TensorPair(source=BOXES, other=BOXES), TensorPair(source=LOGITS, other=LOGITS))
SCORES = RowScores("logits", 0.25, True)
ANCHORS = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), axis=-1).reshape(-1, 2) * STRIDE + STRIDE / 2


def source(seed=1):
    """Return the answers to pictures with one object each: 4 to 9 of the anchors see it."""
    random = np.random.default_rng(seed)
    boxes = random.normal(0, 60, (1, 64, 6)) + random.normal(0, 12, (SAMPLES, 1, 64, 6))
    logits = random.uniform(-300, -50, (1, 64, 1)) + random.normal(0, 5, (SAMPLES, 1, 64, 1))
    for sample in range(SAMPLES):
        center, side = random.uniform(30, 98, 2), random.uniform(24, 60)
        near = np.flatnonzero(np.linalg.norm(ANCHORS - center, axis=1) < 24)
        logits[sample, 0, near, 0] = random.uniform(-2, 4, len(near))
        boxes[sample, 0, near, :2] = center - ANCHORS[near]
        boxes[sample, 0, near, 2:] = [side, 1.3 * side, -side / 4, side / 5]
    return {"boxes": boxes.astype(np.float32), "logits": logits.astype(np.float32)}


def in_int8(answers, seed=2):
    """Return the answers as a right int8 model gives them: rows that count are nearly the same, others are noise."""
    random = np.random.default_rng(seed)
    noise = np.where(answers["logits"] > -5, 0.8, 12)
    return {
        "boxes": (answers["boxes"] + noise * random.normal(0, 1, answers["boxes"].shape)).astype(np.float32),
        "logits": (answers["logits"] + noise / 3 * random.normal(0, 1, answers["logits"].shape)).astype(np.float32),
    }


def checks(truth, given, scores=SCORES):
    plain = tuple(OutputCheck(spec.name, "values", whole_output(spec.shape)) for spec in (BOXES, LOGITS))
    found = with_row_scores(plain, PAIRS, scores, truth)
    return complete_checks(found, truth, given, (BOXES, LOGITS))


def proof(truth, given, scores=SCORES):
    return verify("int8", truth, given, checks(truth, given, scores))


def swapped_coordinates(boxes, logits):
    return boxes[..., [1, 0, 2, 3, 4, 5]], logits


def swapped_sizes(boxes, logits):
    return boxes[..., [0, 1, 3, 2, 4, 5]], logits


def shifted_anchors(boxes, logits):
    return np.roll(boxes, 1, axis=2), np.roll(logits, 1, axis=2)


def shifted_boxes(boxes, logits):
    return np.roll(boxes, GRID, axis=2), logits


def dead_scores(boxes, logits):
    return boxes, np.full_like(logits, -20)


def half_dead_scores(boxes, logits):
    logits = logits.copy()
    logits[:, :, 32:] = -20
    return boxes, logits


def false_alarms(boxes, logits):
    logits = logits.copy()
    logits[:, :, ::16] = 1.0
    return boxes, logits


def dead_coordinate(boxes, logits):
    boxes = boxes.copy()
    boxes[..., 3] = 40
    return boxes, logits


def scaled_boxes(boxes, logits):
    return boxes * 1.5, logits


def noise_alone(boxes, logits):
    """Rows that nobody reads are no longer the source's at all."""
    return np.where(logits > -5, boxes, -boxes), logits


FAULTS = [
    swapped_coordinates,
    swapped_sizes,
    shifted_anchors,
    shifted_boxes,
    dead_scores,
    half_dead_scores,
    false_alarms,
    dead_coordinate,
    scaled_boxes,
    noise_alone,
]


def test_rows_that_nobody_reads_may_differ_in_int8():
    truth = source()
    given = in_int8(truth)
    assert not proof(truth, given, scores=None).passed
    verdict = proof(truth, given)
    assert verdict.passed, verdict.message


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_in_what_is_read_fails(fault):
    truth = source()
    given = in_int8(truth)
    boxes, logits = fault(given["boxes"], given["logits"])
    assert not proof(truth, {"boxes": boxes, "logits": logits}).passed


@pytest.mark.parametrize("fault", [one for one in FAULTS if one is not noise_alone], ids=lambda fault: fault.__name__)
def test_a_device_finds_the_fault_too(fault):
    truth = source()
    given = in_int8(truth)
    looks = checks(truth, given)
    rule = SelfCheck.read(Fields(to_json(selfcheck_rule("int8", truth, "pictures", looks)), "manifest.json"))
    rows = selfcheck_rows(truth, given, looks)
    stored, right = ({name: values[rows] for name, values in one.items()} for one in (truth, given))
    verdict = judge(rule, stored, right, "int8")
    assert verdict.passed, verdict.message
    renamed = dict(zip(("first", "second"), right.values(), strict=True))  # as another engine names them
    assert judge(rule, stored, renamed, "int8").passed
    wrong = dict(zip(truth, fault(right["boxes"], right["logits"]), strict=True))
    assert not judge(rule, stored, wrong, "int8").passed


def test_with_too_few_rows_to_read_everything_is_compared():
    truth = source()
    truth["logits"][:] = np.minimum(truth["logits"], -20)
    truth["logits"][0, 0, 0] = 3
    assert all(check.scores is None for check in checks(truth, truth))
    assert not proof(truth, in_int8(truth)).passed


def test_a_note_says_what_is_compared():
    truth = source()
    looks = checks(truth, truth)
    (note,) = describe_row_scores(looks, truth)
    count = int((truth["logits"] >= np.log(1 / 3)).sum())
    assert note == (
        f"output 'boxes' is compared in the rows whose score is at least 0.25 in the source, {count} of 1,024;"
        " 'logits' is compared as probabilities"
    )
    assert describe_row_scores([replace(look, scores=None) for look in looks], truth) == ()


def test_samples_in_which_rows_are_read_come_first_in_a_self_check():
    truth = source()
    truth["logits"][:10] = -50
    given = {name: values.copy() for name, values in truth.items()}
    given["boxes"][10:] += 1  # the samples with rows to read are further from the source
    assert selfcheck_rows(truth, given, checks(truth, given)).min() >= 10
    assert selfcheck_rows(truth, given).max() < 10


def test_a_manifest_that_names_scores_that_are_not_there_is_one_clear_error():
    truth = source()
    looks = tuple(replace(look, scores=RowScores("others", 0.25, True)) for look in checks(truth, truth))
    rule = SelfCheck("snr_db", 12.0, "pictures", looks)
    with pytest.raises(InputError, match="reads scores in 'others', which is not an output"):
        judge(rule, truth, truth, "int8")
