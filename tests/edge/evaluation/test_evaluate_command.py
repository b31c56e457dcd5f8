"""`edge evaluate` on classifiers: figures, differences, the journal, and input that does not fit."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.cli import main
from edge.evaluation.journal import Journal
from edge.evaluation.labeled_pictures import read_pictures
from edge.evaluation.scoring import ScoredInput
from runtimes.artifact import Artifact
from runtimes.errors import InputError, ProofError, UsageError
from runtimes.registry import open_session

WORDS = ["--mean", "127.5", "--scale", "0.00784313725490196", "--resize", "stretch", "--output", "probability"]
COUNT = 40


@pytest.fixture
def pictures(classifier, tmp_path) -> tuple[Path, list[int]]:
    """Pictures in folders that bear the classes which the classifier gives them; and these classes, by file name."""
    image = pytest.importorskip("PIL.Image")
    data, answers = tmp_path / "data", []
    with open_session(Artifact.open(classifier)) as session:
        for number in range(COUNT):
            pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
            real = ((pixels - 127.5) / 127.5).astype(np.float32)[None]
            answers.append(int(session.run({"image": real})["scores"].argmax()))
            (data / str(answers[-1])).mkdir(parents=True, exist_ok=True)
            image.fromarray(pixels).save(data / str(answers[-1]) / f"{number:02}.png")
    return data, answers


def evaluated(capsys, *words: object, status: int = 0) -> dict:
    assert main(["evaluate", *map(str, words), *WORDS, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def relabeled(data: Path, answers: list[int], wrong: int) -> Path:
    """A CSV in which the first `wrong` pictures have another class than the classifier gives them."""
    rows = []
    for number, answer in enumerate(answers):
        label = (answer + 1) % 5 if number < wrong else answer
        rows.append(f"data/{answer}/{number:02}.png,{label}")
    place = data.parent / "listed.csv"
    place.write_text("file,class_index\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return place


def test_right_answers_are_counted(capsys, classifier, pictures):
    data, answers = pictures
    report = evaluated(capsys, classifier, "--data", data)
    assert (report["task"], report["inputs"], report["unreadable"]) == ("classification", COUNT, 0)
    (model,) = report["models"]
    assert model["metrics"] == {"top1": 1.0, "top5": 1.0}
    assert (model["inputs"], model["differences"], model["confusions"]) == (COUNT, [], [])
    assert model["size_bytes"] == classifier.stat().st_size
    assert {one["index"] for one in model["classes"]} == set(answers)


def test_wrong_answers_are_counted_and_named(capsys, classifier, pictures):
    report = evaluated(capsys, classifier, "--data", relabeled(*pictures, wrong=10))
    (model,) = report["models"]
    assert model["metrics"]["top1"] == 0.75
    assert sum(one["count"] for one in model["confusions"]) == 10
    assert all((one["predicted_index"] + 1) % 5 == one["index"] for one in model["confusions"])


def test_a_model_is_compared_with_the_first_on_the_same_inputs(capsys, classifier, make_classifier, pictures):
    data, _ = pictures
    other = make_classifier(change=lambda weights: np.roll(weights, 1, axis=1))
    first, second = evaluated(capsys, classifier, other, "--data", data)["models"]
    assert first["differences"] == []
    (found,) = second["differences"]
    assert found["value"] == pytest.approx(second["metrics"]["top1"] - 1)
    assert found["verdict"] == "worse"
    assert found["interval"][0] <= found["value"] < found["interval"][1] < 0


def test_a_drop_beyond_the_limit_fails_after_the_table(capsys, classifier, make_classifier, pictures):
    data, _ = pictures
    other = make_classifier(change=lambda weights: np.roll(weights, 1, axis=1))
    words = [str(classifier), str(other), "--data", str(data), *WORDS, "--max-drop", "0.01"]
    assert main(["evaluate", *words]) == ProofError.exit_code
    printed = capsys.readouterr()
    assert "worse" in printed.out
    assert "at most 0.01 is allowed" in printed.err
    assert main(["evaluate", str(classifier), str(classifier), *words[2:]]) == 0


def test_a_drop_needs_a_model_to_compare_with(capsys, classifier, pictures):
    assert main(["evaluate", str(classifier), "--data", str(pictures[0]), *WORDS, "--max-drop", "0.01"]) == 2
    assert "there is only one" in capsys.readouterr().err


def test_the_text_holds_a_row_for_each_model(capsys, classifier, pictures):
    assert main(["evaluate", str(classifier), str(classifier), "--data", str(pictures[0]), *WORDS]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].endswith(f"{COUNT} inputs, classification")
    assert text.count("1.0000") == 4
    assert "no difference shown" in text


def test_the_api_gives_the_same(classifier, pictures):
    options = edge.EvaluateOptions(
        hints=edge.ModelHints(
            preprocess_options=edge.PreprocessOptions(mean=(127.5,) * 3, scale=(1 / 127.5,) * 3, resize="stretch"),
            output="probability",
        ),
        limit=10,
    )
    events = []
    report = edge.evaluate(classifier, pictures[0], options, on_progress=events.append)
    assert (report.count, report.models[0].count, report.models[0].metrics["top1"]) == (10, 10, 1.0)
    assert (events[-1].done, events[-1].total) == (10, 10)
    with pytest.raises(UsageError):
        edge.evaluate([], pictures[0])


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["7"], "there is no class 7: the model has the classes 0 to 4"),
        (["tench"], "'tench' is not a number"),
    ],
)
def test_labels_that_do_not_match_are_one_line(capsys, classifier, pictures, classes, words):
    data, _ = pictures
    for name in classes:
        shutil.copytree(next(one for one in data.iterdir() if one.is_dir()), data / name)
        for other in [one for one in data.iterdir() if one.name != name]:
            shutil.rmtree(other)
    assert main(["evaluate", str(classifier), "--data", str(data), *WORDS]) in (2, 3)
    assert words in capsys.readouterr().err.splitlines()[0]


def test_data_without_pictures_is_one_line(capsys, classifier, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").write_text("file,class\n", encoding="utf-8")
    (tmp_path / "lost.csv").write_text("file,class\nlost.png,0\n", encoding="utf-8")
    for name, words in (
        ("empty", "contains no pictures"),
        ("empty.csv", "lists no files"),
        ("lost.csv", "which does not exist"),
        ("nowhere", "does not exist"),
    ):
        assert main(["evaluate", str(classifier), "--data", str(tmp_path / name), *WORDS]) == 3
        assert words in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize(
    "written",
    [
        "\ufefffile;class_index\r\n{0};{1}\r\n",  # as spreadsheets write it where a comma separates decimals
        "file\tclass_index\n{0}\t{1}\n",
        "class, file\n{1}, {0}\n",
        'file,remark,class\n"{0}","one, two; ""three""",{1}\n',
    ],
)
def test_a_csv_may_have_other_separators_quotes_and_a_byte_order_mark(pictures, written):
    data, answers = pictures
    place = data.parent / "listed.csv"
    place.write_text(written.format(f"data/{answers[0]}/00.png", answers[0]), encoding="utf-8")
    ((path, label),) = read_pictures(place, {}).inputs
    assert (path, label) == (data / str(answers[0]) / "00.png", answers[0])


def test_a_picture_that_cannot_be_read_is_skipped_and_reported(capsys, classifier, pictures):
    image = pytest.importorskip("PIL.Image")
    data, answers = pictures
    image.new("L", (100_000, 1)).save(data / str(answers[0]) / "wide.png")
    (data / str(answers[0]) / "broken.png").write_bytes(b"no picture")
    assert main(["evaluate", str(classifier), "--data", str(data), *WORDS, "--json"]) == 3
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert (report["inputs"], report["unreadable"], report["models"][0]["inputs"]) == (COUNT + 2, 2, COUNT)
    assert "100000 × 1 pixels" in printed.err
    assert json.loads(printed.err.splitlines()[-1])["message"].startswith("2 of 42 inputs could not be read")


def test_data_of_which_nothing_can_be_read(capsys, classifier, tmp_path):
    (tmp_path / "data" / "0").mkdir(parents=True)
    (tmp_path / "data" / "0" / "broken.png").write_bytes(b"no picture")
    assert main(["evaluate", str(classifier), "--data", str(tmp_path / "data"), *WORDS]) == 3
    assert "the input could not be read" in capsys.readouterr().err


def test_a_journal_continues_where_it_was(capsys, classifier, pictures, tmp_path):
    data, journal = pictures[0], tmp_path / "journal"
    whole = evaluated(capsys, classifier, "--data", data, "--journal", journal)
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) == 1 + COUNT
    journal.write_text("".join(lines[:11]) + lines[11][:20], encoding="utf-8")  # killed while it wrote a line
    assert (
        evaluated(capsys, classifier, "--data", data, "--journal", journal)["models"][0]["metrics"]
        == (whole["models"][0]["metrics"])
    )
    again = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    assert again[:11] == lines[:11]  # these ten were not run again
    assert sorted(json.loads(line)[1] for line in again[1:]) == sorted(json.loads(line)[1] for line in lines[1:])


def test_a_journal_of_other_labels_is_not_used(capsys, classifier, pictures, tmp_path):
    journal = tmp_path / "journal"
    evaluated(capsys, classifier, "--data", pictures[0], "--journal", journal)
    report = evaluated(capsys, classifier, "--data", relabeled(*pictures, wrong=10), "--journal", journal)
    assert report["models"][0]["metrics"]["top1"] == 0.75


def test_a_file_that_is_no_journal_is_left_alone(capsys, classifier, pictures, tmp_path):
    (tmp_path / "mine.txt").write_text("mine, and without a newline", encoding="utf-8")
    words = ["--data", str(pictures[0]), *WORDS, "--journal", str(tmp_path / "mine.txt")]
    assert main(["evaluate", str(classifier), *words]) == 2
    assert "is not a journal" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine, and without a newline"


def test_a_damaged_journal_is_named_with_its_line(tmp_path):
    place = tmp_path / "journal"
    with Journal(place) as journal:
        one = ScoredInput(runtime="r", runtime_version="1", latency_ms=1.0, record=np.eye(2))
        journal.add("key", "a.png", one)
        assert np.array_equal(journal.recorded("key")["a.png"].record, np.eye(2))
        assert journal.recorded("other") == {}
    place.write_text(place.read_text(encoding="utf-8") + "[1, 2]\n", encoding="utf-8")
    with Journal(place) as journal, pytest.raises(InputError, match="line 3 of"):
        journal.recorded("key")


def test_ctrl_c_says_what_is_kept(classifier, pictures, tmp_path):
    journal = tmp_path / "journal"
    command = [sys.executable, "-m", "edge", "evaluate", str(classifier), "--data", str(pictures[0]), *WORDS]
    with subprocess.Popen(
        [*command, "--journal", str(journal)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # before the engine starts
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert first.startswith("evaluating")
    assert f"{journal} keeps their results: the same command continues" in rest.splitlines()[-1]
    assert out == ""
