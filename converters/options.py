"""Options of converters and sources: each owner declares a frozen dataclass.

The command line, the plan, the job and the manifest are derived from its fields. Users can set the fields declared with
`option`; the pipeline sets all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from runtimes.artifact.json_fields import JsonObject, JsonValue

_METADATA = "option"


@dataclass(frozen=True, kw_only=True)
class Option:
    """How a user sets a field.

    flag: The command line option, such as "--min-mapped".
    metavar: The placeholder for the value in the help text.
    type: Parses the value; None for a switch or text.
    dest: The name among the parsed arguments.
    repeats: Whether it may be repeated, for a tuple of values.
    implies: The precision that the option implies, or "".
    """

    help: str
    flag: str
    dest: str
    metavar: str | None = None
    type: Callable[[str], Any] | None = None
    repeats: bool = False
    implies: str = ""


def inferences(text: str) -> int:
    """Parse the number of inferences of a soak test. Raises ValueError unless it is 1 or more."""
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


def option(
    default: Any,
    help: str,
    *,
    flag: str = "",
    dest: str = "",
    metavar: str | None = None,
    type: Callable[[str], Any] | None = None,
    repeats: bool = False,
    implies: str = "",
) -> Any:
    """Declare a field of `Options` that users can set. The default `flag` is the field's name."""
    known = {
        "help": help,
        "flag": flag,
        "dest": dest,
        "metavar": metavar,
        "type": type,
        "repeats": repeats,
        "implies": implies,
    }
    return field(default=default, metadata={_METADATA: known})


@dataclass(frozen=True, kw_only=True)
class Options:
    """The base class of options; `title` is their heading in the help text."""

    title: ClassVar[str] = ""

    @classmethod
    def declared(cls) -> dict[str, Option]:
        """Return the options that users can set, by field name."""
        found = {}
        for one in fields(cls):
            if _METADATA in one.metadata:
                known = dict(one.metadata[_METADATA])
                known["flag"] = known["flag"] or f"--{one.name.replace('_', '-')}"
                known["dest"] = known["dest"] or known["flag"].lstrip("-").replace("-", "_")
                found[one.name] = Option(**known)
        return found

    @classmethod
    def of(cls, other: Options) -> Self:
        """Copy this class's fields from `other`, with defaults for fields that it does not have."""
        if isinstance(other, cls):
            return other
        known = {one.name for one in fields(other)}
        return cls(**{one.name: getattr(other, one.name) for one in fields(cls) if one.name in known})

    def given(self) -> dict[str, Option]:
        """Return the options with non-default values, by field name."""
        defaults = {one.name: one.default for one in fields(self)}
        return {name: one for name, one in self.declared().items() if getattr(self, name) != defaults[name]}

    def to_json(self) -> JsonObject:
        """Return all fields as JSON, for a job or a manifest."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, JsonValue]) -> Self:
        """Parse the result of `to_json`."""
        paths = {name for name, one in cls.declared().items() if one.type is Path}
        return cls(**{name: _read(value, name in paths) for name, value in document.items()})


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Options):
    """Options of every converter. A converter with further options derives from this class.

    precision: The precision of the result.
    opset: The opset of the intermediate or final ONNX model; None: the converter's choice.
    io_dtype: The dtype of inputs and outputs of a quantized model ("int8", "uint8", "float32"); None: the converter's
        choice.
    batch: The fixed batch size of the result; None leaves it free if the target supports that.
    shapes: Sizes for the free axes of the source's inputs (`runtimes.shapes`), of the first converter.
    release: The release of the device's tools that read the result ("8.2.1" of TensorRT, "2021.4" of OpenVINO).
    keep: Layers to keep in higher precision, by the names from `Converter.layer_errors`.
    float_outputs: Whether the outputs of a quantized model stay float32, whatever `io_dtype` says.
    soak: How many inferences must answer the same input alike; 0 leaves the number to the time that they take.
    no_repair: Whether an int8 result that fails is left as it is.
    scratch: A folder for files that are not part of the result, such as a stand-in model.
    """

    precision: str = "fp32"
    opset: int | None = option(None, "ONNX opset", metavar="N", type=int)
    io_dtype: str | None = None
    batch: int | None = 1
    shapes: tuple[str, ...] = ()
    release: str | None = None
    keep: tuple[str, ...] = ()
    float_outputs: bool = False
    soak: int = option(
        0,
        "inferences that must answer the same inputs alike (default: as many as 0.2 s allow, at least 3)",
        metavar="N",
        type=inferences,
    )
    no_repair: bool = option(False, "do not keep the last layers in float where int8 loses slices of an output")
    scratch: str | None = None

    def own(self) -> dict[str, Option]:
        """Return the non-default options that only this converter has, by field name."""
        return {name: one for name, one in self.given().items() if name not in ConvertOptions.declared()}


def flags(given: Mapping[str, Option] | Sequence[Option]) -> tuple[str, ...]:
    """Format the options as on the command line."""
    return tuple(one.flag for one in (given.values() if isinstance(given, Mapping) else given))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _read(value: Any, is_path: bool) -> Any:
    if is_path and value is not None:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value
