"""The header of a GGUF file: read where it is whole, refused in one line where it lies."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from runtimes.errors import InputError
from runtimes.gguf_file import ArrayInfo, read_gguf
from runtimes.llama.memory import memory_mode
from runtimes.text import LoadOptions

MODEL = Path(__file__).parent / "models" / "llama_cpp.gguf"
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
    assert file.whole("block_count") == 1
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
        (whole()[:10], "cut off"),
        (whole(version=9), "version 9"),
        (whole(counts=(2**60, 0)), "tensors, more than"),
        (whole(counts=(0, 2**60)), "metadata entries, more than"),
        (whole((entry(b"k", TEXT, struct.pack("<Q", 2**62)),)), "a text in it has"),
        (whole((text(b"k" * 70_000) + b"\0" * 8,)), "a text in it has"),
        (whole((entry(b"k", 99, b"\0" * 8),)), "unknown type 99"),
        (whole((entry(b"k", ARRAY, struct.pack("<IQ", TEXT, 2**40)),)), "texts in 'k'"),
        (whole((entry(b"k", ARRAY, struct.pack("<IQ", U32, 2**61)),)), "values in 'k'"),
        (whole((entry(b"k", ARRAY, struct.pack("<IQ", ARRAY, 1)),)), "array of the type 9"),
        (whole((entry(b"general.alignment", U32, struct.pack("<I", 3)),)), "alignment is 3"),
        (whole(tensors=(tensor(shape=(1,) * 9),)), "9 dimensions"),
        (whole(tensors=(tensor(kind=77),)), "unknown type 77"),
        (whole(tensors=(tensor(shape=(33,), kind=2),)), "cannot lie"),
        (whole(tensors=(tensor(shape=(0,)),)), "cannot lie"),
        (whole(tensors=(tensor(offset=7),)), "cannot lie"),
        (whole(tensors=(tensor(shape=(2**40,)),)), "ends before its tensor 'w'"),
        (whole(tensors=(tensor(offset=2**50),)), "ends before its tensor 'w'"),
        (whole(tensors=(tensor(b"a"), tensor(b"b", offset=96))), "overlap"),
        (whole(tensors=(tensor(), tensor(offset=128))), "same name"),
    ],
)
def test_a_file_that_lies_is_refused(read, content, words):
    with pytest.raises(InputError, match=r"usable GGUF|empty") as caught:
        read(content)
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_every_file_that_is_cut_off_is_refused(tmp_path):
    content = MODEL.read_bytes()
    for size in range(1, len(content), 251):
        (tmp_path / "cut.gguf").write_bytes(content[:size])
        with pytest.raises(InputError):
            read_gguf(tmp_path / "cut.gguf")
