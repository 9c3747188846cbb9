"""What the protocol asks of an aggregation rule; the rules themselves live in node/aggregation/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from torch import Tensor

Rows: TypeAlias = Tensor | Sequence[Tensor]
"""Contributors' rows: float32 `[N, P]`, or N tensors `[P]` that lie where they arrived."""

Nearest: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(value as it travelled, ours) -> of the vectors that travel as it, the nearest to ours; float32 `[P]`."""


def itself(value_P: Tensor, _ours_P: Tensor) -> Tensor:
    """`Nearest` of what travels unrounded."""
    return value_P


@dataclass(frozen=True, slots=True)
class Aggregated:
    """A rule's output: `value_P` (float32, contiguous, -0 normalised) and how many iterations it took."""

    value_P: Tensor
    iterations: int


class Rule(Protocol):
    """An aggregation rule as an aggregator runs it on one part and as a judge re-checks it."""

    @property
    def audited(self) -> bool:
        """True if no residual exists that V2 could check: a share of parts drawn from r is audited instead."""

    def aggregate(self, inputs_NP: Rows, radius: float) -> Aggregated:
        """The aggregate of the contributors' rows (finite, roster order)."""

    def clip_radius(self, radius: float) -> float:
        """The radius at which the checksum s clips: `radius`, or infinity for rules that do not clip."""

    def slack(self, norms: Sequence[float], radius: float) -> float:
        """Per-contributor bound on the residual that an honest, converged aggregate may leave, before rounding
        to float32 (PROTOCOL section 8: `eps tau_j`); `norms` are the contributors' distances to the aggregate."""

    def accepts(self, inputs_NP: Tensor, value_P: Tensor, radius: float, nearest: Nearest = itself) -> bool:
        """True if `value_P`, before it was rounded for its way, can have been this rule's output up to twice the stated
        tolerance, judged in float64."""
