"""Times and scores of sounds, from known scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtimes.artifact.manifest import Quantization, TensorSpec
from runtimes.errors import InputError
from runtimes.model_files.facts import GIVEN, Labels, ModelFacts
from runtimes.task import DecodeOptions
from runtimes.tasks import recognize
from runtimes.tasks.sound import Sound, SoundClassScores, SoundTask, VoiceActivity, WakeWord, join_windows
from runtimes.testing.task_contract import TaskContract, TaskExample

PROBABILITIES = Quantization((1 / 256,), (0,))


def silero(length="n", **known):
    inputs = (
        TensorSpec("input", "float32", ("b", length)),
        TensorSpec("state", "float32", (2, "b", 128)),
        TensorSpec("sr", "int64", ()),
    )
    outputs = (TensorSpec("output", "float32", ("b", 1)), TensorSpec("stateN", "float32", ("x", "b", "y")))
    return ModelFacts("m", "onnx", inputs, outputs, **known)


def nabu(**known):
    spec = TensorSpec("x", "int8", (1, 3, 40), Quantization((0.102,), (-128,)))
    output = TensorSpec("y", "uint8", (1, 1), PROBABILITIES)
    known = {"operators": {"READ_VARIABLE": 6, "CONV_2D": 6}, **known}
    return ModelFacts("m", "tflite", (spec,), (output,), **known)


def notes(*shape, length=16_000, **known):
    known = {"task": "sound", "output_operator": "Softmax", **known}
    spec = TensorSpec("x", "float32", (1, length))
    return ModelFacts("m", "onnx", (spec,), (TensorSpec("y", "float32", shape),), **known)


def speech(probability):
    return {"output": np.float32([[probability]]), "stateN": np.zeros((2, 1, 128), np.float32)}


class TestContract(TaskContract):
    task = SoundTask()
    examples = (
        TaskExample(silero(), speech(0.9), speech(0.2)),
        TaskExample(nabu(), {"y": np.uint8([[250]])}, {"y": np.uint8([[9]])}),
        TaskExample(notes(1, 3), {"y": np.float32([[0.8, 0.1, 0.1]])}, {"y": np.float32([[0.1, 0.1, 0.8]])}),
    )
    foreign = (
        notes(1, 3, task=None),
        notes(1, 3, length="n"),
        silero(length=300),
        nabu(operators={"CONV_2D": 6}),
        replace(silero(), outputs=silero().outputs[:1]),
        ModelFacts("m", "onnx"),
    )


def decoded(model, outputs):
    task, decoder = recognize(model)
    return task.decode(outputs, decoder)


def test_each_kind_takes_a_sound_in_its_own_windows():
    windows = VoiceActivity.recognize(silero()).sounds()
    assert (windows.rate, windows.step, windows.context, windows.rate_input) == (16_000, 512, 64, "sr")
    assert windows.states == {"state": "stateN"}
    windows = VoiceActivity.recognize(silero(length=288)).sounds()
    assert (windows.rate, windows.step, windows.context) == (8_000, 256, 32)
    windows = WakeWord.recognize(nabu()).sounds()
    assert (windows.rate, windows.step, windows.features, dict(windows.states)) == (16_000, 480, "spectrum", {})
    windows = SoundClassScores.recognize(notes(1, 3, metadata={"sample_rate": "22050"})).sounds()
    assert (windows.rate, windows.step, windows.context) == (22_050, 16_000, 0)


def test_what_is_not_stated_is_assumed_in_words():
    assert SoundClassScores.recognize(notes(1, 3)).assumptions[0] == "a second of sound has 16,000 samples (--rate)"
    stated = notes(1, 2, metadata={"sample_rate": "8000"}, labels=Labels(("a", "b"), "--labels", GIVEN))
    assert SoundClassScores.recognize(stated).assumptions == ()
    logits = SoundClassScores.recognize(replace(stated, output_operator="Gemm"))
    assert logits.is_logit
    assert "softmax" in logits.assumptions[0]
    assert WakeWord.recognize(nabu()).assumptions[1] == "the class has no name (--labels)"


def test_labels_of_another_number_are_refused():
    with pytest.raises(InputError) as caught:
        SoundClassScores.recognize(notes(1, 3, labels=Labels(("a", "b"), "names.txt", GIVEN)))
    assert caught.value.message == "names.txt has 2 labels; the model has 3 classes"


def test_several_rows_share_the_time_of_a_window():
    found = decoded(notes(1, 4, 3), {"y": np.tile(np.float32([0.1, 0.7, 0.2]), (1, 4, 1))})
    assert found.scores.shape == (4, 3)
    assert found.step_s == 0.25
    assert [(one.index, one.start_s, one.end_s) for one in found.segments] == [(1, 0.0, 1.0)]


def test_windows_are_joined_and_a_class_is_heard_in_segments():
    rows = [[0.1, 0.9], [0.2, 0.6], [0.9, 0.1], [0.1, 0.1], [0.5, 0.1]]
    whole = join_windows([Sound(np.float32([row]), 0.5, ("cat", "dog")) for row in rows])
    assert [(one.label, round(one.score, 3)) for one in whole.classes] == [("cat", 0.9), ("dog", 0.9)]
    assert [(one.label, one.start_s, one.end_s) for one in whole.segments] == [
        ("dog", 0.0, 1.0),
        ("cat", 1.0, 1.5),
        ("cat", 2.0, 2.5),
    ]


def test_the_users_limits_decide_what_is_listed_and_heard():
    decoder = SoundClassScores.recognize(notes(1, 3)).configured(DecodeOptions(top=2, confidence=0.85))
    found = decoder.decode({"y": np.float32([[0.8, 0.1, 0.1]])})
    assert [one.index for one in found.classes] == [0, 1]
    assert found.segments == ()


@pytest.mark.parametrize(("output", "words"), [([[np.nan, 0, 0]], "NaN"), ([[1.0, 2.0]], "not scores of classes")])
def test_outputs_that_cannot_be_scores_are_refused(output, words):
    with pytest.raises(InputError) as caught:
        decoded(notes(1, 3), {"y": np.float32(output)})
    assert words in caught.value.message


def heard(*rows):
    return Sound(np.float32(rows), 0.1)


@pytest.mark.parametrize(
    ("one", "other", "agrees"),
    [
        (heard([0.9], [0.1]), heard([0.6], [0.3]), True),
        (heard([0.9], [0.1]), heard([0.1], [0.9]), False),
        (heard([0.52]), heard([0.48]), True),  # near the limit, a small difference is none
        (heard([0.9]), heard([0.9], [0.9]), False),
        (heard(*[[0.9]] * 40), heard([0.1], *[[0.9]] * 39), True),
        (heard(*[[0.9]] * 10), heard([0.1], *[[0.9]] * 9), False),
    ],
)
def test_sounds_agree_if_the_same_is_heard(one, other, agrees):
    assert SoundTask().compare(one, other).agrees is agrees
