"""Broken pairs: what answered complaints about parts and false HAVE bits add up to.

A peer and the owner of bytes that it says it lacks cannot prove to others which of them failed. An edge joins them;
honest peers share none: what an honest owner sends is what it committed to, and comes before the wait is over.
Source: Gorbunov et al. 2021, section 3.2 (ELIMINATE(i, j)); PROTOCOL section 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from btard.node.protocol.adjudication.charges import Broken, Guilt
from btard.node.protocol.adjudication.judging import Case
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import late_pairs
from btard.node.protocol.attempt.phases import PHASES
from btard.node.protocol.attempt.transfers import bits, denials

EDGE = 2
"""The charge from which on a pair shares an edge: bytes that one lacked in two steps. Once may be a network that was
cut in the midst of a phase: a peer then lacks the bytes of all others, or they its own, and would be removed."""
ELIMINATION = 4
"""The charge that removes both of a pair: bytes that one lacked in four steps."""

LATE_STEPS, LATE_WINDOW = 10, 100
"""A pair with late edges in more steps than this, of the last that were committed, is eliminated."""

Late = tuple[tuple[int, int, tuple[int, ...]], ...]
"""(lower id, higher id, steps of the window in which one kept the other waiting), ascending."""

Complaints = tuple[tuple[int, int, int], ...]
"""(lower id, higher id, committed steps in which one lacked bytes that the other owed it), ascending."""


def after(attempt: Attempt, case: Case | None = None) -> Complaints:
    """The charges after a committed attempt: one for each pair with an answered complaint, or with bytes that one lacks
    and enough others hold.

    What one lacks of oneself is a pair of its own: it costs everyone a pull, and must not be free for ever. None
    counts where they would tie more than f_0 peers to more than f_0 others each: that many cannot be faulty, and honest
    peers share no edge while synchrony holds. The network was cut, and all would remove each other.
    """
    charges = {(low, high): charge for low, high, charge in attempt.state.summary.complaints}
    lacking = {(min(pair), max(pair)) for pair in (*attempt.complaints(), *_lacking(attempt, case))}
    if not lacking:  # as in almost every step
        return attempt.state.summary.complaints
    for pair in lacking:
        charges[pair] = charges.get(pair, 0) + 1
    most = attempt.roster.genesis_faults
    if sum(len(_tied(peer, charges)) > most for peer in attempt.roster.active) > most:
        return attempt.state.summary.complaints
    return tuple((low, high, charge) for (low, high), charge in sorted(charges.items()))


def _edges(charges: Complaints) -> list[tuple[int, int]]:
    return [(low, high) for low, high, charge in charges if charge >= EDGE]


def _lacking(attempt: Attempt, case: Case | None) -> Iterator[tuple[int, int]]:
    """(who lacked bytes, whose they were), once for each item."""
    for phase, row in PHASES.items():
        if row.items is not None and not all(all(have) for _, have in bits(attempt, phase)):
            for peer, item in denials(attempt, phase, row.items.of(attempt, case)):
                yield peer, item.owner


def late_after(attempt: Attempt, active: Sequence[int]) -> Late:
    """The late edges of the window after a committed attempt, whose REPORTs tell of the step before.

    None of that step counts where they would tie more than f_0 peers to more than f_0 others each (see `after`).

    Args:
        attempt: complete.
        active: who is left after it.
    """
    step, most = attempt.step - 1, attempt.roster.genesis_faults
    fresh = late_pairs(attempt)
    if not fresh and not attempt.state.summary.late:
        return ()
    if sum(len(_tied(peer, fresh)) > most for peer in attempt.roster.active) > most:
        fresh = frozenset()
    steps = {(low, high): found for low, high, found in attempt.state.summary.late}
    for pair in fresh:
        steps[pair] = (*steps.get(pair, ()), step)
    left = {pair: tuple(when for when in found if when > step - LATE_WINDOW) for pair, found in steps.items()}
    return tuple((*pair, found) for pair, found in sorted(left.items()) if found and set(pair) <= set(active))


def broken(attempt: Attempt, out: frozenset[int], charges: Complaints | None = None) -> tuple[Guilt, ...]:
    """Who is broken off after a committed attempt.

    Args:
        attempt: with its complaints answered.
        out: peers that its judgement removes anyway.
        charges: after it; None: what `after` makes of it without its judging.

    Returns:
        First, each alone, peers with edges to more than f_0 distinct genesis peers, or late too often towards as many;
        then both peers of every pair at its fourth charge, or that was late too often, in roster order, skipping
        pairs that have lost a member.
    """
    charges = after(attempt) if charges is None else charges
    edges = _edges(charges)
    slow = [(low, high) for low, high, steps in late_after(attempt, attempt.roster.active) if len(steps) > LATE_STEPS]
    if not charges and not slow:
        return ()
    gone = set(out)
    guilts = []
    for peer in attempt.roster.active:
        if peer not in gone and len(_tied(peer, edges)) > attempt.roster.genesis_faults:
            gone.add(peer)
            guilts.append(Guilt(peer, "edges", None, Broken(peer, None)))
        elif peer not in gone and len(_tied(peer, slow)) > attempt.roster.genesis_faults:
            gone.add(peer)
            guilts.append(Guilt(peer, "late", None, Broken(peer, None)))
    for low, high, charge in (*charges, *((low, high, ELIMINATION) for low, high in slow)):
        if low == high and charge >= ELIMINATION and low in attempt.roster.active and low not in gone:
            gone.add(low)
            guilts.append(Guilt(low, "edges", None, Broken(low, None)))
        both_in = {low, high} <= set(attempt.roster.active) - gone
        if charge >= ELIMINATION and both_in:
            gone |= {low, high}
            guilts += [
                Guilt(low, "eliminated", None, Broken(low, high)),
                Guilt(high, "eliminated", None, Broken(high, low)),
            ]
    return tuple(guilts)


def _tied(peer: int, pairs: Iterable[tuple[int, int]]) -> set[int]:
    """The other peers of all pairs that this one is in."""
    return {other for pair in pairs if peer in pair for other in pair if other != peer}
