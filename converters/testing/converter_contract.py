"""The contract suite of converters: a test class derives from `ConverterContract` and provides a converter and a model.

    class TestMyConverter(ConverterContract):
        converter = OnnxToMine()

        def source(self, folder):
            return small_model(folder / "small.onnx")

Engines for the source and the target format must be installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.base import Converter
from converters.calibration.dataset import Calibration
from converters.options import ConvertOptions
from runtimes.arrays import Array, Arrays, save_arrays
from runtimes.artifact import Artifact
from runtimes.errors import EngineMissingError, InputError, UsageError
from runtimes.registry import open_session
from runtimes.session import example_feeds
from runtimes.tensors import dequantize, quantize
from runtimes.testing.engine_contract import caught

if TYPE_CHECKING:
    import pytest

# The largest allowed difference of an output, per precision.
_LIMITS: Mapping[str, float] = {"fp32": 1e-5, "fp16": 2e-3, "w8": 0.03, "int8": 0.05}
_SEEDS = range(4)

# Arguments: the converter's module, its class, the precision, the source, the folder, and a file of samples or "".
_CONVERT = """
import sys
from importlib import import_module
from pathlib import Path
import numpy as np
from converters.calibration.dataset import Calibration
module, name, precision, source, out, samples = sys.argv[1:]
converter = getattr(import_module(module), name)()
calibration = Calibration(dict(np.load(samples))) if samples else None
converter.convert(Path(source), Path(out), converter.Options(precision=precision), calibration)
"""


class ConverterContract:
    """Tests of one converter with one small model, which must answer differently to different inputs.

    converter: The converter. Its class is at the top of a module, so that another process can import it.
    calibration: Samples for int8.
    limits: The largest allowed difference from the source's outputs, per precision.
    """

    converter: Converter
    calibration: Calibration | None = None
    limits: Mapping[str, float] = _LIMITS

    def source(self, folder: Path) -> Path:
        """Write a small model in the converter's source format into `folder`, and return its path."""
        raise NotImplementedError("the test class must provide a model")

    def answers(self, model: Path) -> list[Array]:
        """Return the real outputs [n, *shape], in the model's order, for n inputs that are the same in every format."""
        with open_session(Artifact.open(model)) as session:
            rows = []
            real_inputs = [replace(spec, dtype="float32", quantization=None) for spec in session.inputs]
            for seed in _SEEDS:
                real = example_feeds(real_inputs, seed)
                feeds: Arrays = {spec.name: quantize(real[spec.name], spec) for spec in session.inputs}
                outputs = session.run(feeds)
                rows.append([dequantize(outputs[spec.name], spec.quantization) for spec in session.outputs])
        return [np.stack(one) for one in zip(*rows, strict=True)]

    def convert_elsewhere(self, source: Path, folder: Path, precision: str) -> Path:
        """Convert the source in another process, and return the folder with the result."""
        samples = folder.with_suffix(".npz")
        if self.calibration is not None:
            save_arrays(samples, self.calibration.samples)
        kind = type(self.converter)
        words = (kind.__module__, kind.__qualname__, precision, source, _new_folder(folder))
        command = [sys.executable, "-c", _CONVERT, *map(str, words), str(samples) if self.calibration else ""]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return folder

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run the tests that take a precision in each one that the converter writes."""
        if "precision" in metafunc.fixturenames:
            metafunc.parametrize("precision", self.converter.precisions)

    def test_it_says_what_it_does(self) -> None:
        assert self.converter.id == f"{self.converter.source}_to_{self.converter.target}"
        assert self.converter.precisions
        assert type(self.converter).__doc__
        assert all(requirement.module for requirement in self.converter.requires)

    def test_its_options_are_a_frozen_dataclass_with_defaults(self) -> None:
        kind = self.converter.Options
        assert issubclass(kind, ConvertOptions)
        assert is_dataclass(kind)
        assert all(field.kw_only or field.name == "precision" for field in fields(kind))
        assert kind() == kind()

    def test_it_answers_as_its_source_and_writes_the_same_bytes_in_every_process(
        self, precision: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        source, out = self.source(_new_folder(tmp_path / "source")), _new_folder(tmp_path / "out")
        capfd.readouterr()
        result = self._convert(source, out, precision)
        assert capfd.readouterr() == ("", "")
        assert result.parent == out
        assert _digests(out) == _digests(self.convert_elsewhere(source, tmp_path / "elsewhere", precision))
        expected = self.answers(source)
        assert any(np.ptp(one, axis=0).max() > 0 for one in expected), "the model ignores its inputs"
        for right, output in zip(expected, self.answers(result), strict=True):
            assert np.abs(right - output).max() <= self.limits[precision]

    def test_an_unknown_precision_is_refused_with_those_it_knows(self, tmp_path: Path) -> None:
        error = caught(UsageError, lambda: self._convert(tmp_path / "x", tmp_path, "int3"))
        assert f"{self.converter.id} cannot write int3" in error.message
        assert self.converter.precisions[0] in error.hint

    def test_int8_needs_calibration_data(self, tmp_path: Path) -> None:
        if "int8" not in self.converter.precisions or self.converter.reads("int8") == "int8":
            return
        source, options = (
            self.source(_new_folder(tmp_path / "source")),
            replace(self.converter.Options(), precision="int8"),
        )
        error = caught(UsageError, lambda: self.converter.convert(source, tmp_path, options, None))
        assert "needs calibration data" in error.message
        assert "--calibration" in error.hint

    def test_a_broken_model_is_named_and_leaves_nothing(self, tmp_path: Path) -> None:
        broken, out = tmp_path / f"broken.{self.converter.source}", _new_folder(tmp_path / "out")
        broken.write_bytes(np.random.default_rng(0).bytes(3000))
        error = caught(InputError, lambda: self._convert(broken, out, self.converter.precisions[0]))
        assert broken.name in error.message
        assert "\n" not in error.message
        assert list(out.iterdir()) == []

    def test_a_missing_library_names_the_extra_that_installs_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        precision = self.converter.precisions[0]
        for requirement in self.converter.requires:
            hidden = requirement.module
            monkeypatch.setattr("importlib.util.find_spec", lambda name, x=hidden: None if name == x else object())
            error = caught(EngineMissingError, lambda: self._convert(tmp_path / "x", tmp_path, precision))
            assert f"needs '{hidden}'" in error.message
            assert error.hint.startswith("pip install")

    def _convert(self, source: Path, out: Path, precision: str) -> Path:
        options = replace(self.converter.Options(), precision=precision)
        return self.converter.convert(source, out, options, self.calibration).model


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _new_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder
