"""The artifact manifest, `manifest.json`, as frozen dataclasses.

Everything between a picture and a score is explicit here (resize, crop, layout, color order, mean, scale, output
kind, label offset), because each of these has been guessed wrong before.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Mapping

from runtimes.artifact.json_fields import Fields, JsonObject, JsonValue
from runtimes.artifact.self_check import SelfCheck
from runtimes.errors import InputError

SCHEMA = 1
_WHITE = 255
REWRITE = "write the artifact again with `edge convert`"


@dataclass(frozen=True)
class Quantization:
    """Affine quantization: real = (q − zero_point) × scale; one pair per tensor, or one per index of `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None = None

    @classmethod
    def read(cls, fields: Fields) -> Quantization:
        """Parse from JSON. Raises InputError if there are not as many scales as zero points."""
        scales, zero_points = fields.numbers("scales"), fields.integers("zero_points")
        if len(scales) != len(zero_points) or not scales:
            raise fields.reject("scales", f"has {len(scales)} values for {len(zero_points)} zero points")
        return cls(scales, zero_points, fields.integer("axis") if fields.has("axis") else None)


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a model: numpy dtype name, shape (a str names a free dimension), quantization."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    quantization: Quantization | None = None

    @classmethod
    def read(cls, fields: Fields) -> TensorSpec:
        """Parse from JSON. Raises InputError for a dimension that is neither a size ≥ 0 nor a name."""
        shape = fields.value("shape")
        if not isinstance(shape, list) or not all(_is_dimension(size) for size in shape):
            raise fields.reject("shape", f"is {shape!r}, not a list of sizes and names")
        quantization = fields.optional("quantization", Quantization.read)
        return cls(fields.text("name"), fields.text("dtype"), tuple(shape), quantization)


def _is_dimension(size: Any) -> bool:
    return isinstance(size, str) or (isinstance(size, int) and not isinstance(size, bool) and size >= 0)


@dataclass(frozen=True)
class Preprocess:
    """How to turn a picture into the model's input.

    The picture is resized (`shorter_side`: scale the shorter side to `size` pixels, then center-crop to `crop`
    (height, width); `stretch`: scale directly to `crop`; `letterbox`: scale to fit into `crop` and fill the borders
    with the gray `pad`, half on each side), its channels are ordered as `color`, and each value p in 0…255 becomes
    (p − mean) × scale, per channel. `layout` is NHWC or NCHW. The color GRAY is one channel, the luma of the others,
    for which the means of `mean` and of `scale` hold.
    """

    resize: str
    size: int
    crop: tuple[int, int]
    method: str
    layout: str
    color: str
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    pad: int = 0

    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "resize": ("shorter_side", "stretch", "letterbox"),
        "method": ("nearest", "bilinear", "bicubic"),
        "layout": ("NHWC", "NCHW"),
        "color": ("RGB", "BGR", "GRAY"),
    }

    @property
    def channels(self) -> int:
        """How many channels the input has."""
        return 1 if self.color == "GRAY" else 3

    @classmethod
    def read(cls, fields: Fields) -> Preprocess:
        """Parse from JSON. Raises InputError for a value that is not allowed."""
        chosen = {key: fields.text(key) for key in cls.ALLOWED}
        for key, word in chosen.items():
            if word not in cls.ALLOWED[key]:
                raise fields.reject(key, f"is {word!r}, not one of {', '.join(cls.ALLOWED[key])}")
        crop, mean, scale = fields.integers("crop"), fields.numbers("mean"), fields.numbers("scale")
        if len(crop) != 2 or min(crop) < 1:
            raise fields.reject("crop", f"is {crop}, not a height and a width")
        if len(mean) != 3 or len(scale) != 3:
            raise fields.reject("mean", "and 'scale' need one value for each of three channels")
        pad = fields.integer("pad") if fields.has("pad") else 0
        if not 0 <= pad <= _WHITE:
            raise fields.reject("pad", f"is {pad}, not a gray from 0 to {_WHITE}")
        return cls(size=fields.integer("size"), crop=(crop[0], crop[1]), mean=mean, scale=scale, pad=pad, **chosen)


@dataclass(frozen=True)
class OutputMeaning:
    """The meaning of the first output of a classifier.

    kind: "probability" or "logit".
    label_offset: Class i has the label i − `label_offset`: 1 if class 0 is "background" (1001 classes), else 0.
    labels: A text file in the artifact with one label per line, one for each class of the output.
    """

    kind: str
    label_offset: int = 0
    labels: str | None = None

    @classmethod
    def read(cls, fields: Fields) -> OutputMeaning:
        """Parse from JSON. Raises InputError for a kind other than probability or logit."""
        kind = fields.text("kind")
        if kind not in ("probability", "logit"):
            raise fields.reject("kind", f"is {kind!r}, not probability or logit")
        return cls(kind, fields.integer("label_offset"), fields.text("labels") if fields.has("labels") else None)


@dataclass(frozen=True)
class TaskStatement:
    """What the model does, for tasks other than classification, which `OutputMeaning` describes.

    id: The task's id.
    labels: The class names, or None.
    metadata: The author's properties that distinguish the layouts of outputs.
    """

    id: str
    labels: tuple[str, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Fields) -> TaskStatement:
        """Parse from JSON. The id is checked where tasks are known (`runtimes.tasks`)."""
        labels = fields.texts("labels") if fields.has("labels") else None
        return cls(fields.text("id"), labels, {key: str(value) for key, value in fields.mapping("metadata").items()})


@dataclass(frozen=True)
class Join:
    """An output of the source that the model returns in `parts`, in this order along `axis`; see `joined_session`."""

    output: str
    axis: int
    parts: tuple[str, ...]

    @classmethod
    def read(cls, fields: Fields) -> Join:
        """Parse from JSON. Raises InputError for a negative axis, and for fewer than two parts."""
        axis, parts = fields.integer("axis"), fields.texts("parts")
        if axis < 0:
            raise fields.reject("axis", f"is {axis}, not an axis from 0")
        if len(parts) < 2 or len(set(parts)) != len(parts):
            raise fields.reject("parts", "does not name at least two different outputs")
        return cls(fields.text("output"), axis, parts)


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`; `files` maps each file of the artifact to its sha256.

    `states` maps inputs of the model to the outputs whose last values they take; see `stateful_session`.
    """

    name: str
    format: str
    precision: str
    model: str
    files: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    preprocess: Preprocess | None = None
    output: OutputMeaning | None = None
    task: TaskStatement | None = None
    selfcheck: SelfCheck | None = None
    source: Mapping[str, JsonValue] = field(default_factory=dict)
    conversion: Mapping[str, JsonValue] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)
    join: tuple[Join, ...] = ()
    states: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str, document: str) -> Manifest:
        """Parse and check a manifest. Raises InputError, naming `document` and the invalid key."""
        try:
            fields = Fields(json.loads(text), document, hint=REWRITE)
        except (ValueError, RecursionError) as error:  # Python raises ValueError for a number with thousands of digits
            raise InputError(f"{document} is not JSON: {error}", REWRITE) from None
        if fields.integer("schema") != SCHEMA:
            raise fields.reject("schema", f"is {fields.integer('schema')}; this version of edge reads schema {SCHEMA}")
        return cls(
            name=fields.text("name"),
            format=fields.text("format"),
            precision=fields.text("precision"),
            model=fields.text("model"),
            files={name: str(digest) for name, digest in fields.mapping("files").items()},
            inputs=tuple(TensorSpec.read(item) for item in fields.children("inputs")),
            outputs=tuple(TensorSpec.read(item) for item in fields.children("outputs")),
            preprocess=fields.optional("preprocess", Preprocess.read),
            output=fields.optional("output", OutputMeaning.read),
            task=fields.optional("task", TaskStatement.read) if fields.has("task") else None,
            selfcheck=fields.optional("selfcheck", SelfCheck.read),
            source=fields.mapping("source"),
            conversion=fields.mapping("conversion"),
            proof=fields.mapping("proof"),
            join=tuple(Join.read(item) for item in fields.children("join")) if fields.has("join") else (),
            states=fields.texts_by_name("states"),
        )

    def to_json(self) -> str:
        """Serialize with sorted keys and no timestamps, so that the same input yields the same bytes."""
        document: JsonObject = {"schema": SCHEMA, **asdict(self)}
        return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
