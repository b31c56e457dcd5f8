"""Pictures become the pixels of the reference measurements; broken and huge ones are refused."""

from __future__ import annotations

import csv
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from edge.inference.images import find_pictures, load_all, load_pixels
from edge.inference.inputs import find_inputs
from runtimes.artifact import Artifact, Preprocess
from runtimes.errors import EngineMissingError, InputError, UsageError
from runtimes.registry import for_format
from runtimes.session import RunOptions

Image = pytest.importorskip("PIL.Image")
WAY = Preprocess("shorter_side", 256, (224, 224), "bilinear", "NHWC", "RGB", (127.5,) * 3, (1 / 127.5,) * 3)
SMALL = replace(WAY, size=8, crop=(8, 8))


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def test_the_shorter_side_is_resized_and_the_center_cropped(tmp_path):
    stripes = np.zeros((8, 24, 3), np.uint8)
    stripes[:, 8:16] = (255, 128, 0)
    found = load_pixels(save(tmp_path / "a.png", stripes), SMALL)
    assert found.shape == (8, 8, 3)
    assert found.dtype == np.uint8
    assert (found == (255, 128, 0)).all()


def test_stretch_keeps_everything(tmp_path):
    halves = np.zeros((4, 16, 3), np.uint8)
    halves[:, 8:] = 255
    found = load_pixels(save(tmp_path / "a.png", halves), replace(SMALL, resize="stretch", method="nearest"))
    assert (found[:, :4] == 0).all()
    assert (found[:, 4:] == 255).all()


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
def test_crops_that_are_not_square(tmp_path, method):
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    way = replace(SMALL, size=12, crop=(12, 8), method=method)
    assert load_pixels(save(tmp_path / "a.png", noise), way).shape == (12, 8, 3)


def test_the_camera_was_turned(tmp_path):
    upper_half = np.zeros((8, 8, 3), np.uint8)
    upper_half[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = load_pixels(save(tmp_path / "a.jpg", upper_half, exif=exif, quality=100), SMALL)
    assert found[0].mean() < 10
    assert found[-1].mean() > 245


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((8, 8), 77, np.uint8), (77, 77, 77)),
        (np.full((8, 8, 4), (10, 20, 30, 0), np.uint8), (10, 20, 30)),
        (np.full((8, 8), 77 * 256, np.uint16), (77, 77, 77)),
    ],
)
def test_gray_alpha_and_16_bit(tmp_path, array, expected):
    assert (load_pixels(save(tmp_path / "a.png", array), SMALL) == expected).all()


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "LA", "YCbCr"])
def test_other_modes_become_rgb(tmp_path, mode):
    suffix = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(tmp_path / f"a.{suffix}")
    assert load_pixels(tmp_path / f"a.{suffix}", SMALL).min() > 250


@pytest.mark.parametrize(("width", "height"), [(100_000, 1), (1, 100_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_pictures_beyond_bounds_are_refused_before_they_are_decoded(tmp_path, width, height):
    path = tmp_path / "wide.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(InputError, match=r"wide\.png") as caught:
        load_pixels(path, SMALL)
    assert "\n" not in caught.value.message


def test_a_truncated_jpeg(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / "a.jpg", noise)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match="cannot be read as a picture"):
        load_pixels(path, SMALL)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_picture(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a picture"):
        load_pixels(path, SMALL)


def test_mutated_pictures_are_errors_or_pictures(tmp_path):
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (24, 24, 3), np.uint8)
    for suffix in ("jpg", "png", "gif", "bmp", "tiff", "webp"):
        content = save(tmp_path / f"a.{suffix}", noise).read_bytes()
        for attempt in range(60):
            changed = bytearray(content[: generator.integers(1, len(content) + 1)] if attempt % 2 else content)
            for place in generator.integers(0, len(changed), 4):
                changed[place] = generator.integers(0, 256)
            (tmp_path / f"b.{suffix}").write_bytes(changed)
            with suppress(InputError):  # nothing else may be raised
                assert load_pixels(tmp_path / f"b.{suffix}", SMALL).shape == (8, 8, 3)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_pixels(tmp_path / "a.png", SMALL)


def test_a_picture_too_thin_to_resize(tmp_path):
    with pytest.raises(InputError, match="too thin"):
        load_pixels(save(tmp_path / "a.png", np.zeros((1, 30_000, 3), np.uint8)), SMALL)


def test_a_crop_larger_than_the_picture(tmp_path):
    with pytest.raises(UsageError, match="smaller than the crop"):
        load_pixels(save(tmp_path / "a.png", np.zeros((9, 9, 3), np.uint8)), replace(SMALL, crop=(9, 9)))


def test_the_pictures_of_a_folder_in_order(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.PNG", "a.jpg", "sub/c.bmp"):
        save(tmp_path / name, np.zeros((9, 9, 3), np.uint8))
    (tmp_path / "labels.csv").write_text("no picture")
    files = find_pictures(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in files] == ["a.jpg", "b.PNG", "sub/c.bmp"]
    assert load_all(files, SMALL).shape == (3, 8, 8, 3)


def test_folders_without_pictures(tmp_path):
    with pytest.raises(InputError, match="contains no pictures"):
        find_pictures(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        find_pictures(tmp_path / "nothing")


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("edge.inference.images.find_spec", lambda name: None)
    with pytest.raises(EngineMissingError) as caught:
        load_pixels(tmp_path / "a.png", SMALL)
    assert "[pictures]" in caught.value.hint


def test_importing_the_module_does_not_import_pillow():
    code = "import sys, edge.inference.images; assert 'PIL' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.data
def test_the_reference_figures(data):
    """Google's file of 2019: 0.9961 for the magpie, 91 of 100 evaluation pictures (reference/conversion.md)."""
    pytest.importorskip("ai_edge_litert")
    model = data / "mobilenet_v2" / "mobilenet_v2_1.0_224_quant.tflite"
    with (data / "imagenet" / "labels.csv").open() as stream:
        classes = {row["file"].rsplit("/")[-1]: int(row["class_index_of_1000"]) for row in csv.DictReader(stream)}
    with for_format("tflite").open(Artifact.open(model), RunOptions()) as session:
        name, output = session.inputs[0].name, session.outputs[0].name

        def answer(path):
            return session.run({name: load_pixels(path, WAY)[np.newaxis]})[output][0]

        magpie = answer(data / "imagenet" / "benchmark" / "n01582220_magpie.jpg")
        pictures = find_pictures(data / "imagenet" / "evaluation")
        right = sum(int(answer(path).argmax()) - 1 == classes[path.name] for path in pictures)
    assert (int(magpie.argmax()) - 1, int(magpie.max())) == (18, 255)
    assert (right, len(pictures)) == (91, 100)


def test_numbers_of_an_unknown_range_are_refused(tmp_path):
    """Floats from 0 to 1, or 32-bit integers, would become black, or wrap around."""
    shares = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    with pytest.raises(InputError, match=r"a\.tif holds floats, of which it is not known what is white"):
        load_pixels(save(tmp_path / "a.tif", shares), SMALL)
    with pytest.raises(InputError, match=r"b\.tif holds integers beyond 16 bits"):
        load_pixels(save(tmp_path / "b.tif", (shares * 2**30).astype(np.int32)), SMALL)
    assert load_pixels(save(tmp_path / "c.tif", (shares * 65535).astype(np.int32)), SMALL).max() == 255


def test_hidden_files_are_no_pictures_of_a_folder(tmp_path):
    """macOS leaves `._a.png` beside `a.png` on other file systems, and programs keep thumbnails in hidden folders."""
    (tmp_path / ".thumbnails").mkdir()
    seen = save(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    for hidden in (tmp_path / "._a.png", tmp_path / ".thumbnails" / "b.png"):
        hidden.write_bytes(b"\0\5\x16\7")
    assert find_pictures(tmp_path) == find_inputs(tmp_path) == [seen]


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(InputError, match="is a folder, not a picture"):
        load_pixels(tmp_path, SMALL)
