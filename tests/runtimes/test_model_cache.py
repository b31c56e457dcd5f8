import os

import numpy as np
import pytest

from runtimes.artifact import Artifact
from runtimes.errors import InputError, UsageError
from runtimes.model_cache import ModelCache
from runtimes.registry import tensor_engine
from runtimes.session import RunOptions

FEEDS = {"x": np.ones(1, np.float32)}
NULL = tensor_engine("null")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.null"
    path.write_bytes(b"x")
    return path


def session_of(opened, path, options=None):
    with opened.using(Artifact.open(path), NULL, options or RunOptions()) as model:
        return model.session


def test_the_same_model_is_opened_once(model):
    opened = ModelCache()
    assert session_of(opened, model) is session_of(opened, model)


@pytest.mark.parametrize("options", [RunOptions(threads=2), RunOptions(device="cuda")])
def test_other_options_open_it_anew_and_close_the_first(model, options):
    opened = ModelCache()
    first = session_of(opened, model)
    assert session_of(opened, model, options) is not first
    with pytest.raises(UsageError, match="closed"):
        first.run(FEEDS)


def test_a_file_that_was_written_anew_is_opened_anew(model):
    opened = ModelCache()
    first = session_of(opened, model)
    os.utime(str(model), ns=(1, 1))
    assert session_of(opened, model) is not first


def test_after_an_error_it_is_opened_anew(model):
    opened = ModelCache()
    with pytest.raises(InputError), opened.using(Artifact.open(model), NULL, RunOptions()) as warm:
        warm.session.run({})
    with pytest.raises(UsageError, match="closed"):
        warm.session.run(FEEDS)
    assert session_of(opened, model) is not warm.session


def test_only_the_first_inference_is_one(model):
    opened = ModelCache()
    with opened.using(Artifact.open(model), NULL, RunOptions()) as warm:
        first = warm.warm_up(FEEDS)
    with opened.using(Artifact.open(model), NULL, RunOptions()) as warm:
        assert warm.warm_up(FEEDS) == first > 0


def test_closing_gives_back_what_is_open(model):
    opened = ModelCache()
    session = session_of(opened, model)
    opened.close()
    opened.close()
    with pytest.raises(UsageError, match="closed"):
        session.run(FEEDS)
