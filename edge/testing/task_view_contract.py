"""Contract tests for views of task results: derive a test class from `TaskViewContract` and define examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from edge.tasks import Metrics, TaskView
from runtimes.errors import EdgeError, EngineMissingError, UsageError
from runtimes.task import Result

_SIZES = ((8, 8), (640, 480))


class TaskViewContract:
    """Tests of one view.

    view: The view.
    results: Results of its task, each with its correct label; None if the task has no labels.
    """

    view: ClassVar[TaskView[Any, Any]]
    results: ClassVar[Sequence[tuple[Result, Any]]]

    def test_its_words_are_plain_lines(self) -> None:
        for result, _ in self.results:
            text = self.view.describe(result)
            assert text.strip()
            assert not text.endswith("\n")
            assert all(character == "\n" or character.isprintable() for character in text)

    def test_its_row_is_strict_json_beside_the_usual_keys(self) -> None:
        for result, _ in self.results:
            row = dict(self.view.row(result))
            assert json.loads(json.dumps(row, allow_nan=False)) == row
            assert not set(row) & {"input", "picture", "task", "result", "latency_ms", "first_ms", "assumptions"}

    def test_a_drawing_has_the_pictures_size_and_leaves_the_picture_alone(self) -> None:
        from PIL import Image

        for size in _SIZES:
            for result, _ in self.results:
                picture = Image.new("RGB", size, (90, 120, 150))
                before = picture.tobytes()
                try:
                    drawn = self.view.draw(picture, result)
                except UsageError as error:
                    _check_hint(error)
                    continue
                assert drawn.size == size
                assert picture.tobytes() == before
                assert drawn.tobytes() != before

    def test_scores_are_metrics_of_all_results(self) -> None:
        try:
            metrics = self.view.score(iter(self.results))
        except (UsageError, EngineMissingError) as error:  # without scores, or without the library that computes them
            _check_hint(error)
            return
        assert isinstance(metrics, Metrics)
        assert metrics.count == len(self.results)
        assert metrics.values
        assert all(isinstance(value, float) and value == value for value in metrics.values.values())
        assert self.view.score([]) == Metrics(count=0)


def _check_hint(error: EdgeError) -> None:
    assert error.hint, "an error says what to do"
