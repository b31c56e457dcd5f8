"""`edge evaluate` on texts and sounds: accuracy and F1, from folders and CSV files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge.cli import main
from edge.evaluation.labeled_sounds_and_texts import NOT_HEARD, read_sounds, read_texts
from edge.inference.inputs import InlineText
from edge.inference.sounds import read_wav
from edge.tasks.text import accuracy
from runtimes.errors import InputError
from tests.edge.inference.test_sound import OKAY_NABU, write
from tests.edge.inference.test_text import write_encoder

NAMES = {0: "negative", 1: "positive"}
CONFIG = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "negative", "1": "positive"}}
TEXTS = [("good cat", "positive"), ("bad cat", "negative"), ("good, good\nkitten", "1"), ("bad market", "positive")]


def evaluated(capsys, *words: object, status: int = 0) -> dict:
    assert main(["evaluate", *map(str, words), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def write_texts(place: Path) -> Path:
    rows = "".join(f'"{text}",{name}\n' for text, name in TEXTS)
    place.write_text(f"text,class\n{rows}".replace(",1\n", ",positive\n"), encoding="utf-8")
    return place


@pytest.fixture
def classifier_of_texts(tmp_path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return write_encoder(tmp_path, classes=True)


def test_texts_in_a_csv_are_scored(capsys, classifier_of_texts, tmp_path):
    """Three of four are right: precision 1 and recall 2/3 of positive, 1/2 and 1 of negative."""
    report = evaluated(capsys, classifier_of_texts, "--data", write_texts(tmp_path / "texts.csv"))
    (model,) = report["models"]
    assert (report["task"], report["inputs"]) == ("text", 4)
    assert model["metrics"] == pytest.approx({"top1": 0.75, "f1": (2 * 2 / 5 + 2 * 1 / 3) / 2})
    (confusion,) = model["confusions"]
    assert (confusion["label"], confusion["predicted_label"]) == ("positive", "negative")


def test_texts_in_folders_give_the_same(capsys, classifier_of_texts, tmp_path):
    for number, (text, name) in enumerate(TEXTS):
        place = tmp_path / "texts" / name.replace("1", "positive") / f"{number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    in_folders = evaluated(capsys, classifier_of_texts, "--data", tmp_path / "texts")
    in_csv = evaluated(capsys, classifier_of_texts, "--data", write_texts(tmp_path / "texts.csv"))
    assert in_folders["models"][0]["metrics"] == in_csv["models"][0]["metrics"]


def test_a_journal_of_texts_continues(capsys, classifier_of_texts, tmp_path):
    words = [classifier_of_texts, "--data", write_texts(tmp_path / "texts.csv"), "--journal", tmp_path / "journal"]
    first = evaluated(capsys, *words)
    lines = (tmp_path / "journal").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(TEXTS)
    assert evaluated(capsys, *words) == first  # with the latencies, because nothing was run again
    (tmp_path / "texts.csv").write_text("text,class\ngood cat,negative\n", encoding="utf-8")
    assert evaluated(capsys, *words)["models"][0]["metrics"]["top1"] == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,class\n", "lists no texts"),
        ("text,sort\na,1\n", "has the columns text, sort"),
        ("text,class\na,fish\n", "'fish' is not one of the model's labels"),
        ("text,class\na,7\n", "there is no class 7"),
        ("text,class\na,1\nb\n", "has no class in row 2"),
        (b"text,class\n\xff\xfe,1\n", "cannot be read as CSV"),
        ("text,class\n" + "a" * (1 << 20) + "b,1\n", "field larger than field limit"),
        ("file,class\nnowhere.txt,1\n", "which does not exist"),
        ("words,class\na,1\n", "has the columns words, class"),
    ],
)
def test_a_csv_of_texts_with_a_fault_is_one_line(tmp_path, content, words):
    place = tmp_path / "texts.csv"
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words):
        read_texts(place, NAMES)


def test_a_csv_of_texts_may_be_separated_by_semicolons(tmp_path):
    place = tmp_path / "texts.csv"
    place.write_text('\ufefftext;class\n"one, two; three";positive\n', encoding="utf-8")
    ((source, label),) = read_texts(place, NAMES).inputs
    assert (source.text, label) == ("one, two; three", 1)


def test_a_text_without_words_is_named_by_its_row(tmp_path):
    (tmp_path / "texts.csv").write_text('text,class\na,1\n"",0\n', encoding="utf-8")
    data = read_texts(tmp_path / "texts.csv", NAMES)
    assert [label for _, label in data.inputs] == [1, 0]
    assert data.inputs[1][0] == InlineText(f"{tmp_path / 'texts.csv'}, row 2", "")


def test_sounds_without_the_word_have_the_class_none(tmp_path):
    for name in ("okay_nabu", "none"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.wav", np.zeros(10))
    inputs = read_sounds(tmp_path, {0: "okay nabu"}).inputs
    assert [label for _, label in inputs] == [NOT_HEARD, 0]
    assert [label for _, label in read_sounds(tmp_path, {0: "none", 1: "okay nabu"}).inputs] == [0, 1]


def test_a_folder_without_sounds_or_texts(tmp_path):
    with pytest.raises(InputError, match="contains no sounds"):
        read_sounds(tmp_path, {})
    with pytest.raises(InputError, match="contains no texts"):
        read_texts(tmp_path, {})
    with pytest.raises(InputError, match="is not a folder"):
        read_texts(tmp_path / "nowhere", {})


def test_f1_is_the_mean_over_the_labeled_classes():
    """By hand: of class 0, 2 of 3 are found and 1 other is taken for it; of class 1, 1 of 2, and 1 other."""
    pairs = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 0), (-1, -1)]
    found = accuracy([np.array([pair], np.float64) for pair in pairs])
    assert found.values == pytest.approx({"top1": 4 / 6, "f1": (4 / 6 + 2 / 4) / 2})
    assert accuracy([np.array([[-1, -1]], np.float64)]).values == {"top1": 1.0}


@pytest.mark.data
def test_the_wake_word_is_told_from_the_same_sound_backwards(capsys, data, tmp_path):
    pytest.importorskip("ai_edge_litert")
    samples, rate = read_wav(OKAY_NABU)
    for name in ("okay_nabu", "none"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
    shutil.copy(OKAY_NABU, tmp_path / "sounds" / "okay_nabu")
    write(tmp_path / "sounds" / "none" / "backwards.wav", samples[::-1], rate)
    (tmp_path / "names.txt").write_text("okay nabu\n", encoding="utf-8")
    words = [data / "real" / "okay_nabu.tflite", "--labels", tmp_path / "names.txt"]
    report = evaluated(capsys, *words, "--data", tmp_path / "sounds")
    assert report["task"] == "sound"
    assert report["models"][0]["metrics"] == {"top1": 1.0, "f1": 1.0}
    write(tmp_path / "sounds" / "okay_nabu" / "backwards.wav", samples[::-1], rate)
    assert evaluated(capsys, *words, "--data", tmp_path / "sounds")["models"][0]["metrics"]["f1"] == pytest.approx(
        2 / 3
    )
