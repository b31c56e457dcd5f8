"""The contract of device profiles. A test class derives from `ProfileContract` and sets the profiles' folder."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from device_profiles.profiles import Profile, read_profile
from device_profiles.reader import TomlValue

# A URL, or a measurement with its place and month.
_SOURCE = re.compile(r"https?://|for this project, [A-Z][a-z]+ \d{4}")


class ProfileContract:
    """Tests of every TOML file in a folder.

    folder: The folder of the profiles.
    """

    folder: Path

    def test_every_profile_loads_under_a_plain_id(self) -> None:
        for profile in self._profiles():
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", profile.id), profile.id
            assert profile.formats, profile.id
            assert len({known.format for known in profile.formats}) == len(profile.formats), profile.id
            assert profile.accelerators or profile.kind != "accelerator", profile.id

    def test_every_group_of_facts_has_a_source(self) -> None:
        for path in self._files():
            for place, group in _groups(tomllib.loads(path.read_text(encoding="utf-8")), path.stem):
                assert _SOURCE.search(str(group.get("source", ""))), place

    def test_no_profile_refuses_what_it_takes(self) -> None:
        for profile in self._profiles():
            for refusal in profile.refuses:
                taken = profile.takes(refusal.format)
                assert taken is not None, f"{profile.id} refuses something in {refusal.format}, which it does not take"
                assert not set(refusal.asked) & set(taken.precisions), profile.id

    def _files(self) -> list[Path]:
        files = sorted(self.folder.glob("*.toml"))
        assert files, f"{self.folder} holds no profile"
        return files

    def _profiles(self) -> list[Profile]:
        return [read_profile(path) for path in self._files()]


def _groups(values: Mapping[str, TomlValue], path: str) -> Iterator[tuple[str, Mapping[str, TomlValue]]]:
    """Yield every table of a TOML file with its key path, beginning with the file itself."""
    yield path, values
    for key, value in values.items():
        for index, item in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(item, dict):
                yield from _groups(item, f"{path}.{key}[{index}]")
