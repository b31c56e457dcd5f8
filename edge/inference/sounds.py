"""Read WAV files, and cut a sound into the windows that a model takes one after the other."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from edge.inference.inputs import SOUND_SUFFIXES, Sample, Source
from edge.inference.spectrum import spectrum
from runtimes.arrays import Array
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import InputError
from runtimes.session import concrete_shape
from runtimes.task import SPECTRUM, SoundWindows
from runtimes.tensors import quantize

MAX_SOUND_BYTES = 2**28  # an hour and a half in CD quality, half an hour of it in floats
MAX_WINDOWS = 2**18  # over two hours at 32 ms
_RATES = (1_000, 768_000)  # of sound cards, and of some sensors
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_HINT = "pass an uncompressed WAV file: ffmpeg -i FILE sound.wav"
_SPECTRUM_CONTEXT = 320  # samples: a row of the spectrum covers 30 ms and begins every 10 ms


class _Format(NamedTuple):
    """The chunk "fmt " of a WAV file."""

    kind: int
    channels: int
    rate: int
    bits: int


def is_sound_file(source: Source) -> bool:
    """Return whether a file is a sound, judged by its suffix."""
    return isinstance(source, Path) and source.suffix.lower() in SOUND_SUFFIXES


def read_sound_samples(artifact: Artifact, path: Path, windows: SoundWindows) -> list[Sample]:
    """Read a sound as the windows that the model takes, in their order; the last one is filled up with silence.

    Raises InputError if the file is not a complete sound.
    """
    start = perf_counter()
    wave, rate = read_wav(path)
    count = -(-len(wave) * windows.rate // (rate * windows.step))
    if count > MAX_WINDOWS:  # before the sound is resampled, which may take many times its memory
        raise InputError(f"{path} has {count:,} windows; the limit is {MAX_WINDOWS:,}", "cut it into pieces")
    wave = resample(wave, rate, windows.rate)
    spec = next(spec for spec in artifact.manifest.inputs if spec.name == windows.input)
    others = [one for one in artifact.manifest.inputs if one.name not in (windows.input, *windows.states)]
    extra = {one.name: _fill(one, windows.rate) for one in others if one.name == windows.rate_input}
    feeds = [{**extra, windows.input: values} for values in _windows(wave, spec, windows)]
    milliseconds = (perf_counter() - start) * 1000 / len(feeds)
    return [Sample(source=str(path), feeds=one, preprocess_ms=milliseconds) for one in feeds]


def read_wav(path: Path) -> tuple[Array, int]:
    """Return the samples, float64 −1…1 and the mean of the channels, and the samples per second.

    Takes integers of 8 to 32 bits and floats. Raises InputError for anything else, and for an empty or broken file.
    """
    try:
        size = path.stat().st_size
        if size > MAX_SOUND_BYTES:
            raise InputError(f"{path} has {size:,} bytes; the limit is {MAX_SOUND_BYTES:,}", "cut it into pieces")
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist", "pass a WAV file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}", "pass a WAV file") from None
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise InputError(f"{path} is not a WAV file" if content else f"{path} is empty", _HINT)
    chunks = dict(_chunks(content))
    if len(chunks.get(b"fmt ", b"")) < 16 or b"data" not in chunks:
        raise InputError(f"{path} is not a complete WAV file", _HINT)
    form = _format(chunks[b"fmt "])
    known = (form.kind == _PCM and form.bits in (8, 16, 24, 32)) or (form.kind == _FLOAT and form.bits in (32, 64))
    if not known:
        raise InputError(f"{path} is a WAV file of the kind {form.kind} with {form.bits} bits", _HINT)
    if not _RATES[0] <= form.rate <= _RATES[1] or not 1 <= form.channels <= 64:
        what = f"{path} says {form.rate} samples a second in {form.channels} channels"
        raise InputError(what, "the file is broken: save it again")
    values = _numbers(chunks[b"data"], form)
    frames = len(values) // form.channels
    if not frames:
        raise InputError(f"{path} holds no sound: it has no samples", "record it again")
    wave: Array = values[: frames * form.channels].reshape(frames, form.channels).mean(axis=1)
    if not np.isfinite(wave).all():
        raise InputError(f"{path} contains NaN or infinity", "save it again")
    return wave, form.rate


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks of a RIFF file; one that is cut off ends with the file."""
    place = 12
    while place + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, place)
        yield name, content[place + 8 : place + 8 + size]
        place += 8 + size + size % 2


def _format(chunk: bytes) -> _Format:
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE and len(chunk) >= 26:  # the kind is the beginning of a GUID
        kind = int.from_bytes(chunk[24:26], "little")
    return _Format(kind, channels, rate, bits)


def _numbers(data: bytes, form: _Format) -> Array:
    width = form.bits // 8
    data = data[: len(data) // width * width]
    if form.kind == _FLOAT:
        return np.frombuffer(data, f"<f{width}").astype(np.float64)
    if form.bits == 8:
        return (np.frombuffer(data, np.uint8).astype(np.float64) - 128) / 128
    if form.bits == 24:  # as the upper bytes of 32 bits
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, width = wide.tobytes(), 4
    return np.frombuffer(data, f"<i{width}").astype(np.float64) / 2.0 ** (8 * width - 1)


def resample(wave: Array, rate: int, wanted: int) -> Array:
    """Return a sound with another number of samples per second, without what the new rate cannot hold."""
    if rate == wanted:
        return wave
    # In pieces of a second or more, each with half a second of both neighbors, which takes the ends out of its middle.
    piece, margin = rate * 8, rate // 2
    pieces = []
    for start in range(0, len(wave), piece):
        low, high = max(0, start - margin), min(len(wave), start + piece + margin)
        count = max(1, round((high - low) * wanted / rate))
        lines = np.fft.rfft(wave[low:high])[: count // 2 + 1]
        there = np.fft.irfft(lines, count) * (count / (high - low))
        first = round((start - low) * wanted / rate)
        pieces.append(there[first : first + round((min(len(wave), start + piece) - start) * wanted / rate)])
    return np.concatenate(pieces)


def _windows(wave: Array, spec: TensorSpec, windows: SoundWindows) -> Iterator[Array]:
    """Yield the model's input for one window after the other."""
    if windows.features == SPECTRUM:
        yield from _spectrum_windows(wave, spec, windows)
        return
    count = -(-len(wave) // windows.step)
    padded = np.zeros(windows.context + count * windows.step)
    padded[windows.context : windows.context + len(wave)] = wave
    shape = _shape(spec, windows.context + windows.step)
    for start in range(0, count * windows.step, windows.step):
        yield quantize(padded[start : start + windows.context + windows.step].reshape(shape), spec)


def _spectrum_windows(wave: Array, spec: TensorSpec, windows: SoundWindows) -> Iterator[Array]:
    count = -(-len(wave) // windows.step)
    rows = spectrum(np.pad(wave, (0, count * windows.step + _SPECTRUM_CONTEXT - len(wave))))
    shape = concrete_shape(spec)
    for values in rows.reshape(count, *shape[1:]):
        yield quantize(values[np.newaxis], spec)


def _shape(spec: TensorSpec, length: int) -> tuple[int, ...]:
    """Return the input's shape, whose only free size apart from the batch is the number of samples."""
    free = (1 if place == 0 and len(spec.shape) > 1 else length for place in range(len(spec.shape)))
    return tuple(size if isinstance(size, int) else other for size, other in zip(spec.shape, free, strict=True))


def _fill(spec: TensorSpec, value: int) -> Array:
    return np.full(concrete_shape(spec), value, spec.dtype)
