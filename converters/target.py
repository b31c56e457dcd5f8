"""What a device allows, as plain values: the converters know nothing of device profiles (`edge.plan` fills these)."""

from __future__ import annotations

from dataclasses import dataclass

from runtimes.errors import RefusedError

DYNAMIC_BATCH = "dynamic-batch"
NEWEST_RUNTIME = "newest-runtime"


@dataclass(frozen=True)
class Allowed:
    """One format that the device takes: precisions in its order, best first; `max_opset` where ONNX has a limit.

    `release` is that of the format's own tools which has to write the file; None where any will do.
    """

    format: str
    precisions: tuple[str, ...]
    max_opset: int | None = None
    release: str | None = None


@dataclass(frozen=True)
class Refusal:
    """What cannot be had in `format`: any of `asked` (a precision, DYNAMIC_BATCH or NEWEST_RUNTIME), and why."""

    format: str
    asked: tuple[str, ...]
    why: str
    instead: str


@dataclass(frozen=True)
class Target:
    """A device as the converters see it: the formats it takes, best first, and what it refuses."""

    device: str
    formats: tuple[Allowed, ...]
    refusals: tuple[Refusal, ...] = ()

    def allowed(self, model_format: str) -> Allowed:
        """What the device says of `model_format`; RefusedError, naming what it takes, when it does not take it."""
        found = next((one for one in self.formats if one.format == model_format), None)
        if found is None:
            taken = ", ".join(one.format for one in self.formats) or "nothing that this edge converts to"
            raise RefusedError(f"{self.device} does not take {model_format}", f"it takes: {taken}")
        return found

    def check(self, model_format: str, asked: str) -> None:
        """RefusedError, with the reason and the nearest thing that works, when `asked` cannot be had."""
        self.allowed(model_format)
        for refusal in self.refusals:
            if refusal.format == model_format and asked in refusal.asked:
                what = f"{self.device} cannot take {_worded(asked)} in {model_format}: {refusal.why}"
                raise RefusedError(what, f"what works: {refusal.instead}")

    def check_precision(self, model_format: str, precision: str) -> None:
        """RefusedError when the device does not run `model_format` in `precision`."""
        self.check(model_format, precision)
        known = self.allowed(model_format).precisions
        if precision not in known:
            what = f"{self.device} does not run {model_format} in {precision}"
            raise RefusedError(what, f"what works: {', '.join(known)}")


def _worded(asked: str) -> str:
    return {DYNAMIC_BATCH: "a free batch size", NEWEST_RUNTIME: "a model that today's converter writes"}.get(
        asked, asked
    )
