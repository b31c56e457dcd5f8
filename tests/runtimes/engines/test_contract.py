"""What every engine must do, held against each one that the folder of engines lists.

An engine is tried with the model in tests/runtimes/models that bears its name; it is skipped where its library is
not installed.
"""

from __future__ import annotations

import ast
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

import runtimes.engines
from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.errors import EngineMissingError, InputError
from runtimes.session import RunOptions, TensorEngine, concrete_shape
from runtimes.testing.engine_contract import EngineContract

WEIGHTS = np.arange(-6, 6, dtype=np.float32).reshape(4, 3)
HERE = Path(__file__).parents[1]
# Engines of language models have a contract of their own: tests/runtimes/llm/test_engine_contract.py.
ENGINES = [name for name in registry.engine_ids() if isinstance(registry.engine(name), TensorEngine)]


def model_of(engine):
    found = [path for path in (HERE / "models").glob(f"{engine}[._]*") if path.suffix != ".bin"]
    return found[0] if found else HERE / "models" / engine


def expected(feeds):
    """{width of an output: its values}; the models' inputs are told apart by their width too."""
    by_width = {array.shape[-1]: array for array in feeds.values()}
    if 1 in by_width:
        return by_width
    return {3: by_width[4] @ WEIGHTS + by_width[3], 4: by_width[4] * 2}


def feeds_for(session, seed=0, batch=1):
    generator = np.random.default_rng(seed)
    shapes = {spec.name: concrete_shape(spec, batch) for spec in session.inputs}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def assert_right(feeds, outputs):
    for array in outputs.values():
        np.testing.assert_allclose(array, expected(feeds)[array.shape[-1]], rtol=1e-5, atol=1e-5)


@pytest.fixture(params=ENGINES)
def engine(request):
    if request.param == "edgetpu":
        request.getfixturevalue("pycoral")
    if request.param == "tensorrt":
        request.getfixturevalue("play")()
    adapter = registry.tensor_engine(request.param)
    if not registry.is_installed(adapter):
        pytest.skip(f"{adapter.id} is not installed")
    return adapter


@pytest.fixture
def artifact(engine):
    return Artifact.open(model_of(engine.id))


@pytest.fixture
def session(engine, artifact):
    with engine.open(artifact, RunOptions()) as session:
        yield session


@pytest.mark.parametrize("name", ENGINES)
def test_the_adapter_says_who_it_is(name):
    adapter = registry.tensor_engine(name)
    assert adapter.id == name
    assert adapter.formats
    assert all(" " in meaning for meaning in adapter.settings.values())
    assert model_of(name).exists(), f"give {name} a model that its contract can be tested with"
    assert adapter.__class__.__doc__
    assert adapter.open.__doc__


@pytest.mark.parametrize("name", ENGINES)
def test_the_engine_is_imported_by_functions_only(name):
    text = (Path(runtimes.engines.__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
    imports = [node for node in ast.parse(text).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    roots = {
        name.split(".")[0]
        for node in imports
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module])
    }
    assert not roots & {word.split(".")[0] for word in registry.tensor_engine(name).requires.split("|")}


@pytest.mark.parametrize("name", [name for name in ENGINES if registry.tensor_engine(name).requires])
def test_a_missing_engine_names_its_extra(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(EngineMissingError) as caught:
        registry.tensor_engine(name).open(Artifact.open(model_of(name)), RunOptions())
    assert caught.value.hint == registry.install_hint(name)


def test_it_says_its_version(engine):
    assert engine.version()[0].isdigit() or engine.id in ("edgetpu", "tensorrt")  # played ones have no wheel


def test_specs_are_numpys(session):
    for spec in (*session.inputs, *session.outputs):
        assert np.dtype(spec.dtype).name == spec.dtype == "float32"
        assert isinstance(spec.name, str)
        assert spec.name
        assert all(type(size) in (int, str) for size in spec.shape)
        assert spec.quantization is None
    widths = sorted(spec.shape[-1] for spec in session.inputs)
    assert widths in ([3, 4], [1])
    assert sorted(spec.shape[-1] for spec in session.outputs) == widths


def test_a_free_dimension_takes_any_size(session):
    if all(isinstance(size, int) for spec in session.inputs for size in spec.shape):
        pytest.skip("the model has no free dimension")
    for batch in (3, 1, 5):
        feeds = feeds_for(session, batch=batch)
        assert_right(feeds, session.run(feeds))


class TestEngine(EngineContract):
    """The suite that extensions run too, with each engine of the folder."""

    @pytest.fixture(autouse=True)
    def _choose(self, engine):
        self.engine, self.model = engine, model_of(engine.id)
        self.has_devices = engine.id != "null"

    def feeds(self, session, seed=0):
        return feeds_for(session, seed)

    def expected(self, feeds):
        raise NotImplementedError("the models' outputs are told apart by their width")

    def check_outputs(self, feeds, outputs):
        assert_right(feeds, outputs)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_one_line_that_names_it(engine, artifact, tmp_path, keep):
    if engine.id in ("null", "edgetpu"):
        pytest.skip("its model holds nothing that could be cut off")
    broken = copied(artifact.model, tmp_path)
    main = broken / "saved_model.pb" if broken.is_dir() else broken
    main.write_bytes(main.read_bytes()[: int(keep * main.stat().st_size)])
    refused_to_open(engine, broken)


def test_random_bytes_are_one_line_that_names_the_file(engine, artifact, tmp_path):
    if engine.id in ("null", "edgetpu"):
        pytest.skip("its model holds any bytes")
    broken = copied(artifact.model, tmp_path)
    main = broken / "saved_model.pb" if broken.is_dir() else broken
    noise = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8).tobytes()
    main.write_bytes(main.read_bytes()[:8] + noise)
    refused_to_open(engine, broken)


def copied(model, folder):
    if model.is_dir():
        return Path(shutil.copytree(model, folder / model.name))
    for path in model.parent.glob(f"{model.stem}.*"):
        shutil.copy(path, folder)
    return folder / model.name


def refused_to_open(engine, path):
    with pytest.raises(InputError) as caught:
        engine.open(Artifact.open(path), RunOptions())
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.hint
