"""Judges a run by what honest peers reported; it calls nothing of the protocol that it judges."""

from __future__ import annotations

import hashlib

from btard.node.protocol.api import Banned, Committed, Expelled, Finished, Halted, Voided
from tests.adversary.world import LIMIT, MOST_EVENTS, World

_GONE = ("silent", "late", "withheld", "edges")
"""Reasons for which a peer that was away may be removed; none of them says that it lied."""


def violation(world: World, ended: bool) -> str | None:
    """The promise that a run broke, in words that begin with its kind; None if it holds so far.

    Args:
        world: under way or over.
        ended: nothing is left to happen: whoever has not finished never will.
    """
    if world.crash:
        return f"crash: {world.crash}"
    models: dict[int, dict[int, tuple[str, tuple[int, ...]]]] = {}
    endings: dict[tuple[int, int], dict[int, tuple[str, tuple[int, ...]]]] = {}
    """How each attempt ended at each peer: committed or void, and who was removed until then."""
    bans: dict[int, set[int]] = {me: set() for me in world.honest}
    finished: dict[int, str] = {}
    lost: set[int] = set()
    for _, me, notice in world.notices:
        match notice:
            case Committed():
                model = hashlib.sha256(notice.parameters_D.numpy().tobytes()).hexdigest()[:12]
                models.setdefault(notice.step, {})[me] = model, tuple(notice.active)
                endings.setdefault((notice.step, notice.attempt), {})[me] = "committed", tuple(sorted(bans[me]))
            case Voided():
                endings.setdefault((notice.step, notice.attempt), {})[me] = "void", tuple(sorted(bans[me]))
            case Banned(removed=True):
                gone = notice.peer in world.killed and notice.reason in _GONE
                if notice.peer in world.honest and notice.reason != "eliminated" and not gone:
                    return f"removal: honest peer {notice.peer} is removed ({notice.reason}) at peer {me}"
                bans[me].add(notice.peer)
            case Expelled():
                if notice.reason != "eliminated" and not (me in world.killed and notice.reason in _GONE):
                    return f"removal: honest peer {me} is out ({notice.reason})"
                lost.add(me)
            case Halted() if me in world.killed:
                lost.add(me)  # cut off: the others went on from another state
            case Halted():
                return f"halt: peer {me}: {notice.problem}"
            case Finished():
                finished[me] = hashlib.sha256(notice.parameters_D.numpy().tobytes()).hexdigest()[:12]
            case _:
                pass
    # A peer that was killed counts as faulty while it is away: it may be removed as gone, or be cut off with what it
    # alone has committed. It is held to the others' word if it is there at the end.
    apart = world.killed if not ended else world.killed & lost
    for told in (*models.values(), *endings.values()):
        for me in apart:
            told.pop(me, None)
    for step, held in sorted(models.items()):
        if len(set(held.values())) > 1:
            return f"fork: step {step} is {held}"
    for (step, attempt), ends in sorted(endings.items()):
        if len(set(ends.values())) > 1:
            return f"fork: attempt {step}.{attempt} ends as {ends}"
    if not ended:
        return None
    present = [me for me in world.honest if me not in lost]
    if world.now > LIMIT or world.events > MOST_EVENTS:
        return f"liveness: after {world.events} events and {world.now / 1e6:.0f} s the run goes on"
    waiting = [me for me in present if me not in finished]
    if waiting:
        return f"liveness: peers {waiting} never finish"
    if len({finished[me] for me in present}) > 1:
        return f"fork: final models {finished}"
    # Who was away may be told of the end with the state alone: it reports no removal that it has not seen.
    said = [bans[me] for me in present if me not in world.killed]
    if len({frozenset(each) for each in said}) > 1 or any(not bans[me] <= said[0] for me in present if said):
        return f"fork: rosters {bans}"
    return None
