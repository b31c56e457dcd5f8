"""The real public models in the folder `real` of EDGE_DATA, with inputs of the kind that each one takes.

Pictures are crops of real ones in the folder; sounds, texts and bytes are synthesized here. The same seed gives the
same inputs. None of them are edge's own synthetic inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]
MakeInputs = Callable[[Path, np.random.Generator, int], Arrays]
_OKAY_NABU = Path(__file__).parents[1] / "edge" / "inference" / "okay_nabu.wav"
_SPECTRUM_SCALE = 26 / 255  # of the input of the wake word network, which takes 0 to 26


@dataclass(frozen=True, kw_only=True)
class RealModel:
    """A file, how to create its inputs, and how to compare its outputs.

    make: Creates inputs [n, *shape] by name.
    options: Options of `edge convert` for every target.
    fixed: Additional options for a target without free sizes.
    sequence: Whether the inputs are steps of one stream, which a model with an internal state takes in order.
    sets: Whether the outputs are rows of detections in any order.
    points: Whether the output holds key points: y, x and score, shares of the picture.
    """

    path: str
    make: MakeInputs
    options: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    sequence: bool = False
    sets: bool = False
    points: bool = False

    @property
    def name(self) -> str:
        """The name without folders."""
        return self.path.rpartition("/")[2]


def _pictures(
    file: str, size: tuple[int, int], convert: Callable[[np.ndarray], np.ndarray], name: str, least: float = 0.6
) -> MakeInputs:
    """Return random crops [n, 1, height, width, 3], flipped and dimmed; `least` is the smallest share of a side."""

    def make(folder: Path, rng: np.random.Generator, count: int) -> Arrays:
        from PIL import Image

        with Image.open(folder / file) as opened:
            picture = opened.convert("RGB")
        cuts = []
        for _ in range(count):
            share = rng.uniform(least, 1.0)
            width, height = (max(8, int(side * share)) for side in picture.size)
            left, top = rng.integers(0, picture.width - width + 1), rng.integers(0, picture.height - height + 1)
            cut = picture.crop((left, top, left + width, top + height)).resize((size[1], size[0]))
            pixels = np.asarray(cut, np.float32) * rng.uniform(0.6, 1.0)
            cuts.append(pixels[:, ::-1] if rng.random() < 0.5 else pixels)
        return {name: convert(np.stack(cuts)[:, np.newaxis])}

    return make


def _lines_of_text(folder: Path, rng: np.random.Generator, count: int) -> Arrays:
    """Return drawn words, half of them upside down, for the text direction network: [n, 1, 3, 48, 192]."""
    from PIL import Image, ImageDraw, ImageFont

    rows = []
    for _ in range(count):
        back, ink = (tuple(int(one) for one in rng.integers(low, low + 90, 3)) for low in (160, 0))
        picture = Image.new("RGB", (192, 48), back)
        word = "".join(rng.choice(list("ABCDEFGHKLMNPRSTabdefghknpqrty234567")) for _ in range(rng.integers(5, 10)))
        ImageDraw.Draw(picture).text((6, 4), word, fill=ink, font=ImageFont.load_default(int(rng.integers(26, 38))))
        pixels = np.asarray(picture, np.float32) / 127.5 - 1
        pixels = pixels[::-1, ::-1] if rng.random() < 0.5 else pixels
        rows.append(pixels.transpose(2, 0, 1) + rng.normal(0, 0.02, (3, 48, 192)))
    return {"x": np.stack(rows).astype(np.float32)[:, np.newaxis]}


def _sound(rng: np.random.Generator, length: int, rate: int) -> np.ndarray:
    """Return notes with overtones that fade in and out, in a little noise."""
    time = np.arange(length) / rate
    wave = rng.normal(0, 0.003, length)
    for _ in range(rng.integers(2, 6)):
        start, note = rng.uniform(0, time[-1] * 0.8), 110 * 2 ** (rng.integers(0, 36) / 12)
        envelope = np.where(time < start, 0, np.exp(-(time - start) * rng.uniform(1, 6)))
        tones = sum(np.sin(2 * np.pi * note * k * time) / k for k in range(1, 7))
        wave = wave + rng.uniform(0.05, 0.2) * envelope * tones
    return wave.astype(np.float32)


def _notes(name: str) -> MakeInputs:
    def make(folder: Path, rng: np.random.Generator, count: int) -> Arrays:
        return {name: np.stack([_sound(rng, 43844, 22050) for _ in range(count)])[:, np.newaxis, :, np.newaxis]}

    return make


def _voice(rng: np.random.Generator, length: int) -> np.ndarray:
    """Return a pitch with formants, half of the time, like speech, at 16 kHz."""
    time = np.arange(length) / 16000
    pitch = 120 + 30 * np.sin(2 * np.pi * 2.3 * time + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    formants = [(rng.uniform(300, 800), 90), (rng.uniform(900, 2200), 120), (2600, 160)]
    wave = np.zeros(length)
    for k in range(1, 40):
        weight = sum(np.exp(-(((120 * k - middle) / width) ** 2) / 2) for middle, width in formants)
        wave += (weight + 0.02) / k**0.5 * np.sin(k * phase)
    loud = np.clip(np.sin(2 * np.pi * 3.1 * time + rng.uniform(0, 6)) * 2 + 0.4, 0, 1)
    return (0.15 * wave * loud + rng.normal(0, 0.004, length)).astype(np.float32)


def _speech_chunks(folder: Path, rng: np.random.Generator, count: int) -> Arrays:
    """Return chunks of a voice, each with the state that the model itself computed from the chunk before."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "silero_vad_16k_op15.onnx"), providers=["CPUExecutionProvider"])
    wave = _voice(rng, 512 * count * 2 + 64)
    state, sounds, states = np.zeros((2, 1, 128), np.float32), [], []
    for place in range(count * 2):
        chunk = wave[512 * place : 512 * place + 576][np.newaxis]
        sounds.append(chunk)
        states.append(state)
        state = session.run(None, {"input": chunk, "state": state, "sr": np.array(16000, np.int64)})[1]
    return {
        "input": np.stack(sounds[::2]),
        "state": np.stack(states[::2]),
        "sr": np.full(count, 16000, np.int64),
    }


def _voice_stream(folder: Path, rng: np.random.Generator, count: int) -> Arrays:
    """Return consecutive chunks of a voice, for a model that keeps its own state."""
    chunks = _voice(rng, 512 * count).reshape(count, 1, 512)
    return {"x": chunks, "sr": np.full(count, 16000, np.int64)}


def _bytes_of_files(folder: Path, rng: np.random.Generator, count: int) -> Arrays:
    """Return the beginning, middle and end of files, in the form that magika reads; 256 is padding."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    texts = sorted(Path(__file__).parent.parent.rglob("*.py"))
    rows = []
    for place in range(count):
        data = (files if place % 2 else texts)[rng.integers(len(files if place % 2 else texts))].read_bytes()
        row = np.full(2048, 256, np.int32)
        row[: min(1024, len(data))] = list(data[:1024])
        row[2048 - min(1024, len(data)) :] = list(data[-1024:])
        rows.append(row)
    return {"bytes": np.stack(rows)[:, np.newaxis]}


def _frames(folder: Path, rng: np.random.Generator, count: int) -> Arrays:
    """Return frames of traffic, each with the state that the network computed from the frame before."""
    from ai_edge_litert.interpreter import Interpreter

    frames = _pictures("traffic_0001.bmp", (256, 256), _as_bytes, "x", 0.9)(folder, rng, count)["x"]
    frames[::2] = _pictures("traffic_0002.bmp", (256, 256), _as_bytes, "x", 0.9)(folder, rng, count)["x"][::2]
    interpreter = Interpreter(str(folder / "traffic_model.tflite"))
    interpreter.allocate_tensors()
    image, cell, hidden = interpreter.get_input_details()
    last = {one["name"]: one["index"] for one in interpreter.get_output_details()}
    states: list[np.ndarray] = [np.zeros((2, 1, 8, 8, 320), np.uint8)]
    for frame in frames[:-1]:
        for one, value in zip((image, cell, hidden), (frame, *states[-1]), strict=True):
            interpreter.set_tensor(one["index"], value)
        interpreter.invoke()
        states.append(np.stack([interpreter.get_tensor(last[f"raw_outputs/lstm_{one}"]) for one in "ch"]))
    cells, hiddens = np.stack(states).swapaxes(0, 1)
    return {image["name"]: frames, cell["name"]: cells, hidden["name"]: hiddens}


def _spoken_wake_word(folder: Path, rng: np.random.Generator, count: int) -> Arrays:
    """Return the spectrum of the wake word, in steps of three rows; its time, loudness and noise depend on the seed."""
    from edge.inference.sounds import read_wav
    from edge.inference.spectrum import BANDS, STEP, spectrum

    spoken, _ = read_wav(_OKAY_NABU)
    sound = 1e-3 * rng.standard_normal((3 * count + 2) * STEP)  # a row is 30 ms long
    start = rng.integers(0, max(1, len(sound) - len(spoken)))
    sound[start : start + len(spoken)] += rng.uniform(0.5, 1) * spoken[: len(sound) - start]
    levels = np.round(spectrum(sound).reshape(count, 1, 3, BANDS) / _SPECTRUM_SCALE) - 128
    return {"serving_default_input_audio:0": np.clip(levels, -128, 127).astype(np.int8)}


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.round(pixels).astype(np.uint8)


def _gray(pixels: np.ndarray) -> np.ndarray:
    return _as_bytes(pixels.mean(axis=-1, keepdims=True))


def _rows(folder: Path, rng: np.random.Generator, count: int) -> Arrays:
    return {"serving_default_keras_tensor:0": rng.integers(0, 256, (count, 1, 256)).astype(np.uint8)}


_NMP = "serving_default_input_2:0"
MODELS: tuple[RealModel, ...] = (
    RealModel(path="edgetpu/dense_256.tflite", make=_rows),
    RealModel(
        path="edgetpu/bright_128x128.tflite",
        make=_pictures("squat.bmp", (128, 128), _gray, "serving_default_keras_tensor_62:0"),
    ),
    RealModel(
        path="ch_ppocr_mobile_v2.0_cls_infer.onnx",
        make=_lines_of_text,
        options=("--shape", "x=1x3x48x192"),
    ),
    RealModel(
        path="face_detection_short_range.tflite",
        make=_pictures("face.jpg", (128, 128), lambda pixels: pixels / 127.5 - 1, "input"),
    ),
    RealModel(
        path="face_landmark.tflite", make=_pictures("face.jpg", (192, 192), lambda pixels: pixels / 255, "input_1")
    ),
    RealModel(path="vww_96.h5", make=_pictures("squat.bmp", (96, 96), lambda pixels: pixels / 255, "input_1")),
    RealModel(path="magika.onnx", make=_bytes_of_files, fixed=("--shape", "bytes=1x2048")),
    RealModel(
        path="silero_vad_16k_op15.onnx",
        make=_speech_chunks,
        options=("--shape", "input=1x576", "--shape", "state=2x1x128"),
    ),
    RealModel(
        path="silero_vad.onnx", make=_speech_chunks, options=("--shape", "input=1x576", "--shape", "state=2x1x128")
    ),
    RealModel(
        path="silero_vad.jit",
        make=_voice_stream,
        options=("--input", "x=1x512", "--input", "sr=:int64"),
        sequence=True,
    ),
    RealModel(path="nmp.tflite", make=_notes(_NMP)),
    RealModel(path="nmp.onnx", make=_notes(_NMP), fixed=("--shape", f"{_NMP}=1x43844x1")),
    RealModel(path="nmp_savedmodel", make=_notes("input_2")),
    RealModel(
        path="movenet_single_pose_lightning_ptq.tflite",
        make=_pictures("squat.bmp", (192, 192), _as_bytes, "serving_default_input:0"),
        points=True,
    ),
    RealModel(path="traffic_model.tflite", make=_frames, sets=True),
    RealModel(path="okay_nabu.tflite", make=_spoken_wake_word, sequence=True),
)
