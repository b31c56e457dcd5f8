"""The formats and precisions that a device supports, from its profile."""

from __future__ import annotations

from dataclasses import dataclass

from runtimes.errors import InputError, RefusedError, UsageError

DYNAMIC_BATCH = "dynamic-batch"
NEWEST_RUNTIME = "newest-runtime"


@dataclass(frozen=True, kw_only=True)
class AllowedFormat:
    """A format that the device takes.

    format: The format.
    precisions: The precisions it runs, best first.
    max_opset: The highest ONNX opset; None if there is no limit.
    release: The release of the format's own tools that must write the file; None if any will do.
    """

    format: str
    precisions: tuple[str, ...]
    max_opset: int | None = None
    release: str | None = None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Something that the device does not support in `format`.

    format: The format.
    asked: The unsupported requests: precisions, DYNAMIC_BATCH or NEWEST_RUNTIME.
    why: The reason.
    instead: The closest alternative that works.
    """

    format: str
    asked: tuple[str, ...]
    why: str
    instead: str


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target device: the formats it takes, best first, and what it does not support."""

    device: str
    formats: tuple[AllowedFormat, ...]
    refusals: tuple[Refusal, ...] = ()

    def allowed(self, model_format: str) -> AllowedFormat:
        """Return the device's entry for `model_format`. Raises RefusedError, with the formats it takes, if none."""
        found = next((one for one in self.formats if one.format == model_format), None)
        if found is None:
            known = ", ".join(one.format for one in self.formats) or "no format that this version of edge writes"
            raise RefusedError(f"{self.device} does not take {model_format}", f"it takes: {known}")
        return found

    def check(self, model_format: str, asked: str) -> None:
        """Raise RefusedError, with the reason and the closest alternative, if `asked` is not supported."""
        self.allowed(model_format)
        for refusal in self.refusals:
            if refusal.format == model_format and asked in refusal.asked:
                what = f"{self.device} cannot take {_describe(asked)} in {model_format}: {refusal.why}"
                raise RefusedError(what, f"what works: {refusal.instead}")

    def check_precision(self, model_format: str, precision: str) -> None:
        """Raise RefusedError if the device does not run `model_format` in `precision`."""
        self.check(model_format, precision)
        known = self.allowed(model_format).precisions
        if precision not in known:
            what = f"{self.device} does not run {model_format} in {precision}"
            raise RefusedError(what, f"what works: {', '.join(known)}")


def _describe(asked: str) -> str:
    return {DYNAMIC_BATCH: "a free batch size", NEWEST_RUNTIME: "a model written by the current converter"}.get(
        asked, asked
    )


def target_of(device: str) -> Target:
    """Read what a device's profile allows. Raises UsageError, with similar names, for an unknown device."""
    from device_profiles.profiles import UnknownProfileError, load
    from device_profiles.reader import ProfileError

    try:
        profile = load(device)
    except UnknownProfileError as error:
        raise UsageError(error.message, error.hint) from None
    except ProfileError as error:
        raise InputError(error.message, error.hint) from None
    return Target(
        device=profile.id,
        formats=tuple(
            AllowedFormat(format=one.format, precisions=one.precisions, max_opset=one.max_opset, release=one.release)
            for one in profile.formats
        ),
        refusals=tuple(
            Refusal(format=one.format, asked=one.asked, why=one.why, instead=one.instead) for one in profile.refuses
        ),
    )
