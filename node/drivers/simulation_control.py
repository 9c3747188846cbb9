"""What a simulation shows, and what is done to it from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from btard.node.build import Node
from btard.node.drivers.scheduler import ScheduledEvent, Scheduler
from btard.node.protocol.api import Input, Output


@dataclass(frozen=True, slots=True)
class Observed:
    """An output that the simulator does not perform itself, with the virtual time and the node it came from."""

    time_s: float
    node: int
    output: Output


@dataclass(frozen=True, slots=True)
class SimulationControl:
    """What is done to the nodes from outside.

    Args:
        director: knows when.
        played: told of each event, with the virtual time.
        revive: makes a killed node anew, with what it had heard before.
    """

    director: Scheduler
    played: Callable[[float, ScheduledEvent], None]
    revive: Callable[[int], tuple[Node, Sequence[Input]]] | None = None
