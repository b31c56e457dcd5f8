"""Estimate how fast a language model writes on a device, from the bandwidth of its memory, and whether it fits.

Each written token reads all weights once, so the bandwidth limits the speed. Published speeds of a class of weights
(4, 8 or 16 bits) reach a share of it, whose median is the estimate. The band is that of devices left out of the median,
the widest of the three classes: the rows of 8 and 16 bits are almost all of one maker's GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from device_profiles.profiles import Profile, profile_ids
from device_profiles.published.language_models import WEIGHT_CLASSES, PublishedSpeed, published_speeds, weight_class
from edge.compatibility.language_model import CONTEXT, SYSTEM_BYTES
from edge.estimation.regression import band, median_error
from edge.machine.this_machine import load_profile
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import JsonObject, to_json
from runtimes.errors import RefusedError
from runtimes.llm.llama_cpp.memory import largest_quantization, memory_need, trained_context
from runtimes.model_files.gguf import GgufFile, read_gguf


@dataclass(frozen=True, kw_only=True)
class BandwidthShare:
    """The share of the bandwidth that published speeds of a class of weights reach.

    share: The median over all rows.
    error: The median relative error of that median, for devices that it does not contain.
    band: The factor within which 90 % of these errors lie, in the class where it is widest.
    rows, devices: How many there are.
    """

    share: float
    error: float
    band: float
    rows: int
    devices: int


@dataclass(frozen=True, kw_only=True)
class LanguageModelEstimate:
    """What a language model would need on a device.

    write_tok_s: Tokens per second of an answer; low_tok_s and high_tok_s are its 90 % band.
    read_tok_s: The lowest speed of reading a prompt: the weights are read once for many tokens.
    fits: Whether it fits into memory next to the system; None if the device is sold with several sizes of memory.
    fitting: The largest quantization that fits, if the file itself does not.
    """

    device: str
    bandwidth_gb_s: float
    write_tok_s: float
    low_tok_s: float
    high_tok_s: float
    read_tok_s: float
    memory_bytes: int
    device_bytes: int | None
    fits: bool | None
    fitting: str | None


@dataclass(frozen=True, kw_only=True)
class LanguageModelEstimates:
    """The estimates for a model, the fastest device first.

    bits: The class of its weights.
    context: The tokens of context that the memory includes.
    basis: The published rows that the speeds are from.
    """

    model: str
    parameters: int
    bits: int
    context: int
    basis: BandwidthShare
    estimates: Sequence[LanguageModelEstimate]

    def to_json(self) -> JsonObject:
        """Return the object that `edge estimate MODEL.gguf --json` prints."""
        return to_json(self)


def estimate_language_model(model: Path, device: str | None, memory: int | None) -> LanguageModelEstimates:
    """Estimate a GGUF file, of which only the header is read, for a device, or for all whose bandwidth is known.

    memory: The device's memory in bytes; overrides the profile.

    Raises RefusedError if the device's bandwidth is not known.
    """
    file = read_gguf(Artifact.open(model).model)
    context = min(CONTEXT, trained_context(file))
    bits = weight_class(file.bits_per_weight)
    basis = bandwidth_share(bits)
    names = [device] if device is not None else profile_ids()
    found = [_estimate(file, name, load_profile(name), memory, context, basis) for name in names]
    known = sorted((one for one in found if one is not None), key=lambda one: -one.write_tok_s)
    if not known:
        raise RefusedError(
            f"no estimate for {device}: the bandwidth of its memory is not in its profile",
            "edge estimate MODEL.gguf --all lists the devices whose bandwidth is known",
        )
    return LanguageModelEstimates(
        model=model.name, parameters=file.parameters, bits=bits, context=context, basis=basis, estimates=known
    )


@cache
def bandwidth_share(bits: int) -> BandwidthShare:
    """Return the share for a class of weights, with its errors."""
    rows = _rows(bits)
    bands = [band(_errors(_rows(one))) for one in WEIGHT_CLASSES]
    return BandwidthShare(
        share=median(map(_share, rows)),
        error=median_error(_errors(rows)),
        band=max(one for one in bands if one is not None),
        rows=len(rows),
        devices=len({row.device for row in rows}),
    )


def _rows(bits: int) -> list[PublishedSpeed]:
    return [row for row in published_speeds() if row.bits == bits and row.bandwidth_gb_s is not None]


def _errors(rows: Sequence[PublishedSpeed]) -> list[float]:
    """Return the error of the logarithm for each row, with its device left out."""
    return [
        math.log(_share(row) / median(_share(other) for other in rows if other.device != row.device)) for row in rows
    ]


def _share(row: PublishedSpeed) -> float:
    assert row.bandwidth_gb_s is not None
    return row.write_tok_s * row.parameters * row.bits / 8 / (row.bandwidth_gb_s * 1e9)


def _estimate(
    file: GgufFile, device: str, profile: Profile, memory: int | None, context: int, basis: BandwidthShare
) -> LanguageModelEstimate | None:
    """Return None if the profile does not have the bandwidth."""
    if profile.memory is None or profile.memory.bandwidth_gb_s is None:
        return None
    bandwidth = profile.memory.bandwidth_gb_s
    # By the class and not by the file's bytes, as in the published rows, whose exact bits are often unknown.
    speed = basis.share * bandwidth * 1e9 / (file.parameters * weight_class(file.bits_per_weight) / 8)
    total, wanted = memory or profile.memory.bytes, memory_need(file, context).total
    free = None if total is None else total - SYSTEM_BYTES
    fits = None if free is None else wanted <= free
    return LanguageModelEstimate(
        device=device,
        bandwidth_gb_s=bandwidth,
        write_tok_s=speed,
        low_tok_s=speed / basis.band,
        high_tok_s=speed * basis.band,
        read_tok_s=speed,
        memory_bytes=wanted,
        device_bytes=total,
        fits=fits,
        fitting=largest_quantization(file, free) if free is not None and not fits else None,
    )
