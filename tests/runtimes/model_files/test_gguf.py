"""The header of a GGUF file: read if it is consistent, refused in one line if not."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from runtimes.errors import InputError
from runtimes.llm.llama_cpp.memory import memory_mode
from runtimes.llm.session import LoadOptions
from runtimes.model_files.gguf import ArrayInfo, read_gguf

MODEL = Path(__file__).parents[1] / "models" / "llama_cpp.gguf"
TEXT, U32, ARRAY = 8, 4, 9


def text(value):
    return struct.pack("<Q", len(value)) + value


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def tensor(name=b"w", shape=(32,), kind=0, offset=0):
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)


def whole(entries=(), tensors=(), version=3, counts=None, data=b"\0" * 256):
    n_tensors, n_entries = counts or (len(tensors), len(entries))
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_entries) + b"".join(entries) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


@pytest.fixture
def read(tmp_path):
    def read(content):
        (tmp_path / "m.gguf").write_bytes(content)
        return read_gguf(tmp_path / "m.gguf")

    return read


def test_a_model_says_what_it_is():
    file = read_gguf(MODEL)
    assert file.architecture == "llama"
    assert file.integer("block_count") == 1
    assert file.metadata["tokenizer.ggml.tokens"] == ArrayInfo(288)
    assert file.parameters == 288 * 16 + 3 * 16 + 4 * 256 + 3 * 512
    assert list(file.bytes_by_type()) == ["F16", "F32"]
    assert 16 < file.bits_per_weight < 17
    assert file.size == MODEL.stat().st_size


def test_tensors_have_their_places(read):
    file = read(whole(tensors=(tensor(b"a"), tensor(b"b", (64, 2), 2, 128))))
    assert [(one.name, one.type, one.bytes, one.elements) for one in file.tensors] == [
        ("a", "F32", 128, 32),
        ("b", "Q4_0", 72, 128),
    ]
    assert file.tensors[1].offset - file.tensors[0].offset == 128


@pytest.mark.parametrize(
    ("kind", "mode"), [(2, "read"), (12, "read"), (20, "read"), (8, "read"), (1, "map"), (11, "map")]
)
def test_weights_that_are_laid_out_anew_are_read_and_not_held_twice(read, kind, mode):
    # Q4_0, Q4_K, IQ4_NL and Q8_0; F16 and Q3_K are computed with as they lie in the file.
    file = read(whole(tensors=(tensor(b"norm"), tensor(b"w", (256, 16), kind, 128)), data=b"\0" * 2**14))
    assert memory_mode(file, LoadOptions()) == mode
    assert memory_mode(file, LoadOptions(settings={"repack": "off"})) == "map"
    assert memory_mode(file, LoadOptions(memory="map")) == "map"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"GGML", "starts with"),
        (whole()[:10], "ends before its header does"),
        (whole(counts=(2**60, 0)), "tensors, more than"),
        (whole(counts=(0, 2**60)), "metadata entries, more than"),
        (whole((entry(b"k", TEXT, struct.pack("<Q", 2**62)),)), "ends before its header does"),
        (whole((entry(b"k", ARRAY, struct.pack("<IQ", TEXT, 2**40)),)), "texts in 'k'"),
        (whole((entry(b"k", ARRAY, struct.pack("<IQ", U32, 2**61)),)), "values in 'k'"),
        (whole(tensors=(tensor(shape=(33,), kind=2),)), "cannot start at 0"),
        (whole(tensors=(tensor(offset=7),)), "cannot start at 7"),
        (whole(tensors=(tensor(shape=(2**40,)),)), "ends before its tensor 'w'"),
        (whole(tensors=(tensor(offset=2**50),)), "ends before its tensor 'w'"),
        (whole(tensors=(tensor(b"a"), tensor(b"b", offset=96))), "overlap"),
        (whole(tensors=(tensor(), tensor(offset=128))), "same name"),
    ],
)
def test_an_inconsistent_file_is_refused(read, content, words):
    with pytest.raises(InputError, match=r"usable GGUF|empty") as caught:
        read(content)
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (whole(version=9), "GGUF version 9"),
        (whole((text(b"k" * 70_000) + b"\0" * 8,)), "a text of 70,000 bytes"),
        (whole((entry(b"k", 99, b"\0" * 8),)), "unknown type 99"),
        (whole((entry(b"k", ARRAY, struct.pack("<IQ", ARRAY, 1)),)), "array of the type 9"),
        (whole((entry(b"general.alignment", U32, struct.pack("<I", 3)),)), "alignment of 3"),
        (whole(tensors=(tensor(shape=(1,) * 9),)), "9 dimensions"),
        (whole(tensors=(tensor(kind=77),)), "unknown type 77"),
        (whole(tensors=(tensor(shape=(0,)),)), "empty tensor 'w'"),
    ],
)
def test_what_edge_does_not_support_is_not_called_a_fault_of_the_file(read, content, words):
    with pytest.raises(InputError, match=f"{words}.*, which this version of edge does not support") as caught:
        read(content)
    assert "update edge" in str(caught.value.hint)


def test_every_file_that_is_cut_off_is_refused(tmp_path):
    content = MODEL.read_bytes()
    for size in range(1, len(content), 251):
        (tmp_path / "cut.gguf").write_bytes(content[:size])
        with pytest.raises(InputError):
            read_gguf(tmp_path / "cut.gguf")


def write_parts(folder, count=3, tensors_count=None, numbers=None):
    """A model of one tensor a file, as llama-gguf-split writes it."""
    paths = [folder / f"m-{place:05d}-of-{count:05d}.gguf" for place in range(1, count + 1)]
    for place, path in enumerate(paths):
        entries = [
            entry(b"split.no", 2, struct.pack("<H", place)),
            entry(b"split.count", 2, struct.pack("<H", count)),
            entry(b"split.tensors.count", 5, struct.pack("<i", tensors_count or count)),
        ]
        name = f"w{(numbers or range(count))[place]}".encode()
        path.write_bytes(whole(entries=entries, tensors=(tensor(name),)))
    return paths


def test_a_split_model_is_read_whole(tmp_path):
    paths = write_parts(tmp_path)
    file = read_gguf(paths[0])
    assert [one.name for one in file.tensors] == ["w0", "w1", "w2"]
    assert file.parameters == 3 * 32
    assert file.size == sum(path.stat().st_size for path in paths)


def test_a_split_model_with_a_part_missing_is_refused(tmp_path):
    paths = write_parts(tmp_path)
    paths[2].unlink()
    with pytest.raises(InputError, match="lacks m-00003-of-00003"):
        read_gguf(paths[0])


def test_the_first_part_of_a_split_model_is_asked_for(tmp_path):
    paths = write_parts(tmp_path)
    with pytest.raises(InputError, match="part 00002 of a split model") as caught:
        read_gguf(paths[1])
    assert str(paths[0]) in caught.value.hint


@pytest.mark.parametrize("lie", [{"tensors_count": 4}, {"numbers": (0, 1, 0)}])
def test_parts_that_do_not_belong_together_are_refused(tmp_path, lie):
    with pytest.raises(InputError, match="do not belong together"):
        read_gguf(write_parts(tmp_path, **lie)[0])


def test_a_part_under_another_name_is_refused(tmp_path):
    path = write_parts(tmp_path)[0].rename(tmp_path / "model.gguf")
    with pytest.raises(InputError, match="not named as one"):
        read_gguf(path)
