"""The report of a check: where each node will run and why, and the cost of the whole model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtimes.artifact.json_fields import JsonObject


ACCELERATOR, HOST = "accelerator", "host"


@dataclass(frozen=True)
class CompatibilityIssue:
    """The reason why something cannot run on the accelerator, and the fix."""

    reason: str
    fix: str


@dataclass(frozen=True, kw_only=True)
class Node:
    """An operation.

    name: The name of its first output.
    macs: Its multiply-adds for one inference.
    breaks: The index of the node that keeps this one off the accelerator: its own index if it is unsupported, that of
        an earlier node if it merely comes after that, None on the accelerator.
    """

    index: int
    op: str
    name: str
    placement: str
    reason: str = ""
    fix: str = ""
    macs: int = 0
    breaks: int | None = None

    def to_json(self) -> JsonObject:
        """Return the keys of `edge check --json`."""
        return {
            "index": self.index,
            "op": self.op,
            "name": self.name,
            "placement": self.placement,
            "reason": self.reason,
            "fix": self.fix,
        }


def place_node(
    *, index: int, op: str, name: str, problem: CompatibilityIssue | None, macs: int = 0, how: str = ""
) -> Node:
    """Return the node on the accelerator, with a remark on how it gets there, or on the host if it has a problem."""
    if problem is None:
        return Node(index=index, op=op, name=name, placement=ACCELERATOR, reason=how, macs=macs)
    return Node(
        index=index,
        op=op,
        name=name,
        placement=HOST,
        reason=problem.reason,
        fix=problem.fix,
        macs=macs,
        breaks=index,
    )


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a check.

    refusals: Issues that keep the whole model off the device, regardless of its nodes.
    parameter_bytes: The constants of the nodes on the accelerator.
    accelerator: Its name ("the Edge TPU"), empty for a device without one.
    quantized: The result for the same model in int8, if it only lacks quantization.
    extra: Further facts for `--json`.
    """

    accelerator: str
    nodes: tuple[Node, ...]
    refusals: tuple[CompatibilityIssue, ...] = ()
    warnings: tuple[str, ...] = ()
    parameter_bytes: int = 0
    quantized: Report | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> JsonObject:
        """Return the keys of `edge check --json`, except for the device."""
        return {
            "accelerator": self.accelerator or None,
            "nodes": [node.to_json() for node in self.nodes],
            "accelerator_macs_share": self.macs_share,
            "macs": sum(node.macs for node in self.nodes),
            "parameter_bytes": self.parameter_bytes,
            "refusals": [{"reason": problem.reason, "fix": problem.fix} for problem in self.refusals],
            "warnings": list(self.warnings),
            "after_quantisation": self.quantized.to_json() if self.quantized else None,
            **self.extra,
        }

    @property
    def macs_share(self) -> float | None:
        """The share of multiply-adds on the accelerator, 0 to 1.

        None if nodes stay on the host and no multiply-adds are known.
        """
        if not self.on_host or not self.accelerated:
            return 1.0 if self.accelerated else 0.0
        total = sum(node.macs for node in self.nodes)
        return sum(node.macs for node in self.accelerated) / total if total else None

    @property
    def accelerated(self) -> Sequence[Node]:
        """The nodes on the accelerator."""
        return [node for node in self.nodes if node.placement == ACCELERATOR]

    @property
    def on_host(self) -> Sequence[Node]:
        """The nodes on the host's processor."""
        return [node for node in self.nodes if node.placement == HOST]

    @property
    def faults(self) -> Sequence[Node]:
        """The unsupported nodes, without those that merely come after one."""
        return [node for node in self.on_host if node.breaks == node.index]

    @property
    def first_break(self) -> Node | None:
        """The first node that keeps later ones off the accelerator, else the first unsupported one."""
        followed = {node.breaks for node in self.on_host if node.breaks != node.index}
        return next((node for node in self.faults if node.index in followed), next(iter(self.faults), None))

    @property
    def most_runs(self) -> bool:
        """Whether at least half of the multiply-adds (or of the nodes, if there are none) are accelerated."""
        share = self.macs_share
        if share is None:
            share = len(self.accelerated) / len(self.nodes) if self.nodes else 0.0
        return not self.refusals and share >= 0.5
