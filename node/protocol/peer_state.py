"""What a peer holds, whatever it is doing: the agreed state, the attempt under way and the one before, what it says.

`Peer` is built in layers, each a class of its own: `PeerState` holds, `DisputeRouter` takes in messages and views,
`AttemptLifecycle` ends one attempt and begins the next, and `Peer` (node/protocol/peer.py) is what a driver sees.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from torch import Tensor

from btard.node.protocol.api.events import Dropped, Forward, Output
from btard.node.protocol.api.notices import Halted
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.gradient_requests import Gradients
from btard.node.protocol.attempt.handshake import Greeting
from btard.node.protocol.attempt.lateness import Watch
from btard.node.protocol.attempt.record import Resumption
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.disputes.before import Before
from btard.node.protocol.disputes.dispute import Dispute
from btard.node.protocol.roster import Roster
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.state.state import State
from btard.node.protocol.state_sync.client import StateSyncClient
from btard.node.protocol.state_sync.server import StateSyncServer
from btard.node.protocol.wire.admission import Admission, remembering
from btard.node.protocol.wire.messages import Phase, Signed

HELLO = "hello"


class PeerState:
    """The first layer of a peer.

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
        self.settings, self.tools, self.me = settings, tools, me
        self._secret_seed = secret_seed
        optimiser_D = tools.optimiser.initial_state(settings.dimension)
        self.state = State.genesis(roster, settings.data_seed, parameters_D, optimiser_D)
        self.past: Attempt | None = None
        self.stopped = False
        self.admitted = False
        """The last input was a signed message or view whose signature and place held, and which has an effect: only
        such ones are worth remembering."""
        self._round: Round | None = None
        self._dispute: Dispute | None = None
        self._before = Before()
        self._admission = Admission(settings, tools, roster.keys)
        self._gradients = Gradients()
        self._greeting = Greeting(settings, roster)
        self._proofs: list[bytes] = []
        self._certificate: tuple[Signed, ...] = ()
        self._out: list[Output] = []
        self._sync_server = StateSyncServer(settings, tools, roster.keys, self._out)
        self._candidate: StateSyncClient | None = None
        self.comes_back = False
        """Removed as gone, this peer asks to be let in again instead of ending."""
        self._resumed: Resumption | None = None
        self._away_s = 0.0
        self._recalled: Counter[int] = Counter()
        self._watch = Watch()
        self._missed: set[tuple[int, int]] = set()
        """Attempts (step, number) of which we may have missed a part of the dispute."""

    @property
    def _previous(self) -> Round | None:
        """The attempt before the one under way."""
        return self._before.round

    @property
    def _background(self) -> Dispute | None:
        """Its dispute."""
        return self._before.dispute

    @property
    def attempt(self) -> Attempt | None:
        """The attempt under way, None before all peers have greeted."""
        return self._round.attempt if self._round is not None else None

    @property
    def _step(self) -> int:
        """The step that we are in, or about to be let into."""
        waiting = self._candidate is not None and self._round is None
        return self._candidate.step if self._candidate is not None and waiting else self.state.step

    def _silent(self) -> list[int]:
        return list(self._round.attempt.transcript.missing(self._round.phase)) if self._round is not None else []

    def _forward_certificate(self) -> None:
        """What ended the attempt before goes to all, unless we have heard of all since."""
        if self._round is not None and self._certificate:
            attempt = self._round.attempt
            if any(peer != self.me for peer in attempt.transcript.missing(Phase.COMMIT)):
                others = tuple(peer for peer in attempt.roster.active if peer != self.me)
                self._out.append(Forward(others, self._certificate))

    def _drop(self, via: int | None, reason: str) -> None:
        self._out.append(Dropped(via, reason))

    def _halt(self, peer: int | None, problem: str) -> None:
        self.stopped = True
        phase = self._round.phase if self._round is not None else Phase.HELLO
        step, who = self.state.step, f"peer {peer} " if peer is not None else ""
        self._out.append(Halted(step, phase.name, peer, f"step {step}, phase {phase.name}: {who}{problem}"))
