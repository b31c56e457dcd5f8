"""`edge run` on sounds: a wake word model that keeps its state, and a voice detector whose state is passed on."""

from __future__ import annotations

import json
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.cli import main
from edge.inference import sounds
from edge.inference.sounds import read_wav, resample
from edge.inference.spectrum import BANDS, spectrum
from runtimes.artifact import Artifact
from runtimes.errors import InputError, UsageError
from runtimes.task import SoundWindows

MODEL = Path(__file__).parents[2] / "compatibility" / "artifacts" / "onnx-fp32"
# "okay nabu" by espeak-ng 1.51 (en-us), at 16 kHz in 8 bits, and a quarter of a second of silence.
OKAY_NABU = Path(__file__).with_name("okay_nabu.wav")


def write(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1] if samples.ndim > 1 else 1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def reference_probabilities(model: Path, sound: np.ndarray, *, carried: bool = True) -> list[float]:
    """Run Silero's detector in a plain loop, as its own example does; without `carried`, from zero for each window."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    padded = np.concatenate([np.zeros(64), sound, np.zeros(-len(sound) % 512)]).astype(np.float32)
    state, found = np.zeros((2, 1, 128), np.float32), []
    for start in range(0, len(padded) - 64, 512):
        feeds = {"input": padded[None, start : start + 576], "state": state, "sr": np.array(16_000, np.int64)}
        output, following = session.run(None, feeds)
        found.append(float(output[0, 0]))
        state = following if carried else state
    return found


@pytest.mark.data
def test_the_wake_word_is_heard_and_the_same_sound_backwards_is_not(capsys, data, tmp_path):
    samples, rate = read_wav(OKAY_NABU)
    backwards = write(tmp_path / "backwards.wav", samples[::-1], rate)
    model = data / "real" / "okay_nabu.tflite"
    (tmp_path / "names.txt").write_text("okay nabu\n")
    options = ["--labels", str(tmp_path / "names.txt"), "--json"]
    assert main(["run", str(model), str(OKAY_NABU), str(backwards), str(OKAY_NABU), *options]) == 0
    first, other, again = json.loads(capsys.readouterr().out)
    assert (first["task"], first["result"][0]["label"]) == ("sound", "okay nabu")
    assert first["result"][0]["score"] > 0.9
    assert other["result"][0]["score"] < 0.5
    (segment,) = first["segments"]
    assert 0.6 < segment["start_s"] < segment["end_s"] <= 1.62
    # Each sound begins with the model's initial state.
    assert again["segments"] == first["segments"]


@pytest.mark.data
@pytest.mark.parametrize("name", ["silero_vad.onnx", "silero_vad_16k_op15.onnx"])
def test_the_voice_detectors_state_is_carried_from_window_to_window(data, name):
    model = data / "real" / name
    with edge.open(model) as opened:
        found = opened.predict(OKAY_NABU)
    samples, _ = read_wav(OKAY_NABU)
    np.testing.assert_allclose(found.scores[:, 0], reference_probabilities(model, samples), atol=1e-5)
    forgetful = reference_probabilities(model, samples, carried=False)
    assert np.abs(found.scores[:, 0] - forgetful).max() > 0.3  # what a lost state would answer
    assert found.segments[0].label == "speech"
    assert found.segments[-1].end_s < 1.1  # silence follows


@pytest.mark.data
def test_an_artifact_hears_what_its_source_hears(data, tmp_path):
    source = data / "real" / "silero_vad_16k_op15.onnx"
    shapes = ["--shape", "input=1x576", "--shape", "state=2x1x128"]
    assert main(["convert", str(source), "--to", "onnx", *shapes, "--out", str(tmp_path / "vad")]) == 0
    with edge.open(source) as one, edge.open(tmp_path / "vad") as other:
        expected, found = one.predict(OKAY_NABU), other.predict(OKAY_NABU)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


@pytest.mark.data
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_wake_word_whose_state_became_an_input_hears_the_same(data, tmp_path, target):
    pytest.importorskip("tf2onnx" if target == "onnx" else "openvino")
    source, rows = data / "real" / "okay_nabu.tflite", spectrum(read_wav(OKAY_NABU)[0])
    steps = rows[: len(rows) // 3 * 3].reshape(-1, 1, 3, BANDS).astype(np.float32)
    np.savez(tmp_path / "steps.npz", steps)
    words = ["--to", target, "--calibration", str(tmp_path / "steps.npz"), "--out", str(tmp_path / "word")]
    assert main(["convert", str(source), *words]) == 0
    manifest = json.loads((tmp_path / "word" / "manifest.json").read_text())
    assert (len(manifest["states"]), len(manifest["inputs"]), len(manifest["outputs"])) == (6, 1, 1)
    with edge.open(source) as one, edge.open(tmp_path / "word") as other:
        expected, found = one.predict(OKAY_NABU), other.predict(OKAY_NABU)
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.1)  # of int8 steps, computed in float
    assert len(found.segments) == 1


@pytest.mark.data
def test_sounds_of_other_rates_and_channels_are_resampled(data, tmp_path):
    samples, _ = read_wav(OKAY_NABU)
    both = np.stack([resample(samples, 16_000, 44_100)] * 2, axis=1)
    with edge.open(data / "real" / "silero_vad_16k_op15.onnx") as opened:
        expected, found = opened.predict(OKAY_NABU), opened.predict(write(tmp_path / "cd.wav", both, 44_100))
    assert np.abs(found.scores - expected.scores).mean() < 0.01
    assert np.abs(found.scores - expected.scores).max() < 0.1


def test_a_tone_survives_resampling_and_one_above_the_new_rate_does_not():
    time = np.arange(44_100 * 20) / 44_100
    found = resample(np.sin(2 * np.pi * 440 * time), 44_100, 16_000)
    assert len(found) == 16_000 * 20
    inner = slice(1000, -1000)
    np.testing.assert_allclose(found[inner], np.sin(2 * np.pi * 440 * np.arange(len(found)) / 16_000)[inner], atol=0.01)
    assert np.abs(resample(np.sin(2 * np.pi * 12_000 * time), 44_100, 16_000)[inner]).max() < 0.01


def test_the_spectrum_is_that_of_the_library_in_fixed_point():
    """The mean of each band as pymicro-features 2.0.2 computes it for the same sound."""
    found = spectrum(read_wav(OKAY_NABU)[0])
    assert found.shape == (159, BANDS)
    expected = """
        5.78 3.78 6.27 4.32 5.32 3.07 3.33 2.88 5.03 3.74 4.03 2.80 3.41 2.60 3.60 3.34 5.65 4.44 3.39 3.06
        4.14 4.17 4.44 2.87 5.47 4.12 6.53 4.11 4.75 4.55 4.57 1.71 2.43 2.05 2.45 2.13 2.60 2.77 4.35 2.38"""
    np.testing.assert_allclose(found.mean(axis=0), [float(one) for one in expected.split()], atol=0.06)
    assert spectrum(np.zeros(479)).shape == (0, BANDS)


def riff(form: bytes, data: bytes) -> bytes:
    chunks = b"".join(struct.pack("<4sI", name, len(body)) + body for name, body in ((b"fmt ", form), (b"data", data)))
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def form(kind: int, bits: int, channels: int = 1, rate: int = 16_000, extra: bytes = b"") -> bytes:
    width = channels * bits // 8
    return struct.pack("<HHIIHH", kind, channels, rate, rate * width, width, bits) + extra


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (riff(form(1, 8), bytes([0, 128, 192])), [-1, 0, 0.5]),
        (riff(form(1, 16), struct.pack("<2h", -32768, 16384)), [-1, 0.5]),
        (riff(form(1, 16, 2), struct.pack("<4h", 0, 16384, 8192, 8192)), [0.25, 0.25]),
        (riff(form(1, 24), b"\x00\x00\x80\x00\x00\x40"), [-1, 0.5]),
        (riff(form(3, 32), struct.pack("<2f", 0.25, -1)), [0.25, -1]),
        (riff(form(0xFFFE, 32, extra=bytes(8) + b"\x03\x00" + bytes(14)), struct.pack("<f", 0.5)), [0.5]),
    ],
)
def test_the_kinds_of_wav_files(tmp_path, content, expected):
    (tmp_path / "a.wav").write_bytes(content)
    samples, rate = read_wav(tmp_path / "a.wav")
    assert rate == 16_000
    np.testing.assert_allclose(samples, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"ID3\x04 an mp3", "is not a WAV file"),
        (b"RIFF\x00\x00\x00\x00WAVE", "is not a complete WAV file"),
        (riff(form(1, 16), b""), "holds no sound"),
        (riff(form(1, 16), b"\x01"), "holds no sound"),
        (riff(form(2, 4), b"\x01\x02"), "of the kind 2 with 4 bits"),
        (riff(form(1, 16, 0), b"\x01\x02"), "in 0 channels"),
        (riff(form(1, 16, 1, 2**32 - 1 >> 8), b"\x01\x02"), "16777215 samples a second"),
        (riff(form(3, 32), struct.pack("<f", float("nan"))), "NaN or infinity"),
        (OKAY_NABU.read_bytes()[:30], "is not a complete WAV file"),
    ],
)
def test_a_broken_sound_is_one_clear_line(tmp_path, content, words):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_wav(tmp_path / "a.wav")
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_sound_that_is_too_long_is_refused_before_it_is_resampled(monkeypatch, tmp_path):
    (tmp_path / "days.wav").write_bytes(riff(form(1, 8, rate=1_000), bytes(2**18 * 512 // 16 + 1)))
    monkeypatch.setattr(sounds, "resample", lambda *_: pytest.fail("the sound is resampled"))
    with pytest.raises(InputError, match=r"has 262,145 windows; the limit is 262,144"):
        sounds.read_sound_samples(Artifact.open(MODEL), tmp_path / "days.wav", SoundWindows("x", 16_000, 512))


@pytest.mark.data
def test_a_broken_sound_is_the_commands_error(capsys, data, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    model = str(data / "real" / "silero_vad_16k_op15.onnx")
    assert main(["run", model, str(tmp_path / "empty.wav")]) == 3
    assert "empty.wav is empty" in capsys.readouterr().err
    assert main(["run", model, str(tmp_path / "missing.wav")]) == 3
    assert "missing.wav does not exist" in capsys.readouterr().err
    assert main(["run", model, str(tmp_path / "empty.wav"), str(OKAY_NABU), "--json"]) == 3
    printed = capsys.readouterr()
    assert [row["input"] for row in json.loads(printed.out)] == [str(OKAY_NABU)]
    assert "1 of 2 inputs could not be read" in printed.err


@pytest.mark.data
def test_a_model_that_takes_no_sound_says_so(data):
    with edge.open(data / "real" / "magika.onnx") as opened, pytest.raises(UsageError) as caught:
        opened.predict(OKAY_NABU)
    assert "takes no sound" in caught.value.message
    assert "--task sound" in caught.value.hint


def test_a_state_of_another_quantization_is_passed_on_as_a_real_number():
    """The state counts up by 1 at each window; as an input its steps are a quarter of those of the output."""
    from runtimes.artifact import Quantization, TensorSpec
    from runtimes.session import CheckedSession
    from runtimes.worker import _run_sequence

    fine, coarse = Quantization((0.25,), (-8,)), Quantization((1.0,), (0,))
    sound, state = TensorSpec("x", "float32", (1,)), TensorSpec("s", "int8", (1, 1), fine)

    class Counting(CheckedSession):
        def _run(self, feeds):
            real = (feeds["s"].astype(np.float32) + 8) * 0.25
            return {"y": feeds["x"] + real[0], "n": np.int8(np.rint(real + 1))}

    outputs = TensorSpec("y", "float32", (1,)), TensorSpec("n", "int8", (1, 1), coarse)
    with Counting((sound, state), outputs) as session:
        found, durations = _run_sequence(session, {"x": np.zeros((4, 1), np.float32)}, {"s": "n"}, lambda _: None)
        assert found["y"][:, 0].tolist() == [0, 1, 2, 3]
        assert set(found) == {"y"}
        assert len(durations) == 4
        with pytest.raises(InputError):
            _run_sequence(session, {"x": np.zeros((4, 1), np.float32)}, {"s": "z"}, lambda _: None)
