"""What a composed run held: counted for the record, judged by nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from btard.node.drivers.simulator import Observed
from btard.node.protocol.api import Banned, Committed, Disputed, Resolved, Suspected, Undone, Voided
from tests.simulation.checkers.liveness import awaits_another, dispute_bound_s
from tests.simulation.hooked import Hooked
from tests.simulation.stage import Stage


class Played(msgspec.Struct, frozen=True):
    """One seed's outcome: what broke (empty: nothing), CPU seconds, and what happened, by name."""

    seed: int
    problem: str
    cpu_s: float
    facts: dict[str, float]


class Ledger:
    """Counts attempts, removals and disputes of one run, each once, however many honest peers report it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._once: set[tuple[object, ...]] = set()
        self._counts: Counter[str] = Counter()
        self._began: dict[tuple[int, int, int], tuple[float, int, bool]] = {}
        self._slowest = 0.0

    def see(self, seen: Observed) -> None:
        """See Checker."""
        if seen.node not in self._stage.honest:
            return
        match seen.output:
            case Committed(step=step):
                self._count("steps", step)
            case Undone() as undone:
                self._count("undo steps", undone.step)
                self._count(
                    "undo steps that restored something" if undone.lies else "undo steps without a lie", undone.step
                )
            case Voided(step=step, attempt=attempt):
                self._count("void attempts", step, attempt)
            case Banned() as ban:
                self._count(f"removed: {ban.reason}" if ban.removed else "reformed", ban.step, ban.peer)
                if ban.peer in self._stage.honest:
                    self._count("honest peers eliminated", ban.peer)
            case Suspected() as suspected:
                self._count("slots suspected", suspected.step, suspected.attempt, suspected.phase, suspected.peer)
            case Disputed(step=step, attempt=attempt):
                self._count("disputes", step, attempt)
                active = len(self._stage.simulation.nodes[seen.node].peer.state.roster.active)
                self._began[seen.node, step, attempt] = seen.time_s, active, awaits_another(self._stage, seen.node)
            case Resolved() as resolved:
                self._count(f"disputes that end in {resolved.outcome}", resolved.step, resolved.attempt)
                began = self._began.get((seen.node, resolved.step, resolved.attempt))
                if began is not None:
                    share = (seen.time_s - began[0]) / dispute_bound_s(self._stage, *began[1:])
                    self._slowest = max(self._slowest, share)

    def end(self) -> None:
        """See Checker."""

    def facts(self) -> dict[str, float]:
        """Counts by name, with the run's size; `slowest dispute` in units of its bound."""
        size = {"peers": float(self._stage.run.peers), "attackers": float(len(self._stage.roles))}
        hostile = {step for peer in self._stage.roles for step in self._stage.adversary(peer).attacked}
        simulation = self._stage.simulation
        moves = simulation.moves if isinstance(simulation, Hooked) else {}
        played = {f"move: {name}": float(count) for name, count in moves.items()}
        return {
            **size,
            **self._counts,
            **played,
            "hostile steps": float(len(hostile)),
            "slowest dispute": self._slowest,
        }

    def _count(self, what: str, *which: object) -> None:
        if (what, *which) not in self._once:
            self._once.add((what, *which))
            self._counts[what] += 1


def table(done: Sequence[Played]) -> str:
    """The sums of many runs, as text."""
    good = [result.facts for result in done if not result.problem]
    sums: Counter[str] = Counter()
    for facts in good:
        sums.update({name: value for name, value in facts.items() if name not in ("peers", "slowest dispute")})
    sizes = Counter(int(facts["peers"]) for facts in good)
    per_run = Counter(int(facts.get("disputes", 0)) for facts in good)
    cpu_s = sum(run.cpu_s for run in done)
    slowest = max((facts["slowest dispute"] for facts in good), default=0.0)
    lines = [
        f"{len(done)} runs, {len(done) - len(good)} with a broken promise, {cpu_s:.0f} s of CPU",
        "peers: " + ", ".join(f"n={size}: {count}" for size, count in sorted(sizes.items())),
        "disputes per run: " + ", ".join(f"{many}: {count}" for many, count in sorted(per_run.items())),
        f"slowest dispute: {slowest:.2f} of its bound",
        *(f"{name}: {int(count)}" for name, count in sorted(sums.items())),
    ]
    return "\n".join(lines)
