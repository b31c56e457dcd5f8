"""Prices of hosted language models, as their makers published them in spring 2023 (`api_prices.csv`)."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

COLUMNS = ("model", "prompt_usd_per_1k", "completion_usd_per_1k")  # what a file must have
_FILE = Path(__file__).parent / "api_prices.csv"
_MAX_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ApiPrice:
    """The price of a hosted model, in US dollars per thousand tokens.

    date: When it was the price, as YYYY-MM; may be empty in a user's file.
    slide_usd: What the lecture of April 2023 prints for 100 e-mails; None for other rows.
    source: Where the price stands, or the user's file.
    note: What explains a difference between the slide and the arithmetic; may be empty.
    """

    model: str
    provider: str
    prompt_usd_per_1k: float
    completion_usd_per_1k: float
    date: str
    slide_usd: float | None
    source: str
    note: str

    def cost_usd(self, *, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price of so many tokens in all."""
        return (prompt_tokens * self.prompt_usd_per_1k + completion_tokens * self.completion_usd_per_1k) / 1000


class PriceListError(Exception):
    """A file is not a list of prices; the message names the line."""


@cache
def published_prices() -> tuple[ApiPrice, ...]:
    """Return the prices of spring 2023, in the order of the file."""
    return read_prices(_FILE)


def read_prices(path: Path) -> tuple[ApiPrice, ...]:
    """Read a CSV file of prices. Raises PriceListError, or OSError if it cannot be read."""
    if path.stat().st_size > _MAX_BYTES:
        raise PriceListError(f"{path} is larger than 1 MB, which no list of prices is")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or [])]
            if missing:
                raise PriceListError(f"{path} lacks the column {missing[0]}")
            return tuple(_price(row, path, rows.line_num) for row in rows)
    except (UnicodeDecodeError, csv.Error) as error:
        raise PriceListError(f"{path} is not a CSV file: {error}") from None


def _price(row: dict[str, str], path: Path, line: int) -> ApiPrice:
    try:
        prompt, completion = (float(row[name]) for name in COLUMNS[1:])
        slide = float(row.get("slide_usd") or math.nan)
        if not (0 <= prompt < math.inf and 0 <= completion < math.inf):
            raise ValueError
    except (TypeError, ValueError):
        raise PriceListError(f"{path}, line {line}, has no price in US dollars per 1,000 tokens") from None
    return ApiPrice(
        model=row["model"],
        provider=row.get("provider") or "",
        prompt_usd_per_1k=prompt,
        completion_usd_per_1k=completion,
        date=row.get("date") or "",
        slide_usd=None if math.isnan(slide) else slide,
        source=row.get("source") or path.name,
        note=row.get("note") or "",
    )
