"""How an artifact is verified: by a metric, and by comparing each output with the source's as values or labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runtimes.artifact.json_fields import Fields


@dataclass(frozen=True)
class Part:
    """Elements of an output that share one natural range, such as the scores of a detector, but not its boxes.

    axis: The axis of the output's shape along which the part is a slice.
    start, stop: The part's indices on that axis.
    span: The width of its natural range (1 after a sigmoid), else of the source's values in the proof.
    natural: Whether `span` is known from the graph, not from the proof's inputs.
    step: The result's quantization step there; 0 if its values are not on a grid.
    """

    axis: int
    start: int
    stop: int
    span: float
    natural: bool = False
    step: float = 0.0

    @classmethod
    def read(cls, fields: Fields) -> Part:
        """Parse from JSON."""
        return cls(
            axis=fields.integer("axis"),
            start=fields.integer("start"),
            stop=fields.integer("stop"),
            span=fields.number("span"),
            natural=fields.flag("natural"),
            step=fields.number("step"),
        )


@dataclass(frozen=True)
class RowScores:
    """How a decoder reads rows: only those with a high score, such as the boxes of a detector's anchors.

    output: The output that holds the scores, one or several in each row.
    least: The lowest score that counts, 0 to 1.
    are_logits: Whether the output holds logits.
    """

    output: str
    least: float
    are_logits: bool

    @classmethod
    def read(cls, fields: Fields) -> RowScores:
        """Parse from JSON."""
        return cls(fields.text("output"), fields.number("least"), fields.flag("are_logits"))


@dataclass(frozen=True)
class OutputCheck:
    """How one output is compared.

    name: The output.
    kind: One of `KINDS`.
    parts: The parts of values, which cover the whole output.
    scores: The scores by which a decoder reads the output's rows; None if it reads all of them.
    """

    name: str
    kind: str
    parts: tuple[Part, ...] = ()
    scores: RowScores | None = None

    KINDS: ClassVar[tuple[str, ...]] = ("values", "labels", "rows")

    @classmethod
    def read(cls, fields: Fields) -> OutputCheck:
        """Parse from JSON. Raises InputError for an unknown kind."""
        kind = fields.text("kind")
        if kind not in cls.KINDS:
            raise fields.reject("kind", f"is {kind!r}, not one of {', '.join(cls.KINDS)}")
        parts = tuple(Part.read(item) for item in fields.children("parts"))
        return cls(fields.text("name"), kind, parts, fields.optional("scores", RowScores.read))


@dataclass(frozen=True)
class SelfCheck:
    """How to verify an artifact: for stored inputs, its outputs are within `tolerance` of the source's by `metric`.

    outputs: How each output is compared, in the order of the outputs; empty in artifacts of early versions.
    stateful: Whether the model keeps a state, so that its outputs hold for all inputs in order from a reset state.
    """

    metric: str
    tolerance: float
    inputs: str
    outputs: tuple[OutputCheck, ...] = ()
    stateful: bool = False

    @classmethod
    def read(cls, fields: Fields) -> SelfCheck:
        """Parse from JSON. The metric's name is checked where it is computed (`runtimes.verification.selfcheck`)."""
        outputs = tuple(OutputCheck.read(item) for item in fields.children("outputs")) if fields.has("outputs") else ()
        stateful = fields.flag("stateful") if fields.has("stateful") else False
        return cls(fields.text("metric"), fields.number("tolerance"), fields.text("inputs"), outputs, stateful)
