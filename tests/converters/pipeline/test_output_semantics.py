"""The meaning of an output is given or observed, never guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.pipeline.reference import OutputHint, labels_of, output_semantics
from runtimes.artifact import Artifact, Manifest, OutputMeaning
from runtimes.errors import InputError, UsageError

BARE = Artifact(Path(), Manifest("m", "onnx", "unknown", "m.onnx"))
KNOWN = Artifact(Path(), Manifest("m", "onnx", "fp32", "m.onnx", output=OutputMeaning("logit", 1)))
PROBABILITIES = np.array([[[0.25, 0.75]], [[0.5, 0.5]]])
LOGITS = PROBABILITIES * 9


def test_distributions_are_probabilities():
    assert output_semantics(OutputHint(), BARE, PROBABILITIES, None) == OutputMeaning("probability", 0)


def test_of_other_values_nothing_is_assumed():
    assert output_semantics(OutputHint(), BARE, LOGITS, None) is None
    with pytest.raises(UsageError) as caught:
        output_semantics(OutputHint(), BARE, LOGITS, ["cat", "dog"])
    assert "--output probability or --output logit" in caught.value.hint


def test_the_file_shows_what_rounded_outputs_do_not():
    """The sum of a softmax in 8 bits is not one."""
    shown = OutputHint(kind_in_file="probability")
    assert output_semantics(shown, BARE, LOGITS, ["cat", "dog"]) == OutputMeaning("probability", 0, "labels.txt")
    assert output_semantics(shown, KNOWN, LOGITS, None) == OutputMeaning("logit", 1)


def test_the_manifest_knows_and_the_user_knows_better():
    assert output_semantics(OutputHint(), KNOWN, LOGITS, None) == OutputMeaning("logit", 1)
    assert output_semantics(OutputHint(kind="probability", label_offset=0), KNOWN, LOGITS, None) == OutputMeaning(
        "probability", 0
    )


@pytest.mark.parametrize(("first", "offset"), [("background", 1), ("Background", 1), ("tench", 0)])
def test_a_background_row_is_read_from_the_labels(first, offset):
    assert output_semantics(OutputHint(kind="logit"), BARE, LOGITS, [first, "cat"]) == OutputMeaning(
        "logit", offset, "labels.txt"
    )


def test_labels_are_one_for_each_class(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("cat\nhot dog\n")
    assert labels_of(path, BARE, 2) == ["cat", "hot dog"]
    assert labels_of(None, BARE, 2) is None
    with pytest.raises(InputError, match="2 labels, the output 1001 classes"):
        labels_of(path, BARE, 1001)


def test_labels_that_are_no_text(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as labels"):
        labels_of(path, BARE, 2)
