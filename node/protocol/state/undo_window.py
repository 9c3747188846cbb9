"""The window of undo: what the last committed steps started from, and whose contributions to them are in question.

The window is part of the agreed state; with `--undo 0` it stays empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from btard.node.protocol.attempt.mprng import permutation
from btard.node.protocol.wire.digest import digest, number

if TYPE_CHECKING:
    from btard.node.protocol.attempt.record import AttemptRecord


class Contribution(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True):
    """What `owner` contributed to a committed step, by the number of the attempt that stood."""

    step: int
    attempt: int
    owner: int


def layer_digest(record: AttemptRecord, transcript: bytes) -> bytes:
    """Digest of a committed step: of the certified state before it and of its transcript, which bind all the rest."""
    before = record.state.summary.digest if record.step else b""
    return digest("layer", number(record.step), number(record.number), before, transcript)


@dataclass(frozen=True, slots=True)
class Layer:
    """One committed step with gradients.

    Args:
        record: of it, `own_D` None and its state without a window.
        digest: `layer_digest`.
    """

    record: AttemptRecord
    digest: bytes

    @property
    def step(self) -> int:
        """The step's number."""
        return self.record.step


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


@dataclass(frozen=True, slots=True)
class Window:
    """The window before a step.

    Args:
        layers: the steps that the parameters went through, ascending, as far as they are kept.
        forgotten: earlier ones are not kept any more.
        examined: how many entries of the ban list have been dealt with.
        undone: what the step before came to, if it was an undo step; it follows from the rest.
    """

    layers: tuple[Layer, ...] = ()
    forgotten: bool = False
    examined: int = 0
    undone: Restoration | None = None

    @property
    def digest(self) -> bytes:
        """What CLOSE covers of it."""
        return digest("window", number(self.forgotten), number(self.examined), *(layer.digest for layer in self.layers))

    def of(self, peers: Iterable[int]) -> tuple[Contribution, ...]:
        """All contributions of some peers that are kept, ascending."""
        wanted = frozenset(peers)
        if not wanted:  # as in almost every step
            return ()
        return tuple(
            Contribution(layer.step, layer.record.number, owner)
            for layer in self.layers
            for owner in layer.record.contributors
            if owner in wanted
        )

    def layer(self, item: Contribution) -> Layer:
        """The step that a contribution was made to."""
        return next(layer for layer in self.layers if (layer.step, layer.record.number) == (item.step, item.attempt))


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
