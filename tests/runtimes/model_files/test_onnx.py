"""External data of ONNX models: found wherever a model can name it, and restricted to the model's folder."""

from __future__ import annotations

import pytest

from runtimes.errors import InputError
from runtimes.model_files.onnx import check_external_data, external_files


def field(number, content):
    """A field with a length, as protocol buffers write it; short contents only."""
    data = content.encode() if isinstance(content, str) else content
    size = len(data)
    length = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
    key = number << 3 | 2
    return (bytes([key]) if key < 128 else bytes([key & 0x7F | 0x80, key >> 7])) + length + data


def tensor(location):
    return field(13, field(1, "location") + field(2, location)) + field(13, field(1, "offset") + field(2, "0"))


PLACES = {
    "an initializer": lambda t: field(7, field(5, t)),
    "a sparse initializer": lambda t: field(7, field(15, field(1, t))),
    "a constant": lambda t: field(7, field(1, field(5, field(5, t)))),
    "a list of tensors": lambda t: field(7, field(1, field(5, field(10, t)))),
    "a branch of a branch": lambda t: field(7, field(1, field(5, field(6, field(1, field(5, field(6, field(5, t)))))))),
    "a function": lambda t: field(25, field(7, field(5, field(5, t)))),
    "training": lambda t: field(20, field(1, field(5, t))),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_location_is_found_in(place, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x07" + PLACES[place](tensor("weights.bin")))
    assert external_files(path) == {"weights.bin"}


def test_a_model_without_external_data_names_none(models):
    assert external_files(models / "onnxruntime.onnx") == set()


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "link", ".", "", "nul\0byte"])
def test_a_location_outside_the_folder_is_refused(location, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    (folder / "link").symlink_to(tmp_path / "secret")
    path = folder / "m.onnx"
    path.write_bytes(field(7, field(5, tensor(location))))
    with pytest.raises(InputError, match="outside its folder") as caught:
        check_external_data(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin", "sub/../weights.bin"])
def test_a_location_inside_the_folder_is_accepted(location, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(field(7, field(5, tensor(location))))
    check_external_data(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x3a\x7f", b"\xff" * 20, b"\x3b", b"\x3a", field(7, field(5, tensor(b"\xff\xfe")))]
)
def test_what_is_no_message_is_refused(content, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a readable ONNX model"):
        check_external_data(path)
