"""What every engine must do, held against each one that the folder of engines lists.

An engine is tried with the model in tests/runtimes/models that bears its name; it is skipped where its library is
not installed.
"""

from __future__ import annotations

import ast
import importlib.util
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

import runtimes.engines
from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.errors import EngineMissing, InputError, UsageError
from runtimes.session import RunOptions, concrete_shape, example_feeds

WEIGHTS = np.arange(-6, 6, dtype=np.float32).reshape(4, 3)
HERE = Path(__file__).parent
# Engines of language models have a contract of their own: test_text_contract.py.
ENGINES = [name for name in registry.runtime_ids() if hasattr(registry.engine(name), "open")]


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
    adapter = registry.runtime(request.param)
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
    adapter = registry.runtime(name)
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
    assert not roots & {word.split(".")[0] for word in registry.runtime(name).requires.split("|")}


@pytest.mark.parametrize("name", [name for name in ENGINES if registry.runtime(name).requires])
def test_a_missing_engine_names_its_extra(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(EngineMissing) as caught:
        registry.runtime(name).open(Artifact.open(model_of(name)), RunOptions())
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


def test_answers_are_right_and_fit_their_specs(session):
    feeds = feeds_for(session)
    outputs = session.run(feeds)
    assert_right(feeds, outputs)
    assert set(outputs) == {spec.name for spec in session.outputs}
    for spec in session.outputs:
        assert outputs[spec.name].dtype == spec.dtype
        assert outputs[spec.name].shape == concrete_shape(spec)
        assert type(outputs[spec.name]) is np.ndarray


def test_a_free_dimension_takes_any_size(session):
    if all(isinstance(size, int) for spec in session.inputs for size in spec.shape):
        pytest.skip("the model has no free dimension")
    for batch in (3, 1, 5):
        feeds = feeds_for(session, batch=batch)
        assert_right(feeds, session.run(feeds))


def test_feeds_may_be_read_only_strided_and_in_any_order(session):
    feeds = feeds_for(session)
    awkward = {}
    for name, array in reversed(list(feeds.items())):
        awkward[name] = np.repeat(array, 2, axis=-1)[..., ::2]
        awkward[name].flags.writeable = False
    assert_right(feeds, session.run(awkward))


def test_the_same_feeds_give_the_same_bytes(session):
    feeds = feeds_for(session)
    first, second = session.run(feeds), session.run(feeds)
    for name, array in first.items():
        assert array.tobytes() == second[name].tobytes()


def test_outputs_belong_to_the_caller(session):
    feeds = feeds_for(session)
    first = session.run(feeds)
    kept = {name: array.copy() for name, array in first.items()}
    given = {name: array.copy() for name, array in feeds.items()}
    session.run(feeds_for(session, seed=1))
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        array[...] = 77
    for name, array in feeds.items():
        np.testing.assert_array_equal(array, given[name])
    assert_right(feeds, session.run(feeds))


def test_several_threads_get_their_own_answers(session):
    problems = []

    def work(seed):
        feeds = feeds_for(session, seed)
        try:
            for _ in range(10):
                assert_right(feeds, session.run(feeds))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def refused(session, feeds):
    with pytest.raises(InputError) as caught:
        session.run(feeds)
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.hint
    return caught.value.message


def test_a_missing_input_is_refused(session):
    feeds = feeds_for(session)
    name, _ = feeds.popitem()
    assert refused(session, feeds) == f"input '{name}' is missing"


def test_an_unknown_input_is_refused(session):
    feeds = feeds_for(session)
    feeds["nobody"] = np.zeros(1, np.float32)
    assert refused(session, feeds) == "the model has no input 'nobody'"


def test_a_wrong_dtype_is_refused(session):
    feeds = feeds_for(session)
    name = next(iter(feeds))
    feeds[name] = feeds[name].astype(np.float64)
    assert f"input '{name}' is float64" in refused(session, feeds)


@pytest.mark.parametrize("change", [lambda a: a[..., :-1], lambda a: a[np.newaxis], lambda a: a.reshape(-1)[0]])
def test_a_wrong_shape_is_refused(session, change):
    feeds = feeds_for(session)
    name = next(iter(feeds))
    feeds[name] = np.asarray(change(feeds[name]))
    assert f"input '{name}' is float32[" in refused(session, feeds)


def test_a_closed_session_says_so(engine, artifact):
    session = engine.open(artifact, RunOptions())
    feeds = example_feeds(session.inputs)
    session.run(feeds)
    session.close()
    session.close()
    with pytest.raises(UsageError, match="the session is closed"):
        session.run(feeds)


def test_a_model_is_opened_twice_at_once(engine, artifact):
    with engine.open(artifact, RunOptions()) as one, engine.open(artifact, RunOptions()) as two:
        feeds = feeds_for(one)
        one.close()
        assert_right(feeds, two.run(feeds))


def test_an_unknown_setting_is_refused(engine, artifact):
    with pytest.raises(UsageError, match=f"{engine.id} has no setting 'colour'"):
        engine.open(artifact, RunOptions(settings={"colour": "red"}))


def test_an_unknown_word_for_a_setting_is_refused(engine, artifact):
    for name in engine.settings:
        with pytest.raises(UsageError, match=f"{name} is 'perhaps'"):
            engine.open(artifact, RunOptions(settings={name: "perhaps"}))


def test_an_unknown_device_is_refused(engine, artifact):
    if engine.id == "null":
        pytest.skip("null runs nowhere")
    with pytest.raises(UsageError, match=f"{engine.id} has no device 'abacus'"):
        engine.open(artifact, RunOptions(device="abacus"))


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
