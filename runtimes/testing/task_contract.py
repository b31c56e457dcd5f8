"""The contract of tasks. A test class derives from `TaskContract` and sets the task and example models.

    class TestClassification(TaskContract):
        task = ClassificationTask()
        examples = (TaskExample(model=..., outputs=..., different=...),)
        foreign = (ModelFacts("model.onnx", "onnx"),)

Any test runner that collects methods called `test_...` runs it; nothing here needs pytest.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from dataclasses import FrozenInstanceError, dataclass, is_dataclass, replace
from typing import Any, ClassVar, Iterator, Mapping, Sequence

import numpy as np

from runtimes.arrays import Array
from runtimes.model_files.facts import ModelFacts
from runtimes.task import Agreement, DecodeOptions, Decoder, Placement, Result, Task

_IMPORTED = {"numpy", "runtimes"}


@dataclass(frozen=True)
class TaskExample:
    """A model that the task recognizes.

    model: The model's facts.
    outputs: Its outputs for one input.
    different: Outputs for another input. The task must not consider their result equal to that of `outputs`.
    """

    model: ModelFacts
    outputs: Mapping[str, Array]
    different: Mapping[str, Array]


class TaskContract:
    """Tests of one task.

    task: The task.
    examples: Models that it recognizes, at least one for each of its decoders.
    foreign: Models that it must not recognize; empty only for a task that accepts every model.
    """

    task: ClassVar[Task[Any]]
    examples: ClassVar[Sequence[TaskExample]]
    foreign: ClassVar[Sequence[ModelFacts]] = ()

    def test_it_says_who_it_is(self) -> None:
        assert self.task.id.isidentifier()
        assert self.task.id == self.task.id.lower()
        assert self.task.__class__.__doc__
        assert all(decoder.__doc__ for decoder in self.task.decoders)

    def test_it_runs_on_a_board(self) -> None:
        """Its file imports only the standard library, numpy and `runtimes`."""
        tree = ast.parse(inspect.getsource(sys.modules[type(self.task).__module__]))
        known = getattr(sys, "stdlib_module_names", None)  # since Python 3.10
        if known is not None:
            own = type(self.task).__module__.split(".")[0]
            assert set(_imports(tree)) - set(known) - _IMPORTED - {own} == set()

    def test_each_decoder_knows_a_model(self) -> None:
        assert {type(decoder) for decoder in map(self._decoder, self.examples)} == set(self.task.decoders)

    def test_a_decoder_is_a_frozen_value_that_says_what_it_assumed(self) -> None:
        for example in self.examples:
            decoder = self._decoder(example)
            _check_frozen(decoder)
            assert isinstance(decoder.assumptions, tuple)
            assert all(isinstance(line, str) and line for line in decoder.assumptions)

    def test_models_of_other_tasks_are_left_to_them(self) -> None:
        assert [self.task.recognize(model) for model in self.foreign] == [None] * len(self.foreign)

    def test_a_model_is_not_recognized_by_its_files_name(self) -> None:
        for example in self.examples:
            renamed = replace(example.model, source="another_name.bin")
            assert self.task.recognize(renamed) == self._decoder(example)

    def test_results_are_frozen_values_with_strict_json(self) -> None:
        for example in self.examples:
            result = self._result(example, example.outputs)
            assert isinstance(result, Result)
            _check_frozen(result)
            assert json.loads(_json(result)) == result.to_json()

    def test_decoding_repeats_and_leaves_the_outputs_alone(self) -> None:
        for example in self.examples:
            outputs = {name: array.copy() for name, array in example.outputs.items()}
            for array in outputs.values():
                array.flags.writeable = False
            first, second = self._result(example, outputs), self._result(example, outputs)
            assert _json(first) == _json(second)
            for name, array in outputs.items():
                np.testing.assert_array_equal(array, example.outputs[name])

    def test_a_result_agrees_with_itself(self) -> None:
        for example in self.examples:
            result = self._result(example, example.outputs)
            agreement = self.task.compare(result, result)
            assert isinstance(agreement, Agreement)
            assert agreement.agrees
            assert agreement.message
            assert all(np.isfinite(value) for value in agreement.metrics.values())

    def test_a_different_result_is_told_apart(self) -> None:
        for example in self.examples:
            one, other = self._result(example, example.outputs), self._result(example, example.different)
            assert not self.task.compare(one, other).agrees
            assert "\n" not in self.task.compare(one, other).message

    def test_a_picture_that_fills_the_input_changes_no_place(self) -> None:
        same = Placement((64, 64), (1.0, 1.0), (0.0, 0.0))
        for example in self.examples:
            result = self._result(example, example.outputs)
            assert _json(result.in_picture(same)) == _json(result)

    def test_a_configured_decoder_is_of_the_same_class(self) -> None:
        for example in self.examples:
            decoder = self._decoder(example)
            assert type(decoder.configured(DecodeOptions(top=1))) is type(decoder)

    def _decoder(self, example: TaskExample) -> Decoder[Any]:
        decoder = self.task.recognize(example.model)
        assert decoder is not None, f"{example.model.source} is not recognized"
        return decoder

    def _result(self, example: TaskExample, outputs: Mapping[str, Array]) -> Result:
        result: Result = self.task.decode(outputs, self._decoder(example))
        return result


def _check_frozen(value: Any) -> None:
    assert is_dataclass(value)
    name = next(iter(value.__dataclass_fields__))
    try:
        setattr(value, name, None)
    except FrozenInstanceError:
        return
    raise AssertionError(f"{type(value).__name__} is not frozen")


def _json(result: Result) -> str:
    return json.dumps(result.to_json(), allow_nan=False, sort_keys=True)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
