"""The ground truth of a run as metrics: who attacks and when, what honest nodes agreed on, what became of it.

Only the launcher, or the observer of a cluster in containers, knows the roles; no node imports or serves this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from btard.launcher.monitor.state import Ban, Record, RunState
from btard.launcher.network import traffic
from btard.node.config import Role
from btard.node.metrics import declarations
from btard.node.metrics.declarations import Group
from btard.node.metrics.registry import MetricRegistry

HONEST = "none"
"""The attack of a peer that has none."""

_STATES = {"banned": 3, "gone": 4, "eliminated": 4}
_EVENTS = ("attack_started", "attack_stopped", "banned", "gone", "eliminated", "returned", "voided", "disputed",
           "halted", "failed", "finished")  # fmt: skip
_JOURNALLED = frozenset({"voided", "disputed", "halted", "failed"})
_OF_ATTEMPTS = frozenset({"voided", "disputed"})
_OF_STEPS = frozenset({"committed", "banned", "voided", "disputed"})


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the run as a whole, counted once however many nodes report it.

    Args:
        name: one of `scenario_event_total`'s events.
        time_s: seconds since the epoch, by the clock of the node that reported it first.
        about: the attack or the peer it concerns, for people.
        text: one line.
        since_s: when it began, for what has lasted: an attack that stopped, an attacker's way to its ban.
    """

    name: str
    time_s: float
    about: str
    text: str
    since_s: float | None = None


class GroundTruth:
    """Keeps the ground truth's metrics up to date.

    Args:
        roles: who attacks, and how, by id.
        state: the run's, already folded when `saw` is called; it knows the run's earlier life, if there was one.
        dimension: D, for the bytes that the formula expects; None where it is unknown.
        entry_bytes: of an entry on the wire, for the same.
    """

    def __init__(
        self,
        roles: Mapping[int, Role],
        state: RunState,
        dimension: int | None = None,
        entry_bytes: int = traffic.FLOAT_BYTES,
    ) -> None:
        self.registry = CollectorRegistry()
        self._roles, self._state, self._dimension, self._entry_bytes = roles, state, dimension, entry_bytes
        crowded = state.peers > declarations.PEER_LABEL_LIMIT  # then no node tells its peers apart, and we do it alone
        states = (declarations.metric("peer_state"),) if crowded else ()
        self._board = MetricRegistry(self.registry, (*declarations.of(Group.TRUTH), *states), 0)
        self._crowded = crowded
        self._names = {peer: attack_name(role) for peer, role in roles.items()}
        self._under_way: set[str] | None = None  # before the first step
        self._since_s: dict[int, float] = {}
        self._windows: dict[str, float] = {}
        # What an earlier life of the run has told is told as metrics, and is no event again.
        self._step = state.step
        self._out: set[int] = set(state.first_bans) - set(state.returned)
        self._seen: set[tuple[object, ...]] = set()
        self._banned: set[int] = set(state.first_bans)
        self._back: set[int] = set(state.returned)
        self._counted = -1
        self._expected = 0
        self._start()

    def saw(self, records: Sequence[Record]) -> list[Event]:
        """Bring the metrics up to date after these records were folded into the state; returns what is new in them."""
        if not records:
            return []
        now_s = max(float(record["time"]) for record in records)
        state, board = self._state, self._board
        board.gauge("run_step").set(state.step)
        accuracy = state.accuracy()
        if accuracy:
            board.gauge("run_accuracy_ratio").set(accuracy[-1][1])
        self._expect_bytes()
        found = [*self._attacks(records), *self._removals(records), *self._others(records), *self._end(now_s)]
        for event in found:
            board.counter("scenario_event_total", event=event.name).inc()
        return found

    def scored(self, final_accuracy: float | None) -> None:
        """The run is over: its final accuracy, as in the summary."""
        if final_accuracy is not None:
            self._board.gauge("final_accuracy_ratio").set(final_accuracy)

    def _start(self) -> None:
        board = self._board
        board.gauge("run_step").set(self._state.step)
        board.gauge("expected_bytes").set(0)
        for name in _EVENTS:
            board.counter("scenario_event_total", event=name)
        for peer in self._state.nodes:
            name = self._names.get(peer, HONEST)
            board.gauge("peer_byzantine", peer=str(peer), attack=name).set(peer in self._roles)
            if self._crowded:
                board.gauge("peer_state", peer=str(peer)).set(1)
        for peer in self._out:
            self._removed(peer, self._state.first_bans[peer])
        for name in {HONEST, *self._names.values()}:
            board.gauge("attack_active", attack=name).set(0)
            board.counter("attack_steps_total", attack=name)

    def _attacks(self, records: Sequence[Record]) -> Iterable[Event]:
        """Attacks whose schedule is on at the step under way, at a peer that is still in; record by record, since
        many steps may have passed since the last look."""
        for record in records:
            what, now_s = record["event"], float(record["time"])
            if record["node"] in self._state.byzantine or what not in _OF_STEPS:
                continue
            if self._under_way is None:
                yield from self._step_begins(now_s)
            if what == "committed" and record["step"] > self._step:
                self._step = int(record["step"])
                yield from self._step_begins(now_s)
            elif what == "banned":
                self._out.add(int(record["peer"]))
                yield from self._changes(_banned_at(records, int(record["peer"])))

    def _step_begins(self, now_s: float) -> Iterable[Event]:
        yield from self._changes(now_s)
        for name in self._under_way or ():
            # A scrape may miss an attack that is caught within a second; a counter keeps it.
            self._board.counter("attack_steps_total", attack=name).inc()

    def _changes(self, now_s: float) -> Iterable[Event]:
        step = self._step + 1
        attacking = [peer for peer, role in self._roles.items() if _on(role, step) and peer not in self._out]
        for peer in attacking:
            self._since_s.setdefault(peer, now_s)
        current = {self._names[peer] for peer in attacking}
        for name in sorted(current ^ (self._under_way or set())):
            started = name in current
            self._board.gauge("attack_active", attack=name).set(started)
            what = "started" if started else "stopped"
            since_s = None if started else self._windows.get(name)
            self._windows[name] = now_s
            yield Event(f"attack_{what}", now_s, name, f"attack {name} {what} at step {step}", since_s)
        self._under_way = current

    def _removals(self, records: Sequence[Record]) -> Iterable[Event]:
        for peer, ban in self._state.first_bans.items():
            if peer in self._banned:
                continue
            self._banned.add(peer)
            when_s = _banned_at(records, peer)
            self._removed(peer, ban)
            if ban.standing == "banned" and peer in self._since_s:
                self._board.gauge("time_to_ban_seconds", peer=str(peer)).set(when_s - self._since_s[peer])
            who = "attacker" if peer in self._roles else "honest peer"
            text = f"{who} {peer} {ban.standing} at step {ban.step}: {ban.reason}"
            yield Event(ban.standing, when_s, str(peer), text, self._since_s.get(peer))

    def _removed(self, peer: int, ban: Ban) -> None:
        if ban.standing == "banned":
            self._board.gauge("peer_banned_step", peer=str(peer), reason=ban.reason).set(ban.step)
        if self._crowded:
            self._board.gauge("peer_state", peer=str(peer)).set(_STATES[ban.standing])

    def _others(self, records: Sequence[Record]) -> Iterable[Event]:
        for peer in self._state.returned.keys() - self._back:
            self._back.add(peer)
            self._out.discard(peer)
            if self._crowded:
                self._board.gauge("peer_state", peer=str(peer)).set(1)
            now_s = float(records[-1]["time"])
            yield Event("returned", now_s, str(peer), f"peer {peer} back after step {self._state.returned[peer].step}")
        for record in records:
            name = str(record["event"])
            if name == "scenario":
                action = str(record["action"])
                yield Event(action, float(record["time"]), "scenario", f"{action}: {record['text']}")
                continue
            if name not in _JOURNALLED or record["node"] in self._state.byzantine:
                continue
            # Every honest node reports the same attempt; each node halts or fails on its own.
            where = (record["step"], record["attempt"]) if name in _OF_ATTEMPTS else (record["node"],)
            if (name, *where) not in self._seen:
                self._seen.add((name, *where))
                yield Event(name, float(record["time"]), str(record["node"]), f"{name} at step {self._state.step + 1}")

    def _end(self, now_s: float) -> Iterable[Event]:
        """Once all honest nodes that are still in have finished."""
        left = [self._state.nodes[node] for node in self._state.honest]
        if left and ("finished",) not in self._seen and all(node.finished or node.out for node in left):
            self._seen.add(("finished",))
            yield Event("finished", now_s, "run", f"finished at step {self._state.step}")

    def _expect_bytes(self) -> None:
        for step in range(self._counted + 1, self._state.step + 1):
            commit = self._state.commit(step)
            if commit is not None and self._dimension is not None:
                self._expected += traffic.step_bytes(
                    self._dimension, commit.active, commit.contributors, self._entry_bytes
                )
        self._counted = max(self._counted, self._state.step)
        self._board.gauge("expected_bytes").set(self._expected)


def attack_name(role: Role) -> str:
    """An attacker's attacks in one word: `sign_flip+lie_checksum`."""
    return "+".join(each.name for each in role.attacks)


def _on(role: Role, step: int) -> bool:
    """True while a schedule is on, the steps that it leaves out in between included."""
    return step >= role.schedule.start and (role.schedule.stop is None or step < role.schedule.stop)


def _banned_at(records: Sequence[Record], peer: int) -> float:
    """When the first node journalled the ban of a peer."""
    times = [float(each["time"]) for each in records if each["event"] == "banned" and each["peer"] == peer]
    return min(times, default=float(records[-1]["time"]))
