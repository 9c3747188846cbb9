"""What the parts of a peer share: the agreed state, the attempt under way with its dispute, and what the peer says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

from torch import Tensor

from btard.node.protocol.adjudication.judging import evidence_in
from btard.node.protocol.api import BulkKey, Dropped, Halted, Output
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.disputes.dispute import Dispute
from btard.node.protocol.roster import Roster
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.state.state import State
from btard.node.protocol.state_sync.client import StateSyncClient
from btard.node.protocol.state_sync.probation import candidates_of
from btard.node.protocol.wire.certificate import remembering
from btard.node.protocol.wire.messages import MAX_PROOFS, Phase, Signed

Place = tuple[int, int]
"""An attempt: its step and its number."""


class PeerState:
    """What a peer holds, whatever it is doing. Its parts read and write it: there is one for each peer.

    Args:
        settings, tools: see there.
        roster: the genesis roster.
        me: this peer's genesis id.
        secret_seed: seed of its randomness shares, known to nobody else.
        parameters_D: initial parameters, float32.
    """

    def __init__(
        self, settings: Settings, tools: Tools, roster: Roster, me: int, secret_seed: bytes, parameters_D: Tensor
    ) -> None:
        tools = replace(tools, verify=remembering(tools.verify))
        self.settings, self.tools, self.me, self.secret_seed = settings, tools, me, secret_seed
        optimiser_D = tools.optimiser.initial_state(settings.dimension)
        self.state = State.genesis(roster, settings.data_seed, parameters_D, optimiser_D)
        self.past: Attempt | None = None
        """The attempt that the state was committed by; None in step 0."""
        self.certificate: tuple[Signed, ...] = ()
        """What ended the attempt before the one under way: CLOSEs, OUTCOMEs, or all HELLOs."""
        self.proofs: list[bytes] = []
        """Encoded misconduct that our next REPORT tells of."""
        self.round: Round | None = None
        """The attempt under way; None before all peers have greeted, and out of the roster."""
        self.dispute: Dispute | None = None
        """Its dispute: signs of one, or one that this peer takes part in."""
        self.client: StateSyncClient | None = None
        """The way back of a peer that is, or may be, out of the roster."""
        self.comes_back = False
        """Removed as gone, this peer asks to be let in again instead of ending."""
        self.missed: set[tuple[int, int]] = set()
        """Attempts (step, number) of which we may have missed a part of the dispute."""
        self.let_in: tuple[int, int] | None = None
        """The attempt (step, number) with which we came into the roster, and have not been started again since."""
        self.asked_again: Counter[tuple[int, Place | None, Place | None]] = Counter()
        """How often each neighbour, started again, has asked, for which attempt (None: one that we know nothing of),
        and during which of ours: the one under way, and the one before it."""
        self.kept: list[tuple[BulkKey, Tensor]] = []
        """Tensors that we had kept, before we were started again from further back, of attempts ahead of us."""
        self.stopped = False
        self.out: list[Output] = []

    def new_client(self) -> StateSyncClient:
        """Our side of a return, from the state that we hold."""
        return StateSyncClient(self.settings, self.tools, self.me, self.secret_seed, self.state, self.out)

    def new_dispute(self, round_: Round) -> Dispute:
        """The dispute of an attempt, of which there is no more than a sign yet."""
        attempt, incumbents = round_.attempt, tuple[int, ...]()
        place = attempt.step, attempt.number
        if place == self.let_in:
            new = {peer for peer, since in attempt.state.summary.returned if since == attempt.step}
            incumbents = tuple(peer for peer in attempt.roster.active if peer not in new)
        return Dispute(round_, self.out, partial(self._abstains, place), incumbents)

    def asked(self, via: int, place: Place | None) -> int:
        """Note that a neighbour, started again, asks for an attempt; how often it has during ours."""
        key = via, place, self._place
        self.asked_again[key] += 1
        return self.asked_again[key]

    def forget_asked(self) -> None:
        """An attempt begins: of those before, the last one alone may still be disputed."""
        for key in [key for key in self.asked_again if key[2] != self._place]:
            del self.asked_again[key]

    @property
    def _place(self) -> Place | None:
        return (self.round.attempt.step, self.round.attempt.number) if self.round is not None else None

    def _abstains(self, place: Place) -> bool:
        """True in a dispute that we may have missed a part of, having been away: the others' OUTCOME counts. Not where
        all honest ones were away."""
        return place in self.missed and not self.all_were_away(place)

    def all_were_away(self, place: Place) -> bool:
        """True if so many others have asked since an attempt began that all honest ones were started again."""
        roster, places = self.state.roster, self.asked_again
        asked = {via for via, of, during in places if of == place or (during is not None and during >= place)}
        return len(asked) >= len(roster.active) - 1 - roster.faults

    def charge(self, dispute: Dispute) -> None:
        """What is known of an attempt that stands goes into a REPORT."""
        self.proofs += [proof for proof in dispute.proofs() if proof not in self.proofs]

    def take_proofs(self, attempt: Attempt) -> tuple[bytes, ...]:
        """Evidence of earlier attempts for our REPORT: one piece against each peer, as much as a REPORT may carry. The
        rest waits, and what convicts somebody who is gone until it is back; but for what convicts nobody any more."""
        now: dict[int, bytes] = {}
        later: dict[int, bytes] = {}
        for data in self.proofs:
            charge = evidence_in(data, attempt, candidates_of(attempt.settings, attempt.state))
            if charge is not None:
                (now if charge.accused in attempt.roster.active else later).setdefault(charge.accused, data)
        pieces = list(now.values())
        self.proofs = pieces[MAX_PROOFS:] + list(later.values())
        return tuple(pieces[:MAX_PROOFS])

    def drop(self, via: int | None, reason: str) -> None:
        """An input has no effect."""
        self.out.append(Dropped(via, reason))

    def halt(self, peer: int | None, problem: str) -> None:
        """Stop for good, on account of one peer (None: of nobody)."""
        self.stopped = True
        phase = self.round.phase if self.round is not None else Phase.HELLO
        step, who = self.state.step, f"peer {peer} " if peer is not None else ""
        self.out.append(Halted(step, phase.name, peer, f"step {step}, phase {phase.name}: {who}{problem}"))
