import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_profiles.facts import Cpu, FormatSupport, Refusal
from device_profiles.reader import ProfileError, TomlTable, read_toml, suggestion

CPU = {"name": "Cortex-A53", "cores": 4, "isa": "armv8.0-a", "features": ["asimd"], "source": "https://a.b"}


def read_cpu(**changes: Any) -> Cpu | None:
    values = {key: value for key, value in {**CPU, **changes}.items() if value is not None}
    return TomlTable({"cpu": values}, "board.toml").group("cpu", Cpu.read)


def test_reads_a_table_into_a_value() -> None:
    assert read_cpu() == Cpu(
        name="Cortex-A53", cores=4, max_mhz=None, isa="armv8.0-a", features=("asimd",), source="https://a.b"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cores": None}, "board.toml: missing value in 'cpu.cores'"),
        ({"cores": "four"}, "board.toml: wrong type (text, not a whole number) in 'cpu.cores'"),
        ({"cores": True}, "board.toml: wrong type (true or false, not a whole number) in 'cpu.cores'"),
        ({"cores": 4.0}, "board.toml: wrong type (a number, not a whole number) in 'cpu.cores'"),
        ({"source": " "}, "board.toml: empty text in 'cpu.source'"),
        ({"features": "asimd"}, "board.toml: wrong type (text, not a list) in 'cpu.features'"),
        ({"features": ["asimd", 3]}, "board.toml: wrong type (a whole number, not text) in 'cpu.features[1]'"),
        ({"sorce": "https://a.b"}, "board.toml: unknown key in 'cpu.sorce'"),
    ],
)
def test_errors_carry_the_file_and_the_key_path(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError) as raised:
        read_cpu(**changes)
    assert raised.value.message == message


def test_an_unknown_key_is_answered_with_the_nearest_known_one() -> None:
    with pytest.raises(ProfileError) as raised:
        read_cpu(sorce="https://a.b")
    assert raised.value.hint.startswith("did you mean source")
    assert str(raised.value) == f"board.toml: unknown key in 'cpu.sorce' ({raised.value.hint})"


def test_a_missing_value_that_is_misspelt_is_found() -> None:
    with pytest.raises(ProfileError, match=r"missing value in 'cpu\.cores' \(is it core there\?\)"):
        read_cpu(cores=None, core=4)


def test_an_unknown_word_is_answered_with_the_nearest_known_one() -> None:
    formats = [{"format": "tflite", "precisions": ["int8", "fp8"], "source": "https://a.b"}]
    with pytest.raises(ProfileError) as raised:
        TomlTable({"formats": formats}, "board.toml").groups("formats", FormatSupport.read)
    assert raised.value.message == "board.toml: unknown word 'fp8' in 'formats[0].precisions[1]'"
    assert "fp16" in raised.value.hint


def test_a_list_of_words_may_not_be_empty() -> None:
    refusal = {"format": "tflite", "asked": [], "why": "a", "instead": "b", "source": "https://a.b"}
    with pytest.raises(ProfileError, match=r"empty list in 'refuses\[0\]\.asked'"):
        TomlTable({"refuses": [refusal]}, "board.toml").groups("refuses", Refusal.read)


def test_a_list_of_tables_holds_tables_only() -> None:
    with pytest.raises(ProfileError, match=r"wrong type \(text, not a table\) in 'formats\[0\]'"):
        TomlTable({"formats": ["tflite"]}, "board.toml").groups("formats", FormatSupport.read)


def test_a_whole_number_is_a_number() -> None:
    number = TomlTable({"usd": 35}, "board.toml").require("usd", float)
    assert (number, type(number)) == (35.0, float)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text("name = \n", encoding="utf-8")
    with pytest.raises(ProfileError, match=r"board\.toml: not valid TOML: .*line 1"):
        read_toml(path, Cpu.read)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match=r"board\.toml: not valid TOML"):
        read_toml(path, Cpu.read)


def test_without_a_near_name_all_are_listed() -> None:
    assert suggestion("xyz", ["b", "a"]) == "one of: a, b"


VALUES = st.text(max_size=5) | st.integers() | st.floats() | st.booleans() | st.lists(st.text(max_size=5), max_size=3)
TABLES = st.fixed_dictionaries({}, optional=dict.fromkeys((*CPU, "max_mhz", "other"), VALUES))


def read_or_message(values: dict[str, Any]) -> Cpu | str:
    try:
        return TomlTable(values, "board.toml").read(Cpu.read)
    except ProfileError as error:
        return error.message


@given(TABLES)
def test_whatever_a_table_holds_it_is_read_or_refused_with_a_path(values: dict[str, Any]) -> None:
    result = read_or_message({**CPU, **values})
    if isinstance(result, Cpu):
        assert "other" not in values
        assert result.cores == values.get("cores", CPU["cores"])
    else:
        assert re.fullmatch(r"board\.toml: .+ in '[a-z_]+(\[\d\])?'", result)


@given(st.integers() | st.floats())
def test_every_number_is_read_as_it_stands(value: float) -> None:
    read = TomlTable({"w": value}, "board.toml").require("w", float)
    assert read == float(value) or math.isnan(read)
