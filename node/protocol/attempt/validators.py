"""CheckComputations: who recomputes whose gradient, the draw, its bound, and what happens when a drawn peer is removed.

Source: Gorbunov et al. 2021, Algorithm 7 (BTARD-SGD) lines on validators; PROTOCOL section 3 (Validators).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from btard.node.protocol.attempt.mprng import happens, permutation


@dataclass(frozen=True, slots=True)
class Draw:
    """Validators of a step, drawn from the randomness of the step before.

    Args:
        order: permutation of the earlier step's contributors.
        count: number of (validator, target) pairs: the first `count` peers of `order` validate the next `count`.
    """

    order: tuple[int, ...] = ()
    count: int = 0

    @property
    def targets(self) -> tuple[int, ...]:
        """The peers whose gradients are recomputed, pair by pair."""
        return self.order[self.count : 2 * self.count]

    def pairs(self, active: Collection[int]) -> tuple[tuple[int, int], ...]:
        """(validator, target) for a roster: a removed validator's pair passes to the next peer of the permutation.

        A target stays due after its own removal. A pair is dropped only when nobody is left to take it.
        """
        drawn = self.order[: self.count]
        spare = [peer for peer in self.order[2 * self.count :] if peer in active]
        result = []
        for validator, target in zip(drawn, self.targets, strict=True):
            if validator in active:
                result.append((validator, target))
            elif spare:
                result.append((spare.pop(0), target))
        return tuple(result)


def allowed_pairs(wanted: int, active: int, genesis_faults: int, removed: int, contribute: bool) -> int:
    """How many pairs a roster can afford.

    `n_contributors > 2 (f_0 - removed)` keeps an honest majority among the next step's contributors (who are all active
    peers where validators contribute too) and `3 m <= n_active` keeps most peers working. Never lowered below one: the
    bound of the whole genesis roster would stop validation after the first ban and keep the second attacker for ever.

    Args:
        wanted: pairs asked for (`--validators`).
        active: size of the active roster.
        genesis_faults: f_0.
        removed: removals so far that count against f_0.
        contribute: validators contribute too.
    """
    if wanted == 0:
        return 0
    left = max(genesis_faults - removed, 0)
    by_majority = wanted if contribute else active - 2 * left - 1
    return max(1, min(wanted, by_majority, active // 3))


def draw(r: bytes, contributors: Sequence[int], pairs: int, validate_every: int) -> Draw:
    """Draw the validators of the next step from this step's contributors.

    Args:
        r: randomness of the step just committed, fixed after all its gradients.
        contributors: who computed a gradient in that step.
        pairs: `allowed_pairs` of the next roster.
        validate_every: a draw happens with probability `1 / validate_every`, decided by r (a fixed rhythm
            would be attacked around).
    """
    count = min(pairs, len(contributors) // 2)
    if count == 0 or not happens(r, "validate", 0, 1.0 / validate_every):
        return Draw()
    return Draw(permutation(r, contributors), count)
