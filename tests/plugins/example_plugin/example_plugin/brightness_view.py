"""The brightness of a picture for people."""

from __future__ import annotations

from collections.abc import Iterable

from edge.tasks import Metrics, TaskView
from example_plugin.brightness import Brightness


class BrightnessView(TaskView[Brightness, float]):
    """Shows the number, and scores it by its mean error."""

    id = "brightness"

    def describe(self, result: Brightness) -> str:
        """One line."""
        return f"  brightness {result.value:.3f}"

    def score(self, results: Iterable[tuple[Brightness, float]]) -> Metrics:
        """The mean absolute error."""
        errors = [abs(result.value - label) for result, label in results]
        return Metrics(count=len(errors), values={"mean_error": sum(errors) / len(errors)} if errors else {})
