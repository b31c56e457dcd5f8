"""`edge run` with a real segmenter and a real pose model, compared with their references."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from edge.cli import main
from tests.real_data import real_data


@pytest.mark.data
def test_key_points_lie_where_the_reference_has_them(capsys, tmp_path):
    model = real_data("real/movenet_single_pose_lightning_ptq.tflite")
    arguments = [str(model), str(real_data("real/squat.bmp")), "--json", "--draw", str(tmp_path)]
    assert main(["run", *arguments]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["task"] == "pose"
    (pose,) = row["result"]
    found = np.array([(one["x"] / 500, one["y"] / 610) for one in pose["keypoints"]])
    with real_data("real/movenet_single_pose_lightning_ptq_reference.csv").open(encoding="utf-8") as lines:
        wanted = np.array([(float(one["keypoint_x"]), float(one["keypoint_y"])) for one in csv.DictReader(lines)])
    assert np.abs(found - wanted).max() < 0.04
    assert (tmp_path / "squat.png").is_file()


@pytest.mark.data
def test_the_bird_is_where_its_mask_is(capsys, tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    names = real_data("real/pascal_voc_segmentation_labels.txt").read_text(encoding="utf-8").splitlines()[:21]
    (tmp_path / "names.txt").write_text("\n".join(names))
    model = real_data("edgetpu/deeplabv3_mnv2_dm05_pascal_quant.tflite")
    picture = real_data("real/bird_segmentation.bmp")
    assert main(["run", str(model), str(picture), "--json", "--labels", str(tmp_path / "names.txt")]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["task"] == "segmentation"
    assert row["result"]["size"] == [513, 513]
    assert [one["label"] for one in row["result"]["classes"]][:2] == ["background", "bird"]

    import edge

    with edge.open(model) as opened:
        classes = opened.predict(picture).classes
    with pillow.open(real_data("real/bird_segmentation_mask.bmp")) as mask:
        wanted = np.asarray(mask)
    found, bird = classes == 3, wanted == 3
    assert (found & bird).sum() / (found | bird).sum() > 0.8
    assert (classes == wanted).mean() > 0.95
