"""The registry: engines are found by their files, imported lazily, and missing ones named with their extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtimes import registry
from runtimes.errors import EngineMissingError, UsageError

ROOT = Path(__file__).parents[2]


def test_the_ids_are_the_files():
    files = {path.stem for path in (ROOT / "runtimes" / "engines").glob("*.py")} - {"__init__"}
    assert set(registry.engine_ids()) == files


def test_every_preferred_engine_opens_its_format():
    for model_format, name in registry.PREFERRED.items():
        assert model_format in registry.engine(name).formats
    opened = {model_format for name in registry.engine_ids() for model_format in registry.engine(name).formats}
    assert opened == set(registry.PREFERRED)


def test_an_unknown_engine_gets_the_nearest_name():
    with pytest.raises(UsageError, match="there is no engine 'onxruntime'") as caught:
        registry.tensor_engine("onxruntime")
    assert caught.value.hint == "did you mean 'onnxruntime'?"
    with pytest.raises(UsageError) as caught:
        registry.tensor_engine("zzz")
    assert "litert" in caught.value.hint


def test_the_preferred_engine_is_taken_then_any_other(monkeypatch):
    monkeypatch.setattr(registry, "is_installed", lambda adapter: True)
    assert registry.for_format("onnx").id == "onnxruntime"
    monkeypatch.setattr(registry, "is_installed", lambda adapter: adapter.id == "openvino")
    assert registry.for_format("onnx").id == "openvino"
    monkeypatch.setattr(registry, "is_installed", lambda adapter: False)
    with pytest.raises(EngineMissingError, match="'onnxruntime' is not installed") as caught:
        registry.for_format("onnx")
    assert "[onnxruntime]" in caught.value.hint


def test_a_wanted_engine_is_used_or_refused(monkeypatch):
    monkeypatch.setattr(registry, "is_installed", lambda adapter: adapter.id != "openvino")
    assert registry.for_format("onnx", "onnxruntime").id == "onnxruntime"
    with pytest.raises(UsageError, match="'litert' does not open the format 'onnx'") as caught:
        registry.for_format("onnx", "litert")
    assert caught.value.hint == "it opens: tflite"
    with pytest.raises(EngineMissingError):
        registry.for_format("onnx", "openvino")


def test_a_format_that_no_engine_opens_is_reported():
    with pytest.raises(UsageError, match="no engine opens the format 'wasm'"):
        registry.for_format("wasm")


def test_status_imports_no_engine():
    program = (
        "import sys\n"
        "from runtimes import registry\n"
        "found = [registry.status(name) for name in registry.engine_ids()]\n"
        "assert [one.id for one in found] == registry.engine_ids()\n"
        "assert all((one.version is not None) == one.installed for one in found)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    engines = {"onnxruntime", "ai_edge_litert", "tflite_runtime", "openvino", "keras", "tensorflow", "torch", "pycoral"}
    assert not engines & set(done.stdout.split())


def test_an_absent_parent_is_not_found():
    assert registry.is_found("json.decoder")
    assert not registry.is_found("json.absent")
    assert not registry.is_found("absent.module")


def test_the_version_of_the_first_distribution_that_is_there():
    assert registry.distribution_version("no-such-distribution", "pytest") == pytest.__version__
    assert registry.distribution_version("no-such-distribution") == "unknown"


def test_what_an_engine_lacks_beside_its_library_is_reported(monkeypatch):
    from runtimes.engines import edgetpu

    adapter = registry.tensor_engine("edgetpu")
    monkeypatch.setattr(registry, "is_installed", lambda _: True)
    monkeypatch.setattr(edgetpu, "is_found", lambda _: False)
    monkeypatch.setattr(type(adapter), "version", lambda _: "1")
    monkeypatch.setattr(edgetpu, "find_library", lambda _: None)
    assert registry.status("edgetpu").lacks == "libedgetpu"
    monkeypatch.setattr(edgetpu, "find_library", lambda _: "libedgetpu.so.1")
    assert registry.status("edgetpu").lacks == ""
    assert registry.status("null").lacks == ""
