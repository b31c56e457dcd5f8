"""The Edge TPU without a chip: clear errors if the library or the stick is missing."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest

from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.engines import edgetpu
from runtimes.errors import EngineError, EngineMissingError, InputError, UsageError
from runtimes.session import RunOptions


@pytest.fixture
def model(models):
    return Artifact.open(models / "edgetpu_edgetpu.tflite")


@pytest.fixture
def interpreter(monkeypatch):
    """A LiteRT whose delegate says what libedgetpu says without a stick."""

    def load_delegate(library, options):
        raise ValueError(f"Failed to load delegate from {library}")

    module = SimpleNamespace(load_delegate=load_delegate)
    monkeypatch.setattr(edgetpu, "interpreter_module", lambda adapter: module)
    monkeypatch.setattr(edgetpu, "is_found", lambda name: False)
    return module


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def open_it(model, **options):
    return registry.tensor_engine("edgetpu").open(model, RunOptions(**options))


def test_a_missing_library_is_named_with_where_to_get_it(model, interpreter, monkeypatch):
    said = "libedgetpu.so.1: cannot open shared object file: No such file or directory"
    monkeypatch.setattr(ctypes, "CDLL", raising(OSError(said)))
    with pytest.raises(EngineMissingError, match=r"library is missing: libedgetpu\.so\.1") as caught:
        open_it(model)
    assert "libedgetpu1-std" in caught.value.hint


def test_a_library_that_does_not_load_says_why(model, interpreter, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", raising(OSError("libedgetpu.so.1: undefined symbol: usb_x")))
    with pytest.raises(EngineError, match=r"cannot be loaded: .* undefined symbol: usb_x"):
        open_it(model)


def test_a_missing_stick_is_reported(model, interpreter, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    with pytest.raises(EngineError, match="no Edge TPU found") as caught:
        open_it(model)
    assert "1a6e:089a" in caught.value.hint
    assert not isinstance(caught.value, EngineMissingError)


def test_the_device_reaches_the_delegate(model, interpreter, monkeypatch):
    asked = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(interpreter, "load_delegate", lambda library, options: asked.append(options))
    monkeypatch.setattr(edgetpu, "open_model", lambda *arguments: arguments)
    for device in ("cpu", "usb:1"):
        open_it(model, device=device)
    assert asked == [{}, {"device": "usb:1"}]


def test_pycoral_without_a_stick_says_so(model, pycoral):
    pycoral.list_edge_tpus = list
    with pytest.raises(EngineError, match="no Edge TPU found"):
        open_it(model)


def test_an_error_of_pycoral_names_the_file(model, pycoral):
    pycoral.make_interpreter = raising(RuntimeError("Model provided has model identifier 'x'"))
    with pytest.raises(InputError, match=r"edgetpu_edgetpu\.tflite: Model provided has"):
        open_it(model)


@pytest.mark.parametrize(
    ("said", "there"),
    [
        ("(14), which is newer than this runtime version (13).", "13"),
        ("(14)", "an older one"),
    ],
)
def test_a_runtime_that_is_too_old_for_the_model_is_reported(model, pycoral, said, there):
    words = f"Failed to prepare for TPU. Failed precondition: Package requires runtime version {said}"
    pycoral.make_interpreter = raising(RuntimeError(words))
    with pytest.raises(EngineError, match=f"needs the Edge TPU runtime 14; libedgetpu has {there}") as caught:
        open_it(model)
    assert "libedgetpu1-std" in caught.value.hint
    assert "--min_runtime_version 13" in caught.value.hint


def test_the_library_tells_its_runtimes_version(monkeypatch):
    label = b"BuildLabel(COMPILER=6.3.0, DATE=redacted), RuntimeVersion(14)"

    class Version:
        restype = None

        def __call__(self):
            return label

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(edgetpu_version=Version()))
    assert edgetpu.runtime_version() == 14
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    assert edgetpu.runtime_version() is None
    monkeypatch.setattr(ctypes, "CDLL", raising(OSError("no such file")))
    assert edgetpu.runtime_version() is None


def test_the_unrelated_pycoral_does_not_count(monkeypatch):
    monkeypatch.delitem(sys.modules, "pycoral", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", raising(ModuleNotFoundError("No module named 'pycoral.utils'")))
    assert not registry.is_found("pycoral.utils.edgetpu")


def test_a_model_that_was_not_compiled_is_refused(models, tmp_path, pycoral: ModuleType):
    plain = tmp_path / "plain_edgetpu.tflite"
    plain.write_bytes((models / "litert.tflite").read_bytes())
    with pytest.raises(InputError, match="was not compiled for the Edge TPU"):
        open_it(Artifact.open(plain))


@pytest.mark.parametrize("device", ["gpu", "usb:", "usb:x", "tpu"])
def test_an_unknown_device_is_refused(model, device):
    with pytest.raises(UsageError, match=f"no device '{device}'"):
        open_it(model, device=device)
