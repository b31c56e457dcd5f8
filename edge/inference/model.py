"""An open model, whose engine runs in a worker process on this machine or on a board."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from edge.inference.inputs import Source, is_picture_file, samples_of_arrays
from edge.inference.prediction import Prediction, Unreadable, predict, predict_samples
from edge.inference.prepared_model import EngineChoice, PreparedModel, prepare
from edge.inference.preprocessing import ModelHints
from edge.workers.process import Worker
from edge.workers.transport import LOCAL, Transport
from runtimes.arrays import Array, Arrays, load_arrays
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import UsageError
from runtimes.jobs import Description
from runtimes.task import DecodeOptions, Result, named_outputs

Input = str | Path | Array | Mapping[str, Array]


class Model:
    """An open model: a context manager around a worker process, which the first call that needs the engine starts.

    A crash of the engine raises an error and does not end this program; the next call starts a new process.
    Not thread-safe.
    """

    def __init__(
        self,
        artifact: Artifact,
        hints: ModelHints | None = None,
        engine: EngineChoice | None = None,
        options: DecodeOptions | None = None,
        place: Transport = LOCAL,
        shapes: Sequence[str] = (),
    ) -> None:
        self.artifact = artifact
        self._hints, self._engine = hints or ModelHints(), engine or EngineChoice()
        self._options = options or DecodeOptions()
        self.place = place
        self._shapes = tuple(shapes)
        self._worker = Worker(place=place)
        self._prepared: dict[bool, PreparedModel] = {}

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker process, and disconnect from the board."""
        self._worker.close()
        self.place.close()

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """The model's inputs, from its manifest, else from the engine."""
        return self.artifact.manifest.inputs or self._description.inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """The model's outputs, from its manifest, else from the engine."""
        return self.artifact.manifest.outputs or self._description.outputs

    def run(self, feeds: Mapping[str, Array]) -> Arrays:
        """Run one inference: {input name: array} → {output name: array}, in the dtypes and shapes of the specs.

        Raises InputError if the feeds do not match the model's inputs.
        """
        with tempfile.TemporaryDirectory(prefix="edge-run-") as folder:
            inputs, outputs = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
            stacked = {name: np.asarray(array)[None] for name, array in feeds.items()}
            np.savez(inputs, **stacked)  # type: ignore[arg-type] # numpy's stubs see allow_pickle
            self._engine.run_samples(self.artifact, inputs, outputs, self._worker)
            answers = {name: np.asarray(array[0]) for name, array in load_arrays(outputs).items()}
        return named_outputs(answers, self.artifact.manifest.outputs)

    def predict(self, given: Input) -> Result:
        """Run the model on one input and return the typed result of its task, such as `Detections`.

        The result of a picture has `draw()`.

        given: A picture, a sound (.wav), an array file (.npy, .npz), an array, or arrays by input name.

        Raises InputError if the input cannot be read or does not fit the model; UsageError for a file of several
        samples, and if the model's preprocessing or output must be specified.
        """
        if isinstance(given, str | Path):
            answers = list(self.predictions([Path(given)]))
        else:
            prepared = self.prepare(takes_pictures=False)
            arrays = given if isinstance(given, Mapping) else {"": given}
            samples = list(samples_of_arrays(prepared.artifact, arrays, "the array"))
            answers = list(predict_samples(prepared, samples, self._worker, self._engine))
        if len(answers) != 1:
            what = given if isinstance(given, str | Path) else "the array"
            raise UsageError(f"{what} contains {len(answers)} samples; predict() takes one", "pass them one by one")
        answer = answers[0]
        if isinstance(answer, Unreadable):
            raise answer.error
        return answer.result if answer.picture is None else answer.result.with_drawing(answer.draw)

    def predictions(self, inputs: Iterable[str | Source]) -> Iterator[Prediction | Unreadable]:
        """Yield the predictions for inputs, in their order, and an `Unreadable` for one that cannot be read."""
        sources = [Path(one) if isinstance(one, str) else one for one in inputs]
        prepared = self.prepare(takes_pictures=not sources or any(map(is_picture_file, sources)))
        return predict(prepared, sources, self._worker, self._engine)

    def prepare(self, *, takes_pictures: bool) -> PreparedModel:
        """Return the model with its task, decoder and assumptions. Raises the errors of `complete_model`."""
        if takes_pictures not in self._prepared:
            self._prepared[takes_pictures] = prepare(
                self.artifact,
                self._hints,
                self._worker,
                self._engine,
                takes_pictures=takes_pictures,
                options=self._options,
                shapes=self._shapes,
            )
        return self._prepared[takes_pictures]

    @cached_property
    def _description(self) -> Description:
        return self._engine.describe(self.artifact, self._worker)
