"""The bill of a workload: the cost of summarizing 100 e-mails with a language model, here and elsewhere.

The workload is from a slide of a lecture of April 2023: 100 e-mails of 400 tokens, with summaries of 200. Lines are of
three kinds, which are never mixed: `measured` on this machine, `published speed` of a device that is not here, and
`published price` of a hosted model. Unknown values stay empty: published speeds have no power.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_profiles.published.api_prices import COLUMNS, ApiPrice, PriceListError, published_prices, read_prices
from device_profiles.published.language_models import PublishedSpeed, published_speeds
from runtimes.artifact.json_fields import JsonObject, to_json
from runtimes.errors import InputError

PROMPT_TOKENS, COMPLETION_TOKENS = 400, 200  # per document
_DOCUMENTS = 100
_PRICE_KWH = 0.30  # US dollars; a household's price in much of Europe in 2023, reported as assumed where it is used
_JOULES_PER_KWH = 3.6e6
_LISTED_BITS = 4  # the weight class of the published speeds: language models on small machines have 4-bit weights


@dataclass(frozen=True, kw_only=True)
class BillOptions:
    """How the bill is computed.

    price_kwh: US dollars per kWh; None assumes 0.30.
    watts: The machine's power while it computes; None uses the measured power, if any.
    prices: A CSV file of prices to use instead of the published ones.
    """

    price_kwh: float | None = None
    watts: float | None = None
    prices: Path | None = None


@dataclass(frozen=True, kw_only=True)
class BillLine:
    """One line; values that are not known are None.

    kind: `measured`, `published speed`, `published price` or `given price`.
    name: The model, and the device where it is not this one.
    seconds: Time for all documents, one after another.
    watts, watts_from: The power, and whether it is `measured` or `given`.
    kwh, usd: Energy and money for all documents.
    note: What the figures rest on.
    """

    kind: str
    name: str
    seconds: float | None = None
    watts: float | None = None
    watts_from: str | None = None
    kwh: float | None = None
    usd: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Bill:
    """A workload and its lines: the measured one first, then published speeds, then prices.

    prompt_tokens, completion_tokens: Per document.
    price_kwh, price_kwh_from: US dollars per kWh, and whether that is `given` or `assumed`.
    """

    documents: int
    prompt_tokens: int
    completion_tokens: int
    price_kwh: float
    price_kwh_from: str
    lines: Sequence[BillLine]

    def to_json(self) -> JsonObject:
        """Return the object that `edge bench --bill --json` writes."""
        return to_json(self)


@dataclass(frozen=True, kw_only=True)
class MeasuredSpeed:
    """The speeds that a bill is computed from, in tokens per second, and the power that was measured, in watts."""

    name: str
    prompt_tok_s: float
    generation_tok_s: float
    prompt_test: str
    generation_test: str
    watts: float | None


def check_bill(options: BillOptions) -> None:
    """Raise InputError, before anything is measured, if the file of prices cannot be used."""
    _prices(options.prices)


def compute_bill(speed: MeasuredSpeed, options: BillOptions) -> Bill:
    """Compute the bill of a measured model, with published speeds and prices."""
    price = _PRICE_KWH if options.price_kwh is None else options.price_kwh
    return Bill(
        documents=_DOCUMENTS,
        prompt_tokens=PROMPT_TOKENS,
        completion_tokens=COMPLETION_TOKENS,
        price_kwh=price,
        price_kwh_from="assumed" if options.price_kwh is None else "given",
        lines=[
            _line_of_measured(speed, options.watts, price),
            *_lines_of_published(),
            *_lines_of_hosted(options.prices),
        ],
    )


def _seconds(prompt_tok_s: float, generation_tok_s: float) -> float:
    return _DOCUMENTS * (PROMPT_TOKENS / prompt_tok_s + COMPLETION_TOKENS / generation_tok_s)


def _line_of_measured(speed: MeasuredSpeed, given_watts: float | None, price_kwh: float) -> BillLine:
    seconds = _seconds(speed.prompt_tok_s, speed.generation_tok_s)
    watts = speed.watts if given_watts is None else given_watts
    kwh = None if watts is None else watts * seconds / _JOULES_PER_KWH
    note = f"{speed.prompt_test} {speed.prompt_tok_s:.1f}, {speed.generation_test} {speed.generation_tok_s:.1f} tok/s"
    return BillLine(
        kind="measured",
        name=f"{speed.name}, this machine",
        seconds=seconds,
        watts=watts,
        watts_from=None if watts is None else "measured" if given_watts is None else "given",
        kwh=kwh,
        usd=None if kwh is None else kwh * price_kwh,
        note=note if watts is not None else f"{note}; the power is not known: --watts W",
    )


def _lines_of_published() -> Iterator[BillLine]:
    """Yield the fastest and the slowest device with published speeds for each model with 4-bit weights.

    Rows without the length of their prompt are left out: some of them processed a picture.
    """
    by_model: dict[tuple[float, str], list[tuple[float, PublishedSpeed]]] = {}
    for row in published_speeds():
        if row.bits == _LISTED_BITS and row.read_tok_s is not None and row.prompt_tokens is not None:
            seconds = _seconds(row.read_tok_s, row.write_tok_s)
            by_model.setdefault((row.parameters, row.model), []).append((seconds, row))
    for key in sorted(by_model):
        ordered = sorted(by_model[key], key=lambda one: one[0])
        for seconds, row in ordered if len(ordered) == 1 else (ordered[0], ordered[-1]):
            yield BillLine(
                kind="published speed",
                name=f"{row.model} {row.quant}, {row.device}, {row.accelerator}",
                seconds=seconds,
                note=f"{row.runtime}, {row.year}: {row.source}",
            )


def _lines_of_hosted(file: Path | None) -> Iterator[BillLine]:
    for price in _prices(file):
        cost = price.cost_usd(
            prompt_tokens=_DOCUMENTS * PROMPT_TOKENS, completion_tokens=_DOCUMENTS * COMPLETION_TOKENS
        )
        rates = f"${price.prompt_usd_per_1k:g} and ${price.completion_usd_per_1k:g} per 1,000 tokens"
        slide = "" if price.slide_usd is None else f"; on the slide: {price.slide_usd:g}"
        note = f" ({price.note})" if price.note else ""
        yield BillLine(
            kind="published price" if file is None else "given price",
            name=", ".join(filter(None, (price.model, price.provider, price.date))),
            usd=cost,
            note=f"{rates}{slide}{note}; {price.source}",
        )


def _prices(file: Path | None) -> tuple[ApiPrice, ...]:
    """Return the published prices or those of a user's file. Raises InputError if it is not a list of prices."""
    if file is None:
        return published_prices()
    try:
        return read_prices(file)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}", "name a CSV file of prices") from None
    except PriceListError as error:
        hint = f"write a CSV file with the columns {', '.join(COLUMNS)}, and prices of 0 or more"
        raise InputError(str(error), hint) from None
