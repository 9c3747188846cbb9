"""A peer on its way back: it learns the agreed state from a quorum, follows it on probation, and is let in; or, where
the run has ended without it, it fetches the final state.

A state counts once more than f of the peers that it knows to be active tell it alike and the certificate holds. The
vectors come from one of them, checked by digest. (A certificate alone is not enough: CLOSEs that a liar kept back can
complete one after a dispute has voided their attempt.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from btard.node.protocol.api import (
    BulkKey,
    BulkKind,
    CancelTimer,
    ComputeGradient,
    Dropped,
    GradientReady,
    Output,
    PhaseEntered,
    Purpose,
    RequestBulk,
    RequestTranscript,
    Say,
    SetTimer,
)
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import fetching_s, outcome_s
from btard.node.protocol.attempt.mprng import batch_seed
from btard.node.protocol.attempt.verification import NormWindow
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.state.state import AttemptRecord, Resumption, State, norms_digest, parameters_digest
from btard.node.protocol.state_sync.messages import Snapshot, after_dispute, by_phase, certified, complete
from btard.node.protocol.state_sync.probation import absent_of, candidates_of, gradient_digest, join_slot
from btard.node.protocol.wire.encoding import tensor_digest
from btard.node.protocol.wire.messages import Join, Phase

ASK, PULL = "rejoin ask", "rejoin pull"
_PATIENCE, _NEWCOMERS_PATIENCE = 5, 200
"""How often we ask in vain before we give up; as a newcomer, whom nobody answers before a REPORT has introduced it."""
_PARAMETERS, _OPTIMISER = 0, 1


@dataclass(frozen=True, slots=True)
class _Target:
    """A state that a quorum tells, while its vectors are on their way; `sources` may be asked for them."""

    snapshot: Snapshot
    sources: tuple[int, ...]
    past: Attempt | None


class StateSyncClient:
    """One peer's way back; its owner reads `convinced`, `resumption` and `ended` after each call.

    Args:
        settings, tools: see there.
        me: this peer's id.
        secret_seed: as the peer's.
        state: the newest that it holds.
        out: where outputs are appended.
    """

    def __init__(
        self, settings: Settings, tools: Tools, me: int, secret_seed: bytes, state: State, out: list[Output]
    ) -> None:
        self._settings, self._tools, self._me, self._secret_seed = settings, tools, me, secret_seed
        self._out = out
        self.state = state
        self.convinced = False
        """A quorum says that we are out."""
        self.resumption: Resumption | None = None
        """Where to go on, once we are let in and have everything."""
        self.ended: str | None = None
        """Why there is no way back."""
        self.barred: str | None = None
        """Why we may not come back and only ask how the run ends; where nobody tells, that is our end."""
        self.finished = False
        """`state` is the one with which the run has ended."""
        self._offers: dict[int, Snapshot] = {}
        self._target: _Target | None = None
        self._held: dict[BulkKey, Tensor] = {}
        self._asked: dict[BulkKey, list[int]] = {}
        self._silence = 0

    @property
    def step(self) -> int:
        """The step whose state we hold or fetch."""
        return self._target.snapshot.now.summary.step if self._target is not None else self.state.step

    def ask(self) -> None:
        """Ask all peers of the roster that we know for a newer state."""
        others = tuple(peer for peer in self.state.roster.active if peer != self._me)
        self._out.append(RequestTranscript(others, self.state.step, 0))
        # Once more soon: an answer may be lost with the process that it was for, or tell of two steps, half of each.
        settings, soon = self._settings, self._silence == 0
        self._out.append(SetTimer(ASK, 4.0 * settings.delivery_bound_s if soon else 3.0 * outcome_s(settings)))

    def ask_soon(self) -> None:
        """Ask once the others know that we are out: what told us reaches each of them within D."""
        self._out.append(SetTimer(ASK, 2.0 * self._settings.delivery_bound_s))

    # --- inputs -----------------------------------------------------------------------------------------------

    def learn(self, via: int, snapshot: Snapshot) -> None:
        """A neighbour tells a state."""
        known = self.state.roster
        heard = via in known.active and via != self._me
        if not heard or snapshot.now.summary.step <= self.step:
            if heard and self._target is not None and snapshot.word == self._target.snapshot.word:
                return self._more(via)
            return self._out.append(Dropped(via, "old_lesson"))
        self._offers[via] = snapshot
        alike = tuple(sorted(peer for peer, told in self._offers.items() if told.word == snapshot.word))
        if len(alike) <= known.faults:
            return None
        for peer in alike:
            # Only the states are told alike: the rest of a snapshot may be a liar's.
            if self._holds(self._offers[peer]):
                return self._choose(self._offers[peer], alike)
        return self._out.append(Dropped(via, "uncertified_lesson"))

    def expects(self, via: int, key: BulkKey, entries: int) -> bool:
        """True if a tensor of this key and size is one that we asked this neighbour for."""
        return via in self._asked.get(key, ()) and key not in self._held and entries == self._size(key)

    def take(self, via: int, key: BulkKey, values_P: Tensor) -> None:
        """A tensor that we asked for: kept if it is the one that the state's digests name."""
        if not self.expects(via, key, values_P.numel()):
            return self._out.append(Dropped(via, "unexpected_bulk"))
        if not self._proves(key, values_P):
            self._out.append(Dropped(via, "bulk_digest"))
            return self._pull(key)
        self._held[key] = values_P
        return self._arrive() if all(key in self._held for key in self._asked) else None

    def computed(self, ready: GradientReady) -> None:
        """Our gradient of the newest step: sign its digest."""
        if ready.purpose is not Purpose.OWN or ready.step != self.state.step or not self.convinced:
            return self._out.append(Dropped(None, "unwanted_gradient"))
        settings, roster = self._settings, self.state.roster
        digest = gradient_digest(settings, ready.step, self._me, ready.gradient_D)
        join = Join(join_slot(settings, roster, ready.step, self._me), (), digest)
        return self._out.append(Say(self.state.roster.active, join))

    def overdue(self, name: str) -> str | None:
        """A timer ran out; returns why to give up, if it is time to."""
        self._silence += 1
        known = self._me in self.state.roster.active or self.state.step > 0
        if self._silence >= (_PATIENCE if known else _NEWCOMERS_PATIENCE):
            if self.barred is not None:
                self.ended = self.barred
                return None
            return "no quorum of the active peers tells the state of the run"
        if name == PULL and self._target is not None:
            # They serve two steps only: a run that goes on faster has a newer state for us.
            for key in self._asked:
                if key not in self._held:
                    self._pull(key)
            self._out.append(SetTimer(PULL, self._patience_s))
        self.ask()
        return None

    # --- a new state ------------------------------------------------------------------------------------------

    def _choose(self, snapshot: Snapshot, sources: tuple[int, ...]) -> None:
        """A quorum tells this state: fetch it, unless it holds no place for us."""
        summary = snapshot.now.summary
        newcomer = (self._me, summary.step) in summary.returned
        if self._me in summary.active and not newcomer:
            return  # we are in, and only late: the others wait for us
        self.convinced, self._offers, self._silence = True, {}, 0
        final = summary.ends(self._settings.steps)
        if not newcomer and self._me not in (absent_of(summary) if final else candidates_of(self._settings, summary)):
            barred = summary.register.bars(self.state.roster.keys[self._me])
            bans = (ban.reason for ban in reversed(summary.bans) if ban.peer == self._me)
            self.ended = "probation" if barred else next(bans, "silent")
        else:
            if newcomer and final:  # let in as the run ends: it has missed nothing if nobody stays to send it the end
                self.barred = "silent"
            past = self._attempt_before(snapshot) if newcomer and not final and snapshot.past is not None else None
            self._target, self._held, self._asked = _Target(snapshot, sources, past), {}, {}
            for key in self._wanted():
                for _ in sources if newcomer else sources[:1]:
                    self._pull(key)
            self._out.append(SetTimer(PULL, self._patience_s))
        return

    def _more(self, via: int) -> None:
        """Another peer tells the state that we fetch: it may be asked as well."""
        assert self._target is not None
        if via not in self._target.sources:
            self._target = replace(self._target, sources=(*self._target.sources, via))

    @property
    def _patience_s(self) -> float:
        return fetching_s(self._settings, len(self.state.roster.active))

    def _wanted(self) -> list[BulkKey]:
        assert self._target is not None
        step, past = self._target.snapshot.now.summary.step, self._target.past
        keys = [BulkKey(step, 0, BulkKind.STATE, 0, part) for part in (_PARAMETERS, _OPTIMISER)]
        if past is not None:
            if self.state.step != step - 1:
                keys += [BulkKey(step - 1, 0, BulkKind.STATE, 0, part) for part in (_PARAMETERS, _OPTIMISER)]
            keys += [past.key(BulkKind.AGGREGATE, owner, past.roster.place(owner)) for owner in past.aggregators]
        return keys

    def _pull(self, key: BulkKey) -> None:
        """Ask the next source for a tensor; round and round, since an honest one may have been slow."""
        assert self._target is not None
        asked, sources = self._asked.setdefault(key, []), self._target.sources
        source = next((peer for peer in sources if peer not in asked), sources[len(asked) % len(sources)])
        asked.append(source)
        self._out.append(RequestBulk(source, key))

    def _size(self, key: BulkKey) -> int:
        past = self._target.past if self._target is not None else None
        if key.kind is BulkKind.AGGREGATE and past is not None:
            return past.split.size(key.part)
        return self.state.optimiser_D.numel() if key.part == _OPTIMISER else self._settings.dimension

    def _proves(self, key: BulkKey, values_P: Tensor) -> bool:
        assert self._target is not None
        summary, past = self._target.snapshot.now.summary, self._target.past
        if key.kind is BulkKind.AGGREGATE:
            return past is not None and past.aggregate_matches(key.owner, values_P)
        of = past.state.summary if past is not None and key.step == summary.step - 1 else summary
        if key.part == _OPTIMISER:
            return tensor_digest("optimiser", (), values_P) == of.optimiser
        return parameters_digest(values_P) == of.parameters

    # --- everything is here -----------------------------------------------------------------------------------

    def _arrive(self) -> None:
        assert self._target is not None
        snapshot, past = self._target.snapshot, self._target.past
        summary, norms = snapshot.now.summary, snapshot.past.norms if snapshot.past is not None else ()
        parameters_D, optimiser_D = (
            self._held[BulkKey(summary.step, 0, BulkKind.STATE, 0, part)] for part in (_PARAMETERS, _OPTIMISER)
        )
        roster, ended = summary.roster(self.state.roster), snapshot.now.certificate
        state = State(summary, parameters_D, optimiser_D, roster, summary.bans, NormWindow(norms), certificate=ended)
        state = after_dispute(state)
        self._out += [CancelTimer(PULL), CancelTimer(ASK)]
        if past is not None:
            self.resumption = Resumption(state, 0, self._past(past), ended, ())
            return
        self.state, self._target, self._held, self._asked = state, None, {}, {}
        if summary.ends(self._settings.steps):
            self.finished = True
            return
        self._out.append(PhaseEntered(state.step, 0, Phase.JOIN.name))
        if state.step < self._settings.steps:
            seed = batch_seed(self._settings.data_seed, summary.r, state.step, self._me, self._settings.shards)
            self._out.append(ComputeGradient(Purpose.OWN, state.step, self._me, state.parameters_D, seed))
        self.ask()

    def _holds(self, snapshot: Snapshot) -> bool:
        """The certificates hold, and what a newcomer is told of the step before is what the digests in the certified
        state name."""
        summary, past = snapshot.now.summary, snapshot.past
        roster, settings, verify = self.state.roster, self._settings, self._tools.verify
        if not certified(snapshot.now, roster, settings, verify):
            return False
        if (self._me, summary.step) not in summary.returned:
            return past is None  # nobody tells more to a peer that it does not let in
        if past is None or past.before is None or past.before.summary.step != summary.step - 1:
            return False
        then = summary.roster(roster).at(summary.bans, summary.returned, summary.step - 1, past.number)
        if not certified(past.before, roster, settings, verify):
            return False
        if not complete(past, settings, then, summary.step - 1, verify):
            return False
        right = norms_digest(NormWindow(past.norms)) == summary.norms
        return right and self._attempt_before(snapshot).transcript.digest == summary.transcript

    def _attempt_before(self, snapshot: Snapshot) -> Attempt:
        """The committed attempt of the step before, without its tensors."""
        past, now = snapshot.past, snapshot.now.summary
        assert past is not None and past.before is not None
        before = past.before.summary
        roster = now.roster(self.state.roster).at(now.bans, now.returned, before.step, past.number)
        known, ended = self.state, past.before.certificate
        state = State(before, known.parameters_D, known.optimiser_D, roster, before.bans, certificate=ended)
        told = AttemptRecord(state, past.number, by_phase(past.messages))
        return Attempt.of(told, self._settings, self._tools, self._me, self._secret_seed)

    def _past(self, past: Attempt) -> AttemptRecord:
        """The attempt before with the tensors that we have fetched."""
        told, given = past.record(), (past.state.parameters_D, past.state.optimiser_D)
        parameters_D, optimiser_D = (
            self._held.get(BulkKey(past.step, 0, BulkKind.STATE, 0, part), given[part])
            for part in (_PARAMETERS, _OPTIMISER)
        )
        held = {owner: self._held[past.key(BulkKind.AGGREGATE, owner, past.roster.place(owner))]
                for owner in past.aggregators}  # fmt: skip
        return replace(told, state=replace(told.state, parameters_D=parameters_D, optimiser_D=optimiser_D),
                       aggregates=held)  # fmt: skip
