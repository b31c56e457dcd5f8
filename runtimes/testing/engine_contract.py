"""The contract of tensor engines. A test class derives from `EngineContract` and sets `engine` and `model`.

class TestMyEngine(EngineContract):
    engine = Adapter()
    model = Path(__file__).parent / "small.model"

    def expected(self, feeds):
        return {"y": feeds["x"] * 2}
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, Mapping, TypeVar

import numpy as np

from runtimes.arrays import Array, Arrays
from runtimes.artifact import Artifact
from runtimes.errors import EdgeError, InputError, UsageError
from runtimes.session import RunOptions, Session, TensorEngine, concrete_shape, example_feeds

E = TypeVar("E", bound=EdgeError)

_THREADS, _RUNS = 4, 10


class EngineContract:
    """Tests of one engine with one small model.

    engine: The engine.
    model: A model file that it opens.
    tolerance: How far an output may be from `expected`.
    has_devices: Whether it has devices; the engine that does nothing has none.
    """

    engine: TensorEngine
    model: Path
    tolerance: float = 1e-5
    has_devices: bool = True

    def expected(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the expected outputs by the engine's names."""
        raise NotImplementedError("a contract's test class says what is right")

    def feeds(self, session: Session, seed: int = 0) -> Arrays:
        """Return valid random feeds for a seed."""
        return example_feeds(session.inputs, seed)

    def test_it_says_who_it_is(self) -> None:
        assert self.engine.id.isidentifier()
        assert self.engine.formats
        assert all(" " in meaning for meaning in self.engine.settings.values())
        assert type(self.engine).__doc__
        assert self.engine.open.__doc__
        assert self.engine.version()

    def test_specs_are_numpys(self) -> None:
        with self._session() as session:
            for spec in (*session.inputs, *session.outputs):
                assert np.dtype(spec.dtype).name == spec.dtype
                assert isinstance(spec.name, str)
                assert spec.name
                assert all(type(size) in (int, str) for size in spec.shape)

    def test_answers_are_right_and_fit_their_specs(self) -> None:
        with self._session() as session:
            feeds = self.feeds(session)
            outputs = session.run(feeds)
            self.check_outputs(feeds, outputs)
            assert set(outputs) == {spec.name for spec in session.outputs}
            for spec in session.outputs:
                assert outputs[spec.name].dtype == spec.dtype
                assert outputs[spec.name].shape == concrete_shape(spec)
                assert type(outputs[spec.name]) is np.ndarray

    def test_feeds_may_be_read_only_strided_and_in_any_order(self) -> None:
        with self._session() as session:
            feeds = self.feeds(session)
            awkward = {}
            for name, array in reversed(list(feeds.items())):
                awkward[name] = np.repeat(array, 2, axis=-1)[..., ::2]
                awkward[name].flags.writeable = False
            self.check_outputs(feeds, session.run(awkward))

    def test_the_same_feeds_give_the_same_bytes(self) -> None:
        with self._session() as session:
            feeds = self.feeds(session)
            first, second = session.run(feeds), session.run(feeds)
            for name, array in first.items():
                assert array.tobytes() == second[name].tobytes()

    def test_outputs_belong_to_the_caller(self) -> None:
        with self._session() as session:
            feeds = self.feeds(session)
            first = session.run(feeds)
            kept = {name: array.copy() for name, array in first.items()}
            given = {name: array.copy() for name, array in feeds.items()}
            session.run(self.feeds(session, seed=1))
            for name, array in first.items():
                np.testing.assert_array_equal(array, kept[name])
                array[...] = 77
            for name, array in feeds.items():
                np.testing.assert_array_equal(array, given[name])
            self.check_outputs(feeds, session.run(feeds))

    def test_several_threads_get_their_own_answers(self) -> None:
        with self._session() as session:
            problems: list[BaseException] = []

            def work(seed: int) -> None:
                feeds = self.feeds(session, seed)
                try:
                    for _ in range(_RUNS):
                        self.check_outputs(feeds, session.run(feeds))
                except BaseException as error:
                    problems.append(error)

            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(_THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not problems

    def test_a_missing_input_is_refused(self) -> None:
        with self._session() as session:
            feeds = self.feeds(session)
            name, _ = feeds.popitem()
            assert _refusal_of_feeds(session, feeds) == f"input '{name}' is missing"

    def test_an_unknown_input_is_refused(self) -> None:
        with self._session() as session:
            feeds = {**self.feeds(session), "nobody": np.zeros(1, np.float32)}
            assert _refusal_of_feeds(session, feeds) == "the model has no input 'nobody'"

    def test_a_wrong_dtype_is_refused(self) -> None:
        with self._session() as session:
            feeds = self.feeds(session)
            name = next(iter(feeds))
            feeds[name] = feeds[name].astype(np.float64)
            assert f"input '{name}' is float64" in _refusal_of_feeds(session, feeds)

    def test_a_wrong_shape_is_refused(self) -> None:
        changes: list[Callable[[Array], Array]] = [
            lambda array: array[..., :-1],
            lambda array: array[np.newaxis],
            lambda array: np.asarray(array.reshape(-1)[0]),
        ]
        with self._session() as session:
            name, array = next(iter(self.feeds(session).items()))
            for change in changes:
                feeds = {**self.feeds(session), name: np.asarray(change(array))}
                assert f"input '{name}' is {array.dtype.name}[" in _refusal_of_feeds(session, feeds)

    def test_a_closed_session_says_so(self) -> None:
        session = self.engine.open(Artifact.open(self.model), RunOptions())
        feeds = self.feeds(session)
        session.run(feeds)
        session.close()
        session.close()
        assert "the session is closed" in caught(UsageError, lambda: session.run(feeds)).message

    def test_a_model_is_opened_twice_at_once(self) -> None:
        with self._session() as one, self._session() as two:
            feeds = self.feeds(one)
            one.close()
            self.check_outputs(feeds, two.run(feeds))

    def test_an_unknown_setting_is_refused(self) -> None:
        options = RunOptions(settings={"color": "red"})
        assert f"{self.engine.id} has no setting 'color'" in self._refusal_of_options(options)

    def test_an_unknown_word_for_a_setting_is_refused(self) -> None:
        for name in self.engine.settings:
            assert f"{name} is 'perhaps'" in self._refusal_of_options(RunOptions(settings={name: "perhaps"}))

    def test_an_unknown_device_is_refused(self) -> None:
        if self.has_devices:
            assert f"{self.engine.id} has no device 'abacus'" in self._refusal_of_options(RunOptions(device="abacus"))

    @contextmanager
    def _session(self) -> Iterator[Session]:
        session = self.engine.open(Artifact.open(self.model), RunOptions())
        try:
            yield session
        finally:
            session.close()

    def check_outputs(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Compare outputs with `expected`."""
        for name, right in self.expected(feeds).items():
            np.testing.assert_allclose(outputs[name], right, rtol=self.tolerance, atol=self.tolerance)

    def _refusal_of_options(self, options: RunOptions) -> str:
        return caught(UsageError, lambda: self.engine.open(Artifact.open(self.model), options)).message


def _refusal_of_feeds(session: Session, feeds: Mapping[str, Array]) -> str:
    error = caught(InputError, lambda: session.run(feeds))
    assert "\n" not in error.message + error.hint
    assert error.hint
    return error.message


def caught(kind: type[E], call: Callable[[], object]) -> E:
    """Return the error of this kind that the call raises. Raises AssertionError if it raises none."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")
