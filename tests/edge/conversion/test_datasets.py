"""Labeled pictures: their classes, from folders and from a CSV file; and `edge convert --evaluate`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge.cli import main
from edge.conversion.datasets import MAX_PICTURES, write_evaluation
from edge.evaluation.labeled_pictures import LabeledPictures, find_labeled
from runtimes.arrays import load_arrays
from runtimes.artifact import Artifact, Preprocess
from runtimes.errors import InputError, UsageError
from runtimes.registry import for_format
from runtimes.session import RunOptions

WAY = Preprocess("stretch", 4, (4, 4), "bilinear", "NHWC", "RGB", (127.5,) * 3, (1 / 127.5,) * 3)
WORDS = ["--mean", "127.5", "--scale", "0.00784313725490196", "--resize", "stretch"]
ANIMALS = ["background", "tench, Tinca tinca", "black swan", "crane", "crane"]


def save(path, number):
    """A picture of 4 × 4 pixels, another for each number."""
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Two pictures in a folder for each of two classes."""
    for number, name in enumerate(["0/a.png", "0/b.png", "4/c.png", "4/deeper/d.png"]):
        save(tmp_path / "labeled" / name, number)
    return tmp_path / "labeled"


def test_folders_name_the_classes(folder):
    labeled = find_labeled(folder)
    assert [picture.name for picture in labeled.pictures] == ["a.png", "b.png", "c.png", "d.png"]
    assert labeled.classes == ("0", "0", "4", "4")


def test_a_picture_outside_of_the_class_folders(folder):
    save(folder / "lost.png", 9)
    with pytest.raises(InputError, match=r"the class of .*lost\.png is not specified") as caught:
        find_labeled(folder)
    assert "labels.csv" in caught.value.hint


@pytest.mark.parametrize("column", ["class_index", "class_index_of_1000", "class"])
def test_a_csv_names_the_classes(tmp_path, column):
    for number in range(3):
        save(tmp_path / "evaluation" / f"{number}.png", number)
    rows = [f"evaluation/{number}.png,{number + 5},x" for number in range(3)] + ["calibration/z.png,1,z"]
    (tmp_path / "labels.csv").write_text("\n".join([f"file,{column},name", *rows]) + "\n")
    assert find_labeled(tmp_path / "evaluation").classes == ("5", "6", "7")


def test_a_csv_has_to_name_every_picture(tmp_path):
    save(tmp_path / "a.png", 0)
    save(tmp_path / "b.png", 1)
    (tmp_path / "labels.csv").write_text("file,class\na.png,3\n")
    with pytest.raises(InputError, match=r"has no class for .*b\.png"):
        find_labeled(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"picture,class\na.png,3\n", "has the columns picture, class"),
        (b"file,label\na.png,3\n", "has the columns file, label"),
        (b"\xff\xfe\x00", "cannot be read as CSV"),
        (b"file,class\n" + b'"' + b"x" * 200_000 + b'"\n', "cannot be read as CSV"),
        (b"file,class\n\x00,3\n", "labels.csv"),
    ],
)
def test_a_broken_csv(tmp_path, content, message):
    save(tmp_path / "a.png", 0)
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        find_labeled(tmp_path)


def test_a_csv_gives_each_file_one_class(tmp_path):
    save(tmp_path / "a.png", 0)
    place = tmp_path / "list.csv"
    place.write_text("file,class\na.png,3\na.png,3\n")
    assert find_labeled(place).classes == ("3",)
    place.write_text("file,class\na.png,3\na.png,4\n")
    with pytest.raises(InputError, match=r"lists a\.png as '3' and as '4'"):
        find_labeled(place)
    place.write_text("file,class\na.png\n")
    with pytest.raises(InputError, match=r"has no class for a\.png"):
        find_labeled(place)


def test_numbers_count_classes_and_names_count_rows(folder, tmp_path):
    labeled = find_labeled(folder)
    write_evaluation(tmp_path / "numbers.npz", labeled, WAY, None)
    arrays = load_arrays(tmp_path / "numbers.npz")
    assert arrays["classes"].tolist() == [0, 0, 4, 4]
    assert arrays["pixels"].shape == (4, 4, 4, 3)

    named = LabeledPictures(labeled.pictures, ("tench", "Tinca_tinca", "Black-Swan", "background"))
    write_evaluation(tmp_path / "names.npz", named, WAY, ANIMALS)
    assert load_arrays(tmp_path / "names.npz")["rows"].tolist() == [1, 1, 2, 0]


@pytest.mark.parametrize(
    ("name", "labels", "kind", "message", "hint"),
    [
        ("tench", None, UsageError, "'tench' is not a number", "--labels"),
        ("tensh", ANIMALS, InputError, "'tensh' is not one of the model's labels", "did you mean 'tench'"),
        ("n01440764", ANIMALS, InputError, "not one of the model's labels", "number them from 0"),
        ("crane", ANIMALS, InputError, "is the label of 2 classes", "number the classes"),
    ],
)
def test_names_that_are_no_class(folder, tmp_path, name, labels, kind, message, hint):
    labeled = LabeledPictures(find_labeled(folder).pictures[:1], (name,))
    with pytest.raises(kind, match=message) as caught:
        write_evaluation(tmp_path / "x.npz", labeled, WAY, labels)
    assert hint in caught.value.hint


def test_more_pictures_than_needed_are_spread():
    many = LabeledPictures(tuple(map(str, range(10))), tuple(map(str, range(10))))
    assert many.spread(4).classes == ("0", "3", "6", "9")
    assert many.spread(MAX_PICTURES).classes == many.classes


@pytest.fixture
def sorted_pictures(classifier, tmp_path):
    """Pictures in folders that bear the classes which the classifier gives them."""
    for number in range(20):
        pixels = save(tmp_path / "new.png", number)
        with for_format("onnx").open(Artifact.open(classifier), RunOptions()) as session:
            real = ((pixels - 127.5) / 127.5).astype(np.float32)[None]
            found = int(session.run({"image": real})["scores"].argmax())
        place = tmp_path / "sorted" / str(found) / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new.png").rename(place)
    return tmp_path / "sorted"


def test_convert_tells_the_accuracy(classifier, sorted_pictures, tmp_path, capsys):
    pytest.importorskip("openvino")
    words = ["convert", classifier, "--to", "openvino", "--evaluate", sorted_pictures, *WORDS]
    assert main([str(word) for word in [*words, "--out", tmp_path / "a", "--json"]]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["accuracy"]["source"], answer["accuracy"]["artifact"], answer["accuracy"]["samples"]) == (1, 1, 20)
    assert answer["accuracy"]["max_drop"] == 0.01
    assert main([str(word) for word in [*words, "--out", tmp_path / "b", "--max-drop", "0.5"]]) == 0
    told = capsys.readouterr()
    assert "top-1 100.00% of the source, 100.00% of the artifact, on 20 labeled inputs" in told.out
    assert "evaluation inputs are few" not in told.err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--max-drop", "0.1"], 2, "--max-drop needs labeled inputs"),
        (["--evaluate", "nowhere"], 3, "nowhere is not a folder"),
        (["--evaluate", "nowhere.npz"], 3, "nowhere.npz does not exist"),
        (["--evaluate", "nowhere", "--max-drop", "2"], 2, "is not a number from 0 to 1"),
        (["--evaluate", "nowhere", "--max-drop", "nan"], 2, "is not a number from 0 to 1"),
    ],
)
def test_refusals(classifier, tmp_path, capsys, words, status, message):
    out = tmp_path / "out"
    assert main(["convert", str(classifier), "--to", "openvino", "--out", str(out), *words, *WORDS]) == status
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_labeled_pictures_need_a_way(classifier, folder, tmp_path, capsys):
    words = ["convert", classifier, "--to", "openvino", "--evaluate", folder, "--out", tmp_path / "out"]
    assert main([str(word) for word in words]) == 2
    assert "the preprocessing of the pictures is not known" in capsys.readouterr().err
