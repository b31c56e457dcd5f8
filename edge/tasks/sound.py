"""The view of sounds: what is heard, and when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.evaluation.labeled_sounds_and_texts import NOT_HEARD
from edge.tasks import Metrics, TaskView
from edge.tasks.text import accuracy
from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject, to_json
from runtimes.tasks.sound import Sound

_SHOWN = 20  # segments


class SoundView(TaskView[Sound, int]):
    """Shows classes by their highest score, and the times at which they are heard; a label is the correct class."""

    id = "sound"

    def describe(self, result: Sound) -> str:
        """Format one class per line, then one line for each time that a class is heard."""
        lines = [f"  {one.score:7.4f}  {one.label or 'class'} ({one.index})" for one in result.classes]
        segments = result.segments
        for one in segments[:_SHOWN]:
            times = f"{one.start_s:8.2f} s to {one.end_s:.2f} s"
            lines.append(f"  {times}  {one.label or f'class {one.index}'}  {one.score:.4f}")
        if len(segments) > _SHOWN:
            lines.append(f"  and {len(segments) - _SHOWN} times more (--json)")
        return "\n".join(lines)

    def row(self, result: Sound) -> JsonObject:
        """Return "segments", the times at which classes are heard, and "rows" of scores, "step_s" apart."""
        segments = [to_json(one) for one in result.segments]
        return {"segments": segments, "rows": len(result.scores), "step_s": result.step_s}

    def record(self, result: Sound, label: int) -> Array:
        """Return [1, 2]: the correct class and the one with the highest score.

        With a single class, 0 says that it is to be heard, and −1 that it is not.
        """
        best = result.classes[0]
        found = best.index if result.scores.shape[1] > 1 or best.score >= result.min_score else NOT_HEARD
        return np.array([[label, found]], np.float64)

    def metrics(self, records: Sequence[Array]) -> Metrics:
        """Compute "top1", the share of sounds whose correct class has the highest score, and "f1"."""
        return accuracy(records)

    def right(self, records: Sequence[Array]) -> Array:
        """Return whether the class is the correct one."""
        return np.array([record[0, 0] == record[0, 1] for record in records], bool)
