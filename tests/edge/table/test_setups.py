from __future__ import annotations

from typing import Any

import pytest

from converters.browser.engines import ENGINES
from edge.table.recipes import BY_ID, RECIPES, with_sources
from edge.table.setups import absent_devices, setups_for, setups_in_browser, setups_of_board
from runtimes import registry


def machine(cores: int = 4, saturates: bool = False, gpus: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "cpu": {"usable_cores": cores, "int8_saturates": saturates},
        "accelerators": {"nvidia_gpus": list(gpus)},
    }


def ids(**facts: Any) -> list[str]:
    return [setup.id for setup in setups_for(machine(**facts), ())]


def test_every_engine_is_measured_with_one_thread_and_with_all() -> None:
    found = ids(cores=4)
    for name in ("onnxruntime-fp32", "tflite-fp32", "tflite-int8", "openvino-fp32", "openvino-fp16", "openvino-int8"):
        assert f"{name}-1t" in found
        assert f"{name}-4t" in found


def test_one_core_is_measured_once() -> None:
    found = ids(cores=1)
    assert "onnxruntime-fp32-1t" in found
    assert len(found) == len(set(found))
    assert all(name.endswith("-1t") for name in found)


def test_the_published_way_is_a_default_with_all_threads_only() -> None:
    defaults = {setup.id for setup in setups_for(machine(cores=4), ()) if setup.default}
    assert "keras-predict-4t" in defaults
    assert "keras-predict-1t" not in defaults


@pytest.mark.parametrize("saturates", [False, True])
def test_saturating_kernels_are_shown_where_the_cpu_has_them(saturates: bool) -> None:
    assert ("openvino-int8-fast-4t" in ids(saturates=saturates)) is saturates


def test_a_gpu_adds_its_setups_and_removes_its_absent_row() -> None:
    here = machine(gpus=("NVIDIA GeForce GTX 1080",))
    assert {"torch-cuda", "onnxruntime-cuda", "onnxruntime-tensorrt"} <= {s.id for s in setups_for(here, ())}
    assert [row.id for row in absent_devices(here, ())] == ["coral-usb"]


def test_a_jetson_adds_tensorrt_and_removes_the_absent_row_of_gpus() -> None:
    (brought,) = {s.id for s in setups_for(machine(), {"jetson"})} - {s.id for s in setups_for(machine(), ())}
    assert brought == "tensorrt-fp16"
    assert [row.id for row in absent_devices(machine(), {"jetson"})] == ["coral-usb"]


def test_a_jetson_is_measured_with_tensorrt_unless_others_are_named() -> None:
    board = {**machine(), "os": {"emulated": False}}
    defaults = {setup.id for setup in setups_of_board("nano", board, {"jetson"}) if setup.default}
    assert "tensorrt-fp16@nano" in defaults
    assert not any(name.startswith("torch") for name in defaults)


def test_a_coral_stick_adds_its_setup_and_removes_its_absent_row() -> None:
    assert "coral-usb" in {setup.id for setup in setups_for(machine(), {"coral-usb"})}
    assert [row.id for row in absent_devices(machine(), {"coral-usb"})] == ["cuda"]


def test_every_setup_names_a_recipe_and_an_engine() -> None:
    native = setups_for(machine(saturates=True, gpus=("any",)), {"coral-usb", "jetson"})
    in_browser, _ = setups_in_browser("chromium")
    assert {setup.artifact for setup in (*native, *in_browser)} <= set(BY_ID)
    assert {setup.runtime for setup in native} <= set(registry.engine_ids())
    assert {setup.runtime for setup in in_browser} <= set(ENGINES)


def test_a_browser_adds_its_setup_and_removes_its_absent_row() -> None:
    setups, missing = setups_in_browser("chromium")
    assert [setup.id for setup in setups] == ["browser-tflite-int8-1t"]
    assert missing == []
    setups, missing = setups_in_browser(None)
    assert setups == []
    assert [(row.id, row.needs) for row in missing] == [("browser", "Chromium or Chrome (none found)")]


def test_recipes_stand_behind_what_they_are_made_from() -> None:
    order = [recipe.id for recipe in RECIPES]
    for recipe in RECIPES:
        assert recipe.source is None or order.index(recipe.source) < order.index(recipe.id)


def test_a_recipe_includes_all_its_sources() -> None:
    assert [recipe.id for recipe in with_sources(["openvino-int8"])] == ["keras-fp32", "onnx-fp32", "openvino-int8"]
    assert [recipe.id for recipe in with_sources(["edgetpu-2019"])] == ["tflite-2019", "edgetpu-2019"]
