import shutil
import subprocess

import pytest

from device_profiles.profiles import UnknownProfileError, load
from device_profiles.published import SCORE_KINDS, PublishedRow, published_row, published_rows, published_table

ROWS = published_rows()
EACH = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)


def test_the_ten_rows_of_the_article() -> None:
    assert [(row.setup, row.time_s, row.fps, row.score) for row in ROWS] == [
        ("i7-4870HQ", 22.60, 11.06, 0.9294),
        ("i7-7700K + GTX 1080", 0.82, 304.88, 0.9294),
        ("i7-7700K (tflite)", 7.71, 32.43, 16.2184),
        ("i7-7700K + Coral", 0.71, 352.11, 0.9961),
        ("Jetson Nano", 20.52, 12.18, 0.9294),
        ("Jetson Nano (tflite)", 23.02, 10.86, 16.2184),
        ("Raspberry Pi 3B+", 120.81, 2.07, 0.9294),
        ("Raspberry Pi 3B+ (tflite)", 59.05, 4.23, 16.2184),
        ("Raspberry Pi 3B+ + Coral", 3.31, 75.53, 0.9961),
        ("Jetson Nano + Coral", 1.12, 223.21, 0.9961),
    ]


@EACH
def test_fps_follows_from_the_time(row: PublishedRow) -> None:
    assert row.runs == 250
    assert round(row.runs / row.time_s, 2) == row.fps


@EACH
def test_the_setup_is_a_profile_that_takes_the_format(row: PublishedRow) -> None:
    format = {"keras": "keras", "litert": "tflite", "edgetpu": "edgetpu"}[row.runtime]
    taken = load(row.profile).takes(format)
    assert taken is not None
    assert row.precision in taken.precisions


@EACH
def test_a_score_is_a_probability_unless_it_is_a_logit(row: PublishedRow) -> None:
    assert row.probability == (None if row.score_kind == "logit" else row.score)


def test_the_scores_are_what_their_kinds_say() -> None:
    scores = {row.score_kind: row.score for row in ROWS}
    assert scores["logit"] == round((222 - 58) * 0.09889253973960876, 4)
    assert scores["softmax-uint8"] == round(255 / 256, 4)
    assert set(scores) == set(SCORE_KINDS) == set(published_table().score_kinds)


@EACH
def test_every_row_is_cited_and_dated(row: PublishedRow) -> None:
    assert row.source.startswith("https://")
    assert (row.year, row.top1) == (2019, "magpie")


@EACH
def test_how_has_commands_and_says_that_they_were_not_tried(row: PublishedRow) -> None:
    assert row.how.startswith("# Not tried on this hardware")
    assert any(line and not line.startswith("#") for line in row.how.splitlines())


@EACH
@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for bash, which is not here")
def test_how_is_a_shell_script(row: PublishedRow) -> None:
    subprocess.run(["bash", "-n"], input=row.how, text=True, check=True)


@EACH
def test_python_inside_how_is_python(row: PublishedRow) -> None:
    script = row.how.partition("<<'END'\n")[2].partition("\nEND")[0]
    compile(script, row.id, "exec")


@EACH
def test_a_row_is_found_by_id_and_by_setup(row: PublishedRow) -> None:
    assert published_row(row.id) == published_row(row.setup.upper()) == row


def test_a_row_that_does_not_exist_is_answered_with_near_ones() -> None:
    with pytest.raises(
        UnknownProfileError, match=r"no published setup is called 'jetson nano 2'.*did you mean jetson-nano"
    ):
        published_row("jetson nano 2")
