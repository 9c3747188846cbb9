"""Every sequence of moves up to a number of deviations, depth first; a state that was seen is not entered again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from tests.adversary.cluster import Size
from tests.adversary.moves import act, is_style, menu
from tests.adversary.oracle import violation
from tests.adversary.play import advance, after, new
from tests.adversary.snapshot import Snapshot, names
from tests.adversary.world import World

FIRST = 1
"""The step in which deviations begin: the one before gives them validators, norms and a past to lie about."""


@dataclass
class Found:
    """What a search has seen.

    Args:
        states: names of distinct joint states of all honest peers and the network.
        runs: that came to their end.
        events: inputs to peers.
        hostile: attempts in which the adversary deviated, of all runs.
        cpu_s: processor time.
        broken: lines that break a promise, with the promise.
        complete: nothing was left out.
    """

    states: set[int] = field(default_factory=set)
    runs: int = 0
    events: int = 0
    hostile: int = 0
    cpu_s: float = 0.0
    broken: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = True

    def add(self, world: World, text: str, broken: str | None) -> None:
        """A run has ended, or broken a promise."""
        self.runs += 1
        self.events += world.events
        self.hostile += len(world.deviated)
        if broken is not None:
            self.broken.append((text, broken))

    def merge(self, other: Found) -> None:
        """What another part of the search has seen."""
        self.states |= other.states
        self.runs += other.runs
        self.events += other.events
        self.hostile += other.hostile
        self.cpu_s += other.cpu_s
        self.broken += other.broken
        self.complete &= other.complete


def base(size: Size, style: list[str], kills: bool) -> tuple[World, int]:
    """A world just after its last honest peer has entered step FIRST, and how many instants that took."""
    world, instants = new(size, style, kills), 0
    while not world.over and min(world.place[me][0] for me in world.honest) < FIRST:
        world.go()
        instants += 1
    broken = violation(world, world.over)
    if broken is not None:
        raise RuntimeError(f"before anybody deviates: {broken}")
    return world, instants


def line(style: list[str], trail: tuple[str, ...]) -> str:
    """A run as one word for the command line; instants that pass are counted."""
    words: list[str] = []
    waited = 0
    for word in (*trail, ""):
        if word == "+1":
            waited += 1
            continue
        if word[:1] == "+" and word[1:].isdigit():
            waited += int(word[1:])
            continue
        words += [f"+{waited}"] if waited and word else []
        waited = 0
        words += [word] if word else []
    return ",".join([word for word in style if is_style(word)] + words)


def _within(world: World) -> bool:
    """An honest peer is in one of the two steps in which puppets deviate."""
    return any(world.place[me][0] <= FIRST + 1 for me in world.honest if not world.peers[me].stopped)


def explore(
    size: Size, style: list[str], deviations: int, most: int, until: float, kills: bool = False,
    share: tuple[int, int] = (0, 1), stop_at_first: bool = False, prefix: str = "", found: Found | None = None,
) -> Found:  # fmt: skip
    """Search.

    Args:
        size, style: of the cluster.
        deviations: at most in one run.
        most: distinct states after which to stop, those of `found` among them.
        until: `time.monotonic()` at which to stop.
        kills: restarts are moves too.
        share: (which, of how many) parts of the first deviations: several processes share a search.
        stop_at_first: a broken promise ends it.
        prefix: words that come first; deviations begin where they end.
        found: what was seen before, in other styles; added to.
    """
    found, began = found or Found(), time.process_time()
    seen: dict[int, int] = {}
    first, waited = base(size, style, kills)
    begun = (f"+{waited}",)
    if prefix:
        words = prefix.split(",")
        style, begun = [word for word in words if is_style(word)], tuple(word for word in words if not is_style(word))
        first = after(size, words, kills)
    stack: list[tuple[Snapshot, str, int, tuple[str, ...]]] = []
    root = Snapshot.of(first)
    turn = 0

    def walk(world: World, budget: int, trail: tuple[str, ...], last: str) -> None:
        """Along one run in which nothing more is done; what else could be done is put on the stack."""
        nonlocal turn
        while True:
            joint, whole = names(world)
            found.states.add(joint)
            if seen.get(whole, -1) >= budget:
                return
            seen[whole] = budget
            if budget and _within(world):
                here = Snapshot.of(world)
                for word in menu(world, kills):
                    if word <= last:
                        continue
                    turn += 1
                    if budget == deepest and turn % share[1] != share[0]:
                        continue
                    stack.append((here, word, budget, trail))
            last = ""
            if world.over:
                found.add(world, "", None)
                return
            broken = advance(world)
            trail = (*trail, "+1")
            if broken is not None:
                found.add(world, line(style, trail), broken)
                return

    for deepest in range(min(1, deviations), deviations + 1):
        # All runs with one deviation before any with two: a search that is cut short has seen something of everything.
        walk(root.world(), deepest, begun, "")
        Random(0).shuffle(stack)
        while stack:
            if len(found.states) >= most or time.monotonic() > until or (stop_at_first and found.broken):
                found.complete = False
                found.cpu_s += time.process_time() - began
                return found
            here, word, budget, trail = stack.pop()
            world = here.world()
            if act(world, word):
                walk(world, budget - 1, (*trail, word), word)
    found.cpu_s += time.process_time() - began
    return found


def shrink(size: Size, text: str, kind: str) -> Iterator[str]:
    """Ever shorter lines that break the same kind of promise; the last is the shortest that was found."""
    from tests.adversary.play import play

    words = text.split(",")
    place = len(words) - 1
    while place >= 0:
        fewer = words[:place] + words[place + 1 :]
        if not is_style(words[place]) and words[place][0] != "+":
            broken = play(size, ",".join(fewer)).broken
            if broken is not None and broken.split(":")[0] == kind:
                words = fewer
                yield ",".join(words)
        place -= 1
