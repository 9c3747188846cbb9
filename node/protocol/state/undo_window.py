"""Undo: which contributions are in question, who recomputes which of them, and what it comes to.

What is kept of the last committed steps is part of the agreed state: `Window` (node/protocol/state/state.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from btard.node.protocol.attempt.mprng import permutation


class Contribution(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True):
    """What `owner` contributed to a committed step, by the number of the attempt that stood."""

    step: int
    attempt: int
    owner: int


@dataclass(frozen=True, slots=True)
class Restoration:
    """What an undo step came to.

    Args:
        suspects: whose contributions were in question.
        lies: those that are false, ascending.
        to_step: the step whose initial parameters stand again; None: nothing was false.
        lost: steps with gradients that no longer count.
        older: the first lie may be older than the window.
    """

    suspects: tuple[int, ...]
    lies: tuple[Contribution, ...]
    to_step: int | None
    lost: int
    older: bool


def recheck_shares(
    due: Sequence[Contribution], checkers: int, active: tuple[int, ...], r: bytes
) -> dict[int, tuple[Contribution, ...]]:
    """Who recomputes what: each contribution is due from `checkers` active peers, none of them its owner.

    Args:
        due, checkers: of the undo step.
        active: the roster of the attempt.
        r: of the step before, which no attacker knew when it contributed.
    """
    shares: dict[int, tuple[Contribution, ...]] = {}
    order = permutation(r, active) if due else ()
    for place, item in enumerate(due):
        pool = [peer for peer in order if peer != item.owner]
        for turn in range(min(checkers, len(pool))):
            checker = pool[(place * checkers + turn) % len(pool)]
            shares[checker] = (*shares.get(checker, ()), item)
    return shares
