"""Cost: `n-1` small messages a phase and `2 d (n-1)/n` floats a step and peer; publications only where judging asks;
what disputes, suspicions and complaints cost beyond is bounded."""

from __future__ import annotations

from dataclasses import dataclass

from btard.node.drivers.simulator import Observed, Traffic
from btard.node.protocol.api import Accused, Banned, Committed, Disputed, PhaseEntered, Suspected, Voided
from btard.node.protocol.attempt.attempt import Attempt
from tests.simulation.hooked import Hooked
from tests.simulation.oracle import REVEAL, bounds, told
from tests.simulation.stage import Stage

_BYTES_PER_PEER = 400
"""A message's size grows with n, never with d: bound per message, for each peer of the roster."""

_DISPUTES_EACH = 3
"""What a faulty peer can start: what convicts it in a dispute or in the REPORT after one does so once, and a silence
that a certificate hides costs one dispute more."""

_TOLD_AGAIN = 20
"""What a peer forwards to whoever asks for an attempt, for each peer of the run: all its messages, the certificate of
the one before, and the views of two disputes."""

_JUDGED = ("RESEND", "PUBLISH")


@dataclass(slots=True)
class _Tally:
    """What a peer went through since its last attempt ended."""

    phases: int = 0
    slow: int = 0
    publications: int = 0
    suspicions: int = 0
    disputes: int = 0
    pulls: bool = False

    @property
    def calm(self) -> bool:
        return not (self.publications or self.suspicions or self.disputes or self.pulls)


class Cost:
    """Adds up what each honest peer sent between two commits and compares it with the formula."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._dimension, self._peers = stage.task.dimension, stage.run.capacity
        self._entry_bytes = stage.run.entry_bytes
        self._patience_s = 2.0 * stage.run.delivery_bound_s
        self._before = {node: Traffic() for node in stage.honest}
        self._tallies = {node: _Tally() for node in stage.honest}
        self._active = dict.fromkeys(stage.honest, stage.run.peers)
        self._snapshots = dict.fromkeys(stage.honest, (0, 0))
        """Lessons that a peer has given until its last two steps were committed."""
        self._recalled = dict.fromkeys(stage.honest, 0)
        self._disputes: dict[int, set[tuple[int, int]]] = {node: set() for node in stage.honest}
        self._entered: dict[int, float] = {}
        self._in: dict[int, int] = {}
        self._slow_steps: set[int] = set()
        """Steps in which somebody was in a phase for 2 D: it passed on what ended the attempt before, and so did all
        who heard of that."""
        self._pasts: dict[int, Attempt] = {}
        self._company: dict[int, int] = {}
        """Other peers in the step before."""
        self._disturbed = -2
        """The last step with a suspicion, a dispute or a removal; its echoes reach into the next one."""

    def see(self, seen: Observed) -> None:
        node = seen.node
        if node not in self._before:
            return
        tally = self._tallies[node]
        match seen.output:
            case PhaseEntered(step=step, phase=phase):
                self._slow(node, seen.time_s)
                self._in[node] = step
                tally.phases += 1
                tally.publications += phase in _JUDGED
            case Accused():
                tally.publications += 1
            case Suspected(step=step):
                self._disturbed = max(self._disturbed, step)
                tally.suspicions += 1
            case Disputed(step=step, attempt=attempt):
                self._disturbed = max(self._disturbed, step)
                tally.disputes += 1
                self._disputes[node].add((step, attempt))
            case Banned(step=step):
                # Whoever leaves is told why.
                self._disturbed = max(self._disturbed, step)
            case Voided() as void:
                self._slow(node, seen.time_s)
                # All that this attempt can have sent: it had at most everyone as contributors.
                self._check(node, void.step, self._active[node], None)
                self._active[node] -= len(void.removals)
            case Committed() as done:
                self._slow(node, seen.time_s)
                place = done.active.index(node)
                self._tallies[node].pulls = self._was_asked(node)
                start, stop = bounds(self._dimension, len(done.active))[place]
                own = self._dimension - (stop - start) if node in done.contributors else 0
                aggregate = (stop - start) * (len(done.active) - 1) if done.contributors else 0
                self._check(node, done.step, len(done.active), self._entry_bytes * (own + aggregate))
                self._active[node] = len(self._stage.simulation.nodes[node].peer.state.roster.active)

    def end(self) -> None:
        most = _DISPUTES_EACH * len(self._stage.roles)
        for node, disputes in self._disputes.items():
            assert len(disputes) <= most, f"peer {node} went through disputes of {sorted(disputes)}"

    def _slow(self, node: int, now_s: float) -> None:
        """After 2 D in a phase a peer passes on the messages of the one before to those that it has not heard in it."""
        if now_s - self._entered.get(node, now_s) >= self._patience_s:
            self._tallies[node].slow += 1
            self._slow_steps.add(self._in[node])
        self._entered[node] = now_s

    def _was_asked(self, node: int) -> bool:
        """Aggregates that the HAVE bits of REVEAL say are missing somewhere are sent again, and whoever suspects
        somebody, be it without cause, is answered once: in this step, or in the next one if it asks that late."""
        attempt, before = self._stage.simulation.nodes[node].peer.past, self._pasts.get(node)
        assert attempt is not None
        self._pasts[node] = attempt
        late = before is not None and bool(before.transcript.suspects)
        said = [told(signed.body) for signed in attempt.transcript.everything()]
        complete = all(all(each.fields[2]) for each in said if each.phase == REVEAL)  # type: ignore[call-overload]
        return bool(attempt.transcript.suspects) or late or not complete

    def _check(self, node: int, step: int, active: int, bulk_bytes: int | None) -> None:
        traffic, before = self._sent(node), self._before[node]
        peers, others, tally = self._peers, active - 1, self._tallies[node]
        # Whoever was removed in the step before is told why, and may be many more than are left.
        company, self._company[node] = max(others, self._company.get(node, 0)), others
        snapshots = self._taught(node)
        recalls = self._told_again(node)
        calm = tally.calm and step > self._disturbed + 1 and not snapshots and not recalls
        messages = traffic.messages - before.messages
        most = others * peers * tally.slow + snapshots + recalls
        if step in self._slow_steps or self._stage.roles:
            # A certificate is passed on once for each attempt when somebody else passes it on, be it without cause.
            most += others * peers
        # Whoever shows a view of an attempt that is closed is told once what ended it and what closed it.
        most += 2 * peers * len(self._stage.roles)
        if step >= self._stage.run.steps:
            # Whoever has left left its OUTCOME; whoever was behind passes a majority of them on, once.
            most += others * peers
        if not calm:
            # A suspicion per phase and peer, and its answers; per dispute trigger, view, relays, OUTCOME, majority.
            most += 2 * company * peers * (1 + tally.phases) + 4 * company * peers * (1 + tally.disputes)
        forwarded = messages - tally.phases * others
        assert forwarded <= most, f"{messages} messages of peer {node} in {tally.phases} phases"
        assert not calm or forwarded >= 0, f"{messages} messages of peer {node} in {tally.phases} phases"
        if calm:
            control = traffic.control_bytes - before.control_bytes
            assert control <= messages * _BYTES_PER_PEER * peers, f"{control} bytes in {messages} messages"
        self._check_tensors(node, active, bulk_bytes if calm else None, calm)
        self._before[node], self._tallies[node] = traffic, _Tally()

    def _sent(self, node: int) -> Traffic:
        return Traffic.of(self._stage.simulation.counters[node])

    def _taught(self, node: int) -> int:
        """Lessons to peers that come back, in this step or the one before: each is a message, its peer has tensors."""
        told = sum(self._stage.simulation.nodes[node].peer.sync_server._told.values())
        before, self._snapshots[node] = self._snapshots[node], (self._snapshots[node][1], told)
        return told - before[0]

    def _told_again(self, node: int) -> int:
        """Messages for those that ask for an attempt as if they had been started again."""
        simulation = self._stage.simulation
        if not isinstance(simulation, Hooked):
            return 0
        asked, before = simulation.recalls[node], self._recalled[node]
        self._recalled[node] = asked
        return (asked - before) * _TOLD_AGAIN * self._peers

    def _check_tensors(self, node: int, active: int, bulk_bytes: int | None, calm: bool) -> None:
        traffic, before, others = self._sent(node), self._before[node], active - 1
        bulk = traffic.bulk_bytes - before.bulk_bytes
        if bulk_bytes is not None:
            assert bulk == bulk_bytes, f"peer {node} sent {bulk} bytes of parts and aggregates instead of {bulk_bytes}"
        # Each of the others may pull every aggregate and every publication once.
        entry, dimension = self._entry_bytes, self._dimension
        pulled = 0 if calm else entry * dimension * others
        assert bulk <= 2 * entry * (dimension + active) * others / active + 2 * entry * others + pulled
        published = traffic.publication_bytes - before.publication_bytes
        most = 2 * entry * dimension * others
        assert published <= most * (1 if calm else 1 + active), f"peer {node} published {published} bytes"
        asked = self._tallies[node].publications
        assert not published or asked or not calm, f"peer {node} published {published} bytes and nobody was accused"
