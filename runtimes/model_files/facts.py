"""What is known about a model without running it, and the origin of each fact. Tasks recognize models by these."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Mapping, Sequence

from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import JsonObject, to_json
from runtimes.artifact.manifest import Preprocess, TensorSpec
from runtimes.errors import InputError

# Where labels come from: the user passed them, the file contains them, or the class count suggests them.
GIVEN, READ, ASSUMED = "given", "read", "assumed"
MANIFEST = "the manifest"  # the origin of facts from an artifact's manifest
_TEXT_INPUTS = {"ids": "input_ids", "mask": "attention_mask", "types": "token_type_ids"}
TASK_OPTION = "--task"  # the origin of a task that the user names
_SMALLEST_SIDE = 32  # of a picture, in pixels
_SMALLEST_GRAY_SIDE = 8  # of a picture in one channel, as of scikit-learn's digits


@dataclass(frozen=True)
class Labels:
    """Class names in the order of their indices.

    origin: Where they come from, for messages: a file, "the manifest", "ImageNet's".
    certainty: GIVEN by the user, READ from the model, or ASSUMED.
    """

    names: tuple[str, ...]
    origin: str
    certainty: str = READ

    def of(self, classes: int) -> tuple[str, ...]:
        """Return the names without what follows an empty line after the last class: a remark, or nothing."""
        is_followed = len(self.names) > classes > 0 and not self.names[classes]
        return self.names[:classes] if is_followed else self.names


@dataclass(frozen=True)
class Producer:
    """The operator that computes an output, ignoring those that only reformat it.

    operator: Its name in the format.
    position: The output is its `position`-th.
    classes: How many classes it chooses from, without a background; None for other operators, and if it is not known.
    """

    operator: str
    position: int = 0
    classes: int | None = None


@dataclass(frozen=True)
class TextInputs:
    """The names of the inputs that take a text as token ids, integers [1, tokens]; "" for one that does not exist.

    ids: The tokens.
    mask: 1 for a token, 0 for padding.
    types: Zeros; a second text would have ones.
    """

    ids: str
    mask: str = ""
    types: str = ""


@dataclass(frozen=True)
class ModelFacts:
    """A model as its file, its manifest and its user describe it. Unknown facts are empty or None.

    source: The model file, for messages.
    format: The model's format, as in a manifest.
    inputs, outputs: The tensors, in the model's order.
    operators: The number of occurrences of each operator.
    output_operator: The operator that computes the first output, ignoring those that only reformat it.
    producers: The operator that computes each output; None for one that is not known.
    metadata: Key/value properties that the author wrote into the file.
    label_files: The lines of each label file that is packed with the model, by file name.
    preprocess: How to turn a picture into the first input.
    labels: The class names.
    output_kind: The meaning of the first output: "probability" or "logit".
    label_offset: 1 if the first class is the background.
    task: The task's id, if the user or the model's metadata names it.
    origins: Field name → where its value was read.
    """

    source: str
    format: str
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    operators: Mapping[str, int] = field(default_factory=dict)
    output_operator: str | None = None
    producers: tuple[Producer | None, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    label_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    preprocess: Preprocess | None = None
    labels: Labels | None = None
    output_kind: str | None = None
    label_offset: int | None = None
    task: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def takes_picture(self) -> bool:
        """Whether the only input is one picture in color, channels first or last."""
        return len(self.inputs) == 1 and is_picture(self.inputs[0]) and channels_of(self.inputs[0]) > 1

    @property
    def picture(self) -> TensorSpec | None:
        """The input that takes a picture, see `picture_input`."""
        return picture_input(self.inputs)

    @property
    def picture_size(self) -> tuple[int, int] | None:
        """Height and width of the picture that the model takes; None if they are free, or if it takes none."""
        spec = self.picture
        if spec is None:
            return None
        height, width = spec.shape[1:3] if is_channels_last(spec) else spec.shape[2:4]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None

    @property
    def batch(self) -> int:
        """How many pictures the only input takes at once: 1 if that is free, or if it takes no pictures.

        0 means a picture without a batch axis, [3, height, width], as TorchVision's detectors take it.
        """
        shape = self.inputs[0].shape if len(self.inputs) == 1 else ()
        if len(shape) == 3 and shape[0] == 3:
            return 1 if any(isinstance(side, int) and side < _SMALLEST_SIDE for side in shape[1:]) else 0
        is_batch = bool(shape) and channels_of(self.inputs[0]) > 0 and isinstance(shape[0], int)
        return int(shape[0]) if is_batch and shape[0] else 1

    def for_one(self) -> ModelFacts:
        """Return the facts of the same model for one picture: with 1 in place of another batch, or of none."""
        batch = self.batch
        if batch == 1:
            return self
        if not batch:
            return replace(self, inputs=(replace(self.inputs[0], shape=(1, *self.inputs[0].shape)),))
        return replace(self, inputs=_for_one(self.inputs, batch), outputs=_for_one(self.outputs, batch))

    @property
    def states(self) -> dict[str, str]:
        """Inputs that take what an output gave for the input before, such as an LSTM's: input name → output name."""
        return states_of(self.inputs, self.outputs)

    @property
    def text_inputs(self) -> TextInputs | None:
        """The inputs that take a text, by the names that exporters give them; None if there are others."""
        names = {role: [spec for spec in self.inputs if word in spec.name] for role, word in _TEXT_INPUTS.items()}
        known = [spec for specs in names.values() for spec in specs]
        are_tokens = all(spec.dtype in ("int32", "int64") and len(spec.shape) == 2 for spec in known)
        if len(names["ids"]) != 1 or max(map(len, names.values())) > 1 or not are_tokens:
            return None
        if len(known) != len(self.inputs):
            return None
        return TextInputs(**{role: specs[0].name if specs else "" for role, specs in names.items()})

    def produced_by(self, operator: str) -> dict[int, TensorSpec]:
        """Return the outputs that an operator computes, by their position among its outputs."""
        found = zip(self.producers, self.outputs)
        return {one.position: spec for one, spec in found if one is not None and one.operator == operator}

    def classes_of(self, operator: str) -> int | None:
        """Return how many classes the operator of an output chooses from; None if it is not known."""
        found = (one.classes for one in self.producers if one is not None and one.operator == operator)
        return next(found, None)

    def to_json(self) -> JsonObject:
        """Return the facts as JSON values."""
        return to_json(self)


def _for_one(specs: Sequence[TensorSpec], batch: int) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, shape=(1, *spec.shape[1:])) if spec.shape[:1] == (batch,) else spec for spec in specs)


def class_names(model: ModelFacts, classes: int | None = None) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Return the names of the classes, and what is assumed without them.

    classes: How many there are; None accepts any number of names. Of another number, names in the file are ignored,
        and the user's raise InputError.
    """
    labels = model.labels
    names = () if labels is None else labels.names if classes is None else labels.of(classes)
    if labels is not None and classes in (None, len(names)):
        return names, ()
    if labels is not None and labels.certainty == GIVEN:
        raise label_count_error(labels.origin, len(names), classes)
    counted = {None: "the classes have", 1: "the class has"}.get(classes, f"the {classes} classes have")
    return None, (f"{counted} no name{'' if classes == 1 else 's'} (--labels)",)


def label_count_error(origin: str, labels: int, classes: int | None) -> InputError:
    """Return the error about labels that are not one for each class, for the caller to raise."""
    counts = f"{labels} label{'s' * (labels != 1)}; the model has {classes} class{'es' * (classes != 1)}"
    return InputError(f"{origin} has {counts}", "write one label per line, in order")


def check_named(index: int, labels: Sequence[str] | None) -> None:
    """Raise InputError if a result holds a class beyond the labels: not every model shows how many classes it has."""
    if labels is not None and index >= len(labels):
        what = f"the model found class {index}, counted from 0, and has {len(labels)} label{'s' * (len(labels) != 1)}"
        raise InputError(what, "pass one label for each class with --labels, in order")


def states_of(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> dict[str, str]:
    """Pair inputs other than the first with an output of the same dtype and shape and the most similar name."""
    pairs: dict[str, str] = {}
    for spec in inputs[1:]:
        fitting = [one.name for one in outputs if _same_kind(spec, one) and one.name not in pairs.values()]
        if fitting:
            pairs[spec.name] = max(fitting, key=lambda name: SequenceMatcher(None, spec.name, name).ratio())
    return pairs


def _same_kind(one: TensorSpec, other: TensorSpec) -> bool:
    """Return whether dtype, rank and fixed sizes are equal; a tensor without axes is not a state."""
    if one.dtype != other.dtype or len(one.shape) != len(other.shape) or not one.shape:
        return False
    sizes = zip(one.shape, other.shape)
    return all(isinstance(a, str) or isinstance(b, str) or a == b for a, b in sizes)


def is_picture(spec: TensorSpec) -> bool:
    """Return whether an input takes one picture of three channels or in gray, channels first or last."""
    return channels_of(spec) > 0 and (spec.shape[0] == 1 or isinstance(spec.shape[0], str))


def channels_of(spec: TensorSpec) -> int:
    """Return the channels of the pictures that an input takes, 3 or 1; 0 if it takes none."""
    shape = spec.shape
    if len(shape) != 4:
        return 0
    if 3 in (shape[1], shape[3]):
        return 3
    sides = shape[1:3] if shape[3] == 1 else shape[2:4] if shape[1] == 1 else (0, 0)
    return int(all(isinstance(side, str) or side >= _SMALLEST_GRAY_SIDE for side in sides))


def is_channels_last(spec: TensorSpec) -> bool:
    """Return whether the pictures that an input takes have their channels last."""
    return spec.shape[3] == channels_of(spec)


def picture_input(specs: Sequence[TensorSpec]) -> TensorSpec | None:
    """Return the input that takes a picture; there may be other inputs. None unless there is exactly one.

    Next to a picture in color, what could be a gray one is something else, such as a mask.
    """
    found = [spec for spec in specs if is_picture(spec)]
    most = max(map(channels_of, found), default=0)
    best = [spec for spec in found if channels_of(spec) == most]
    return best[0] if len(best) == 1 else None


def facts_of_artifact(artifact: Artifact) -> ModelFacts:
    """Return the facts in an artifact's manifest and label file. Raises InputError if its labels cannot be read."""
    manifest, names = artifact.manifest, artifact.labels()
    output, task = manifest.output, manifest.task
    if names is None and task is not None and task.labels is not None:
        names = list(task.labels)
    labels = None if names is None else Labels(tuple(names), MANIFEST)
    is_stated = {
        "inputs": bool(manifest.inputs),
        "outputs": bool(manifest.outputs),
        "preprocess": manifest.preprocess is not None,
        "labels": labels is not None,
        "output_kind": output is not None,
        "label_offset": output is not None,
        "task": task is not None,
        "metadata": task is not None,
    }
    return ModelFacts(
        source=str(artifact.model),
        format=manifest.format,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        preprocess=manifest.preprocess,
        labels=labels,
        output_kind=None if output is None else output.kind,
        label_offset=None if output is None else output.label_offset,
        task=None if task is None else task.id,
        metadata={} if task is None else task.metadata,
        origins={name: MANIFEST for name, stated in is_stated.items() if stated},
    )
