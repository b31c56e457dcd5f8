"""What an artifact says of itself: `manifest.json`, as frozen values.

Everything that stands between a picture and a score is data here (resize, crop, layout, colour order,
mean, scale, output kind, label offset), because each of them has been guessed wrong by somebody.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Mapping

from runtimes.errors import InputError
from runtimes.fields import Fields

SCHEMA = 1


@dataclass(frozen=True)
class Quantization:
    """Affine quantisation: real = (q − zero_point) × scale; one pair per tensor, or one per index of `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None = None

    @classmethod
    def read(cls, fields: Fields) -> Quantization:
        """From JSON; raises InputError when scales and zero points do not pair up."""
        scales, zero_points = fields.numbers("scales"), fields.wholes("zero_points")
        if len(scales) != len(zero_points) or not scales:
            raise fields.reject("scales", f"holds {len(scales)} values beside {len(zero_points)} zero points")
        return cls(scales, zero_points, fields.whole("axis") if fields.has("axis") else None)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model: numpy dtype name, shape (a str names a free dimension), quantisation."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    quantization: Quantization | None = None

    @classmethod
    def read(cls, fields: Fields) -> TensorSpec:
        """From JSON; raises InputError for a dimension that is neither a size ≥ 0 nor a name."""
        shape = fields.value("shape")
        if not isinstance(shape, list) or not all(_is_dimension(size) for size in shape):
            raise fields.reject("shape", f"is {shape!r}, not a list of sizes and names")
        quantization = fields.optional("quantization", Quantization.read)
        return cls(fields.text("name"), fields.text("dtype"), tuple(shape), quantization)


def _is_dimension(size: Any) -> bool:
    return isinstance(size, str) or (isinstance(size, int) and not isinstance(size, bool) and size >= 0)


@dataclass(frozen=True)
class Preprocess:
    """From a picture to the model's input.

    The picture is resized (`shorter_side`: the shorter side becomes `size` pixels, then the centre is cropped
    to `crop` (height, width); `stretch`: straight to `crop`), its channels ordered as `color`, and each value p
    in 0…255 becomes (p − mean) × scale, per channel. `layout` is NHWC or NCHW.
    """

    resize: str
    size: int
    crop: tuple[int, int]
    method: str
    layout: str
    color: str
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "resize": ("shorter_side", "stretch"),
        "method": ("nearest", "bilinear", "bicubic"),
        "layout": ("NHWC", "NCHW"),
        "color": ("RGB", "BGR"),
    }

    @classmethod
    def read(cls, fields: Fields) -> Preprocess:
        """From JSON; raises InputError for a word or a size that is not allowed."""
        chosen = {key: fields.text(key) for key in cls.ALLOWED}
        for key, word in chosen.items():
            if word not in cls.ALLOWED[key]:
                raise fields.reject(key, f"is {word!r}, not one of {', '.join(cls.ALLOWED[key])}")
        crop, mean, scale = fields.wholes("crop"), fields.numbers("mean"), fields.numbers("scale")
        if len(crop) != 2 or min(crop) < 1:
            raise fields.reject("crop", f"is {crop}, not a height and a width")
        if len(mean) != 3 or len(scale) != 3:
            raise fields.reject("mean", "and 'scale' need one value for each of three channels")
        return cls(size=fields.whole("size"), crop=(crop[0], crop[1]), mean=mean, scale=scale, **chosen)


@dataclass(frozen=True)
class OutputMeaning:
    """What the first output's numbers are: `kind` probability or logit; class i of it is label i − `label_offset`.

    `label_offset` is 1 where row 0 is "background" (1001 classes) and 0 otherwise; `labels` names a text file in
    the artifact with one label a line, one line for each class of the output.
    """

    kind: str
    label_offset: int = 0
    labels: str | None = None

    @classmethod
    def read(cls, fields: Fields) -> OutputMeaning:
        """From JSON; raises InputError for a kind that is neither probability nor logit."""
        kind = fields.text("kind")
        if kind not in ("probability", "logit"):
            raise fields.reject("kind", f"is {kind!r}, not probability or logit")
        return cls(kind, fields.whole("label_offset"), fields.text("labels") if fields.has("labels") else None)


@dataclass(frozen=True)
class SelfCheck:
    """How an artifact is verified: its outputs on stored inputs stay within `tolerance` of the source's by `metric`."""

    metric: str
    tolerance: float
    inputs: str

    @classmethod
    def read(cls, fields: Fields) -> SelfCheck:
        """From JSON; the metric's name is checked where it is computed (`runtimes.selfcheck`)."""
        return cls(fields.text("metric"), fields.number("tolerance"), fields.text("inputs"))


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`; `files` maps each file of the artifact to its sha256."""

    name: str
    format: str
    precision: str
    model: str
    files: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    preprocess: Preprocess | None = None
    output: OutputMeaning | None = None
    selfcheck: SelfCheck | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    conversion: Mapping[str, Any] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str, document: str) -> Manifest:
        """Parse and check a manifest; InputError names the key at fault and `document`."""
        try:
            fields = Fields(json.loads(text), document)
        except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
            raise InputError(
                f"{document} is not JSON: {error}", "write the artifact again with `edge convert`"
            ) from None
        if fields.whole("schema") != SCHEMA:
            raise fields.reject("schema", f"is {fields.whole('schema')}; this edge reads schema {SCHEMA}")
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
            selfcheck=fields.optional("selfcheck", SelfCheck.read),
            source=fields.mapping("source"),
            conversion=fields.mapping("conversion"),
            proof=fields.mapping("proof"),
        )

    def to_json(self) -> str:
        """The manifest as text: sorted keys, no timestamps, so that the same input gives the same bytes."""
        document: dict[str, Any] = {"schema": SCHEMA, **asdict(self)}
        return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
