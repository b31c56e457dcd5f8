"""`python recheck.py ARTIFACT FOLDER PRECISION`: do the artifact's outputs for fresh inputs equal the library's?

It shares only the engines' adapters with the proof of `edge convert`: the inputs and the measures differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.session import RunOptions
from runtimes.tensors import dequantize, quantize

MAX_ERROR = 1e-3  # of a float model, as a share of the largest output
LEAST_SNR_DB = 5.0  # of an int8 model


def recheck(artifact: Artifact, folder: Path, precision: str) -> dict[str, object]:
    """Return {"agrees", "error", "snr_db"} over all fresh inputs."""
    fresh = dict(np.load(folder / "fresh.npz"))
    expected = np.load(folder / "expected.npz")["arr_0"]
    given = []
    with registry.for_format(artifact.manifest.format).open(artifact, RunOptions()) as session:
        for place in range(len(expected)):
            feeds = {}
            for order, spec in enumerate(session.inputs):
                values = fresh[spec.name if spec.name in fresh else list(fresh)[order]][place]
                if values.ndim == 4 and values.shape != tuple(spec.shape):
                    to_last = values.shape[1] == 3
                    values = values.transpose(0, 2, 3, 1) if to_last else values.transpose(0, 3, 1, 2)
                feeds[spec.name] = np.ascontiguousarray(quantize(values, spec))
            spec = session.outputs[0]
            given.append(dequantize(session.run(feeds)[spec.name], spec.quantization).reshape(expected[place].shape))
    return verdict(expected.astype(np.float64), np.stack(given).astype(np.float64), precision)


def verdict(expected: np.ndarray, given: np.ndarray, precision: str) -> dict[str, object]:
    """Compare outputs [n, ...] with the library's: float ones nearly equal, int8 ones above the noise."""
    wrong = given - expected
    error = float(np.abs(wrong).max() / np.abs(expected).max())
    snr = float(10 * np.log10((expected**2).sum() / max((wrong**2).sum(), 1e-30)))
    agrees = bool(np.isfinite(given).all()) and (error <= MAX_ERROR if precision == "fp32" else snr > LEAST_SNR_DB)
    return {"agrees": agrees, "error": error, "snr_db": snr}


if __name__ == "__main__":
    print(json.dumps(recheck(Artifact.open(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3])))
