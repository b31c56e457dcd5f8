"""What exporters write into model files about pictures, classes and tasks."""

from __future__ import annotations

import numpy as np
import pytest

from edge.inference.author_metadata import AuthorPictures, author_labels, pictures_of, task_of
from edge.inspection.openvino_xml import read_net

ULTRALYTICS = {"stride": "32", "names": "{0: 'a', 1: 'b'}"}


@pytest.mark.parametrize(
    ("word", "task"),
    [("detect", "detection"), ("classify", "classification"), ("pose", "pose"), ("obb", "oriented_boxes"), ("", None)],
)
def test_ultralytics_names_the_task(word, task):
    assert task_of({**ULTRALYTICS, "task": word}) == task
    assert task_of({"task": word}) is None  # another author's `task` may mean anything


@pytest.mark.parametrize(
    ("properties", "resize"),
    [
        ({}, "letterbox"),
        ({"task": "classify"}, "shorter_side"),
        ({"task": "detect", "head": "RTDETRDecoder"}, "stretch"),
    ],
)
def test_ultralytics_scales_to_0_and_1_and_fits_by_task(properties, resize):
    found = pictures_of({**ULTRALYTICS, **properties})
    assert (found.mean, found.resize, found.color) == ((0.0,) * 3, resize, "RGB")
    np.testing.assert_allclose(found.scale, [1 / 255] * 3)


def test_model_info_of_openvino(tmp_path):
    info = "".join(
        f'<{key} value="{value}" />'
        for key, value in {
            "labels": "traffic_light person",
            "scale_values": "58.4 57.1 57.4",
            "mean_values": "123.7 116.3 103.5",
            "reverse_input_channels": "YES",
            "resize_type": "fit_to_window_letterbox",
            "pad_value": "114",
        }.items()
    )
    layer = '<layers><layer id="0" name="x" type="Parameter" /></layers>'
    path = tmp_path / "model.xml"
    path.write_text(f'<net name="m" version="11">{layer}<rt_info><model_info>{info}</model_info></rt_info></net>')
    properties = read_net(path).model_info
    labels = author_labels(properties)
    assert labels is not None
    assert labels.names == ("traffic light", "person")
    found = pictures_of(properties)
    assert (found.mean, found.resize, found.pad, found.color) == ((123.7, 116.3, 103.5), "letterbox", 114, "RGB")
    np.testing.assert_allclose(found.scale, [1 / 58.4, 1 / 57.1, 1 / 57.4])


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"scale_values": "0 0 0"},
        {"scale_values": "many"},
        {"scale_values": "1 2"},
        {"pad_value": "9" * 5000},
        {"pad_value": "0255999"},
    ],
)
def test_what_is_not_understood_is_not_stated(properties):
    assert pictures_of(properties) == AuthorPictures()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("{1: 'dog', 0: 'cat'}", ("cat", "dog")),  # the keys are the indices
        ("{'b': 'dog', 'a': 'cat'}", ("dog", "cat")),
        ("['cat', 'dog']", ("cat", "dog")),
        ('{"1": "dog", "0": "cat"}', ("cat", "dog")),  # in JSON, keys are strings
        (str({str(one): f"c{one}" for one in (0, 1, 10, *range(2, 10))}), tuple(f"c{one}" for one in range(11))),
        (r'["caf\u00e9", "\ud83d\ude00"]', ("café", "😀")),
    ],
)
def test_names_have_the_order_of_their_indices(names, expected):
    labels = author_labels({"stride": "32", "names": names})
    assert labels is not None
    assert labels.names == expected
