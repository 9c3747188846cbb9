"""Random runs, guided by coverage: lines that bring honest peers into a new joint situation are kept and changed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from random import Random

from tests.adversary.cluster import Size
from tests.adversary.explore import Found, base, line
from tests.adversary.moves import LINKS, act, is_style, menu
from tests.adversary.play import advance, after
from tests.adversary.snapshot import Snapshot
from tests.adversary.world import World

Gene = tuple[int, str]
"""How many instants pass, and a move: a whole word, a verb, a verb and a phase, or nothing.

-1 to -4: until only timers are left for the first to fourth time; -8: until a puppet has a fresh message of the phase
that the move names; -9: until one speaks.
"""
_MOST_GENES = 10
_STYLES = (("near", "c"),) * 4 + tuple((links, outcomes) for links in LINKS for outcomes in ("c", "c", "r", "n"))


@dataclass
class Guide:
    """A search that learns.

    Args:
        size: of the cluster.
        seed: of its choices.
        kills: restarts are moves too.
        prefix: words that every run begins with.
    """

    size: Size
    seed: int
    kills: bool = False
    prefix: str = ""
    corpus: list[tuple[list[str], list[Gene]]] = field(default_factory=list)
    covered: set[object] = field(default_factory=set)
    _bases: dict[str, tuple[Snapshot, tuple[str, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._dice = Random(self.seed)

    def _start(self, style: list[str]) -> tuple[World, tuple[str, ...]]:
        name = ",".join(style)
        if name not in self._bases and self.prefix:
            words = self.prefix.split(",")
            world, begun = after(self.size, words, self.kills), tuple(word for word in words if not is_style(word))
            self._bases[name] = Snapshot.of(world), begun
        elif name not in self._bases:
            world, waited = base(self.size, style, self.kills)
            self._bases[name] = Snapshot.of(world), (f"+{waited}",)
        snapshot, begun = self._bases[name]
        return snapshot.world(), begun

    def _fresh(self) -> list[Gene]:
        """A line from nothing: any moves, or a message that comes late to some and what may follow from it."""
        dice = self._dice
        if self.prefix:
            return [(dice.choice((0, 0, 0, 1, 2, -1)), "") for _ in range(dice.randint(1, 4))]
        if dice.random() < 0.3:
            return [(self._gap(), "") for _ in range(dice.randint(2, 6))]
        phase = dice.choice(("CLOSE", "CLOSE", "CLOSE", "COMMIT", "AGG", "REVEAL", "REPORT", "CHECKSUMS"))
        genes = [(-8, f"hold::{phase}")]
        if dice.random() < 0.5:
            genes.append((-8, "hold::COMMIT"))
        genes.append((-dice.randint(1, 4), f"give::{phase}"))
        more = ("trip", "bad", "susp", "fate", "view", "twin", "hold", "give", "odd", "")
        genes += [(dice.choice((0, 0, 1, 2, self._gap())), dice.choice(more)) for _ in range(dice.randint(1, 5))]
        return genes

    def _gap(self) -> int:
        return self._dice.choice((-1, -1, -1, -2, -3, -9, -9, 0, 0, 0, 1, 1, 2, 3, 5, 8, 13))

    def _changed(self, genes: list[Gene]) -> list[Gene]:
        dice, genes = self._dice, list(genes)
        for _ in range(dice.choice((1, 1, 2, 3))):
            place = dice.randrange(len(genes) + 1)
            match dice.choice(("insert", "insert", "drop", "gap", "move", "splice")):
                case "insert":
                    genes.insert(place, (self._gap(), ""))
                case "drop" if len(genes) > 1:
                    del genes[min(place, len(genes) - 1)]
                case "gap" if place < len(genes):
                    genes[place] = self._gap(), genes[place][1]
                case "move" if place < len(genes):
                    genes[place] = genes[place][0], ""
                case "splice" if self.corpus:
                    genes = genes[:place] + dice.choice(self.corpus)[1][place:]
                case _:
                    pass
        return genes[:_MOST_GENES] or self._fresh()

    def run(self, found: Found) -> bool:
        """One run; true if it reached something new."""
        dice = self._dice
        if self.corpus and dice.random() < 0.85:
            # The younger half of the corpus is deeper.
            low = 0 if dice.random() < 0.5 else len(self.corpus) // 2
            style, genes = self.corpus[dice.randrange(low, len(self.corpus))]
            genes = self._changed(genes)
        else:
            style, genes = list(dice.choice(_STYLES)), self._fresh()
        if self.prefix:
            style = [word for word in self.prefix.split(",") if is_style(word)]
        world, begun = self._start(style)
        self._camp = set(dice.sample(world.honest, dice.randint(1, len(world.honest) - 1)))
        trail, done, new = begun, list[Gene](), False
        broken: str | None = None

        def on() -> None:
            nonlocal broken, new, trail
            broken = advance(world)
            trail = (*trail, "+1")
            situation = _situation(world)
            if situation not in self.covered:
                self.covered.add(situation)
                new = True

        for gap, word in genes:
            passed = quiet = 0
            while broken is None and not world.over and not _there(world, gap, passed, quiet, word):
                on()
                passed += 1
                quiet += world.quiet
            if broken is not None or world.over:
                break
            word = word if ":" in word and "::" not in word else self._choose(world, word)
            if word and act(world, word):
                trail = (*trail, word)
                done.append((passed, word))
        while broken is None and not world.over:
            on()
        found.add(world, line(style, trail) if broken else "", broken)
        if broken is None and new:
            self.corpus.append((style, done))
        return new

    def _choose(self, world: World, wish: str) -> str:
        """A move that makes sense now, toward one of the run's camps more often than not."""
        dice, (verb, _, phase) = self._dice, (wish + "::").split(":")[:3]
        words = menu(world, self.kills, everything=True)
        wished = [word for word in words if word.startswith(verb) and (not phase or f":{phase}:" in word)]
        words = wished or ([] if phase else words)
        if not words:
            return ""
        verb = dice.choice(sorted({word.split(":")[0] for word in words}))
        words = [word for word in words if word.startswith(verb + ":")]
        whom = dice.choice((self._camp, self._camp, set(world.honest) - self._camp, set(world.honest), None))
        fit = [word for word in words if whom is None or set(_targets(word)) == whom]
        return dice.choice(fit or words)


def _targets(word: str) -> set[int]:
    verb, *rest = word.split(":")
    text = rest[1] if verb in ("trip", "susp", "view", "fate", "votes") else rest[0] if verb == "kill" else rest[2]
    return {int(digit) for digit in text.rstrip("-")}


def _there(world: World, gap: int, passed: int, quiet: int, wish: str) -> bool:
    if gap >= 0:
        return passed >= gap
    if gap == -8:
        phase = wish.split(":")[2]
        return any(said.fresh and said.body.slot.phase.name == phase for said in world.pool)
    if gap == -9:
        return passed > 0 and any(said.fresh for said in world.pool)
    return quiet >= -gap


def _situation(world: World) -> object:
    """Where honest peers are, relative to the one behind: phase, disputes, camps."""
    places = [world.place[me] for me in world.honest]
    low = min(place[0] for place in places)
    seen = []
    for me, (step, attempt, phase) in zip(world.honest, places, strict=True):
        disputes = world.disputes[me]
        now, before = disputes.get((step, attempt), ""), ""
        for (other, number), state in disputes.items():
            if (other, number) != (step, attempt):
                before = max(before, state if (other, number) >= (low, 0) else "")
        seen.append((step - low, attempt, phase.value, now, before, world.peers[me].stopped))
    kept = frozenset((said.body.slot.phase.value, len(said.waiting)) for said in world.pool if not said.fresh)
    return tuple(sorted(seen)), kept


def guide(
    size: Size, seed: int, runs: int, until: float, kills: bool = False, stop_at_first: bool = False, prefix: str = ""
) -> tuple[Found, Guide]:
    """Runs up to a number or a time.

    Args:
        size: of the cluster.
        seed: of its choices.
        runs: at most.
        until: `time.monotonic()` at which to stop.
        kills: restarts are moves too.
        stop_at_first: a broken promise ends it.
        prefix: words that every run begins with.
    """
    began = time.process_time()
    found, learner = Found(), Guide(size, seed, kills, prefix)
    while found.runs < runs and time.monotonic() < until and not (stop_at_first and found.broken):
        learner.run(found)
    found.cpu_s = time.process_time() - began
    return found, learner
