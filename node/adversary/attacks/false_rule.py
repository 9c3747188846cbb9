"""The aggregation rule of an attacker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from btard.node.protocol.rule import itself

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.protocol.rule import Aggregated, Nearest, Rows, Rule


class FalseRule:
    """A rule that tells the truth about everything but its own node's aggregates at scheduled steps."""

    def __init__(self, rule: Rule, change: Callable[[Aggregated], Aggregated]) -> None:
        self._rule = rule
        self._change = change

    @property
    def audited(self) -> bool:
        return self._rule.audited

    def aggregate(self, inputs_NP: Rows, radius: float) -> Aggregated:
        return self._change(self._rule.aggregate(inputs_NP, radius))

    def clip_radius(self, radius: float) -> float:
        return self._rule.clip_radius(radius)

    def slack(self, norms: Sequence[float], radius: float) -> float:
        return self._rule.slack(norms, radius)

    def accepts(self, inputs_NP: Tensor, value_P: Tensor, radius: float, nearest: Nearest = itself) -> bool:
        return self._rule.accepts(inputs_NP, value_P, radius, nearest)
