"""Means for tests to be worse than the registered attacks: rewrite a node's outputs, or let its arithmetic drift."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

import torch

from btard.node.build import Compute, Machine, Node
from btard.node.protocol.api import ComputeGradient, GradientReady, Input, Output
from btard.node.protocol.wire.encoding import digest, number
from tests.simulation.stage import Stage

Rewrite = Callable[[Output], Iterable[Output]]
"""What leaves the node in the place of an output of its peer."""


class Interposed:
    """A machine whose outputs pass through a function."""

    def __init__(self, inner: Machine, rewrite: Rewrite) -> None:
        self._inner = inner
        self._rewrite = rewrite

    def handle(self, event: Input, /) -> list[Output]:
        return [new for output in self._inner.handle(event) for new in self._rewrite(output)]


def interpose(stage: Stage, peer: int, rewrite: Rewrite) -> None:
    """Put a function between a peer and the network."""
    nodes = stage.simulation.nodes
    nodes[peer] = replace(nodes[peer], machine=Interposed(nodes[peer].machine, rewrite))


@dataclass(frozen=True, slots=True)
class Drifting(Node):
    """A node on another platform: its gradients differ from everyone's by `drift` in relative L2 norm."""

    drift: float = 0.0

    def compute(self, wanted: ComputeGradient, compute: Compute) -> GradientReady:
        ready = Node.compute(self, wanted, compute)
        name = digest("drift", number(self.id), number(wanted.step), number(wanted.peer))
        generator = torch.Generator().manual_seed(int.from_bytes(name[:7], "little"))
        noise_D = torch.randn(ready.gradient_D.shape, generator=generator)
        length = self.drift * float(ready.gradient_D.norm()) / float(noise_D.norm())
        return replace(ready, gradient_D=ready.gradient_D + noise_D * length + 0.0)


def let_drift(stage: Stage, drift: float) -> None:
    """Give every node a platform of its own."""
    nodes = stage.simulation.nodes
    for peer, node in nodes.items():
        nodes[peer] = Drifting(**{field.name: getattr(node, field.name) for field in fields(Node)}, drift=drift)
