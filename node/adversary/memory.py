"""What an attacker has seen so far: who takes part, and its own work of the last steps."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from types import MappingProxyType

from torch import Tensor

from btard.node.adversary.commits import Commits
from btard.node.adversary.view import View
from btard.node.errors import ConfigError
from btard.node.protocol.api import MessageArrived
from btard.node.protocol.attempt.attempt import Attempt

_LARGEST_BYTES = 4 << 30


class Memory:
    """One attacker's memory, from which each View is made.

    Args:
        base: what never changes in a run.
        steps: how many of its own gradients and aggregates it keeps, the present ones included.

    Raises:
        ConfigError: they would take more memory than a node should hold.
    """

    def __init__(self, base: View, steps: int) -> None:
        _check(steps, base.dimension)
        self._base = base
        self._commits = Commits()
        self._gradients: deque[tuple[int, Tensor]] = deque(maxlen=steps)
        self._aggregates: deque[tuple[int, Tensor]] = deque(maxlen=steps)

    def hear(self, event: MessageArrived) -> None:
        """Note who takes part."""
        self._commits.listen(event)

    def computed(self, step: int, gradient_D: Tensor) -> None:
        """Note its own honest gradient."""
        self._gradients.append((step, gradient_D))

    def aggregated(self, step: int, value_P: Tensor) -> None:
        """Note the honest aggregate of its own part."""
        self._aggregates.append((step, value_P))

    def view(self, step: int, attempt: Attempt | None) -> View:
        """What the attacker knows at a step, the attempt under way included."""
        active, contributors = self._commits.heard(step)
        return replace(
            self._base,
            step=step,
            active=active,
            contributors=contributors,
            history=MappingProxyType(dict(self._gradients)),
            aggregates=MappingProxyType(dict(self._aggregates)),
            attempt=attempt,
        )


def _check(steps: int, dimension: int) -> None:
    """Refuse to keep more gradients than a node should hold.

    Raises:
        ConfigError: the memory it would take.
    """
    needed = 8 * steps * dimension  # gradients and aggregates
    if needed > _LARGEST_BYTES:
        raise ConfigError(
            f"an attack that looks {steps - 1} steps back needs {needed / 2**30:.1f} GiB with {dimension} parameters; "
            f"use a delay of at most {_LARGEST_BYTES // (8 * dimension) - 1}"
        )
