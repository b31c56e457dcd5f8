"""Device profiles for the commands: the loader's errors as errors of this project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from device_profiles import profiles, published
from device_profiles.profiles import Profile, UnknownProfile
from device_profiles.published import PublishedRow
from device_profiles.reader import ProfileError
from runtimes.errors import InputError, UsageError


def load_profile(device: str) -> Profile:
    """The profile of a device, or of parts joined with `+`.

    UsageError for an unknown one, with the nearest names; InputError for a profile file that is wrong.
    """
    with _translated():
        return profiles.load(device)


def published_row(setup: str) -> PublishedRow:
    """A row of the published table by id or setup; UsageError for an unknown one."""
    with _translated():
        return published.published_row(setup)


def all_profiles() -> list[Profile]:
    """Every single device; InputError for a profile file that is wrong."""
    with _translated():
        return [profiles.load(profile_id) for profile_id in profiles.profile_ids()]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except UnknownProfile as error:
        raise UsageError(error.message, error.hint) from None
    except ProfileError as error:
        raise InputError(error.message, error.hint) from None
