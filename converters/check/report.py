"""What a check says of a model: of each node where it will run and why, and of the whole what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ACCELERATOR, HOST = "accelerator", "host"


@dataclass(frozen=True)
class Problem:
    """Why something cannot run on the accelerator, and what to change."""

    reason: str
    fix: str


@dataclass(frozen=True)
class Node:
    """One operation. `name` is that of its first output. `macs` are its multiply-adds for one inference.

    `breaks` is the index of the node that keeps this one off the accelerator: its own where the fault is its own,
    another's where it merely comes after that one, None on the accelerator.
    """

    index: int
    op: str
    name: str
    placement: str
    reason: str = ""
    fix: str = ""
    macs: int = 0
    breaks: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The keys of `edge check --json`."""
        return {
            "index": self.index,
            "op": self.op,
            "name": self.name,
            "placement": self.placement,
            "reason": self.reason,
            "fix": self.fix,
        }


@dataclass(frozen=True)
class Report:
    """The answer of a check.

    `refusals` are what keeps the whole model off the device, whatever single nodes may do there. `parameter_bytes`
    are the constants of the nodes on the accelerator. `accelerator` names it ("the Edge TPU"), and is empty for a
    device without one. `quantised` is the answer for the same model in int8, where that is what it lacks. `extra`
    are further facts for `--json`.
    """

    accelerator: str
    nodes: tuple[Node, ...]
    refusals: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    parameter_bytes: int = 0
    quantised: Report | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The keys of `edge check --json`, but for the device."""
        return {
            "accelerator": self.accelerator or None,
            "nodes": [node.as_dict() for node in self.nodes],
            "accelerator_macs_share": self.macs_share,
            "macs": sum(node.macs for node in self.nodes),
            "parameter_bytes": self.parameter_bytes,
            "refusals": [{"reason": problem.reason, "fix": problem.fix} for problem in self.refusals],
            "warnings": list(self.warnings),
            "after_quantisation": self.quantised.as_dict() if self.quantised else None,
            **self.extra,
        }

    @property
    def macs_share(self) -> float | None:
        """The part of the multiply-adds that the accelerator does, 0 to 1.

        None where nodes are left on the host and nothing is known of any multiply-adds.
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
        """The nodes that the processor of the host has to run."""
        return [node for node in self.nodes if node.placement == HOST]

    @property
    def faults(self) -> Sequence[Node]:
        """The nodes on the host by their own fault, not because they come after another."""
        return [node for node in self.on_host if node.breaks == node.index]

    @property
    def first_break(self) -> Node | None:
        """The first node that keeps others behind it off the accelerator; else the first with a fault of its own."""
        followed = {node.breaks for node in self.on_host if node.breaks != node.index}
        return next((node for node in self.faults if node.index in followed), next(iter(self.faults), None))

    @property
    def most_runs(self) -> bool:
        """Whether at least half of the multiply-adds, or of the nodes where there are none, are accelerated."""
        share = self.macs_share
        if share is None:
            share = len(self.accelerated) / len(self.nodes) if self.nodes else 0.0
        return not self.refusals and share >= 0.5
