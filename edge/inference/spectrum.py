"""The spectrum that wake word models of TensorFlow Lite Micro hear: 40 bands every 10 ms.

Computes in floating point what `tensorflow/lite/experimental/microfrontend` (Apache-2.0) computes in fixed point, with
the parameters that microWakeWord and ESPHome use: a Hann window of 30 ms, mel bands from 125 to 7,500 Hz, noise
reduction, automatic gain (PCAN) and a logarithm. The constants are those of the `*_util.c` files there.
"""

from __future__ import annotations

import numpy as np

from runtimes.arrays import Array

RATE = 16_000
STEP = 160  # samples from one row of the spectrum to the next
BANDS = 40
_WINDOW, _FFT = 480, 512
_LOWEST_HZ, _HIGHEST_HZ = 125.0, 7500.0
_FULL_SCALE = 32_768
_FILTER_BITS = 12
# Noise reduction: how quickly the estimate follows even and odd bands, and the share of the signal that always remains.
_EVEN, _ODD, _REMAINING = 0.025, 0.06, 0.05
# PCAN divides by (noise + offset) ** strength; fixed-point positions as in pcan_gain_control_util.c.
_STRENGTH, _OFFSET = 0.95, 80.0
_CORRECTION_BITS = 3
_SNR_BITS, _OUTPUT_BITS = 12, 6
_LOG_SCALE = 64
_TO_FLOAT = 10 / 256  # microWakeWord's scale of the 16-bit features


def spectrum(samples: Array) -> Array:
    """Return float32 [rows, 40], one row for every 10 ms that 30 ms of sound begin at; `samples` are −1…1 at 16 kHz."""
    whole = np.clip(np.rint(np.asarray(samples, np.float64) * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
    rows = 1 + (len(whole) - _WINDOW) // STEP
    if rows < 1:
        return np.empty((0, BANDS), np.float32)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi / _WINDOW * (np.arange(_WINDOW) + 0.5))
    frames = np.lib.stride_tricks.sliding_window_view(whole, _WINDOW)[::STEP] * hann
    power = np.abs(np.fft.rfft(frames, _FFT) / _FFT) ** 2
    # The filter's weights have 12 bits below the point, of which the square root leaves 6.
    bands = np.floor(np.sqrt(power @ _filters() * 2**_FILTER_BITS))
    return (np.stack(_suppress_noise(bands)) * _TO_FLOAT).astype(np.float32)


def _filters() -> Array:
    """Return the weights of the triangular mel bands, [257, 40]."""
    edges = np.linspace(_mel(_LOWEST_HZ), _mel(_HIGHEST_HZ), BANDS + 2)
    places = _mel(np.arange(_FFT // 2 + 1) * RATE / _FFT)[:, np.newaxis]
    rising = (places - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - places) / (edges[2:] - edges[1:-1])
    weights: Array = np.clip(np.minimum(rising, falling), 0, None)
    return weights


def _mel(hertz: Array | float) -> Array:
    return np.asarray(1127.0 * np.log1p(np.asarray(hertz) / 700.0))


def _suppress_noise(bands: Array) -> list[Array]:
    """Reduce noise, even out loudness and take the logarithm, row after row: each depends on those before."""
    follow = np.where(np.arange(BANDS) % 2, _ODD, _EVEN)
    noise, rows = np.zeros(BANDS), []
    for signal in bands:
        noise = signal * follow + noise * (1 - follow)
        left = np.maximum(signal - np.minimum(noise, signal), signal * _REMAINING)
        gain = (noise * 2**_CORRECTION_BITS + _OFFSET) ** -_STRENGTH
        ratio = left * gain * 2 ** (_CORRECTION_BITS + _SNR_BITS)
        small = ratio**2 / 2 ** (2 + 2 * _SNR_BITS - _OUTPUT_BITS)
        large = ratio / 2 ** (_SNR_BITS - _OUTPUT_BITS) - 2**_OUTPUT_BITS
        level = np.floor(np.where(ratio < 2 ** (_SNR_BITS + 1), small, large)) * 2**_CORRECTION_BITS
        rows.append(np.where(level > 1, np.rint(_LOG_SCALE * np.log(np.maximum(level, 1))), 0))
    return rows
