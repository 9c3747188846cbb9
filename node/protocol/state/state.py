"""What all honest peers agree on between two steps, and the digest of it that CLOSE signs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
from torch import Tensor

from btard.node.protocol.attempt.validators import Draw
from btard.node.protocol.attempt.verification import NormWindow
from btard.node.protocol.roster import Roster
from btard.node.protocol.state.undo_window import Contribution, Window
from btard.node.protocol.wire.digest import digest, number, tensor_digest
from btard.node.protocol.wire.encoding import encode
from btard.node.protocol.wire.messages import Removal, Signed


class Ban(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One entry of the ban list; `removed` is false for a reformed peer, which stays in the roster."""

    step: int
    attempt: int
    peer: int
    reason: str
    accuser: int | None
    removed: bool


class Summary(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything a CLOSE covers, small enough to travel in evidence: digests of the large parts."""

    step: int
    transcript: bytes
    parameters: bytes
    optimiser: bytes
    r: bytes
    active: tuple[int, ...]
    bans: tuple[Ban, ...]
    validators: tuple[int, ...]
    validator_count: int
    norms: bytes
    fingerprints: bytes
    complaints: tuple[tuple[int, int, int], ...] = ()
    probation: tuple[tuple[int, int], ...] = ()
    returned: tuple[tuple[int, int], ...] = ()
    window: bytes = b""
    undo: tuple[Contribution, ...] = ()
    undo_checkers: int = 0
    late: tuple[tuple[int, int, tuple[int, ...]], ...] = ()
    bounds: tuple[int, ...] = ()

    @property
    def digest(self) -> bytes:
        """What CLOSE signs."""
        return digest("state", encode(self))


def parameters_digest(parameters_D: Tensor) -> bytes:
    """Digest of a parameter vector."""
    return tensor_digest("parameters", (), parameters_D)


def genesis_randomness(data_seed: int) -> bytes:
    """The r before step 0, known to everyone: step 0 draws no validators."""
    return digest("genesis r", number(data_seed))


def norms_digest(window: NormWindow) -> bytes:
    """Digest of the norm window's exact float64 values."""
    return digest("norms", *(struct.pack(f"<{len(step)}d", *step) for step in window.steps))


@dataclass(frozen=True, slots=True)
class State:
    """The agreed state before `step`.

    Args:
        step: the step to run next.
        parameters_D, optimiser_D: float32 vectors; never changed in place.
        r: randomness of the step committed last.
        roster: who takes part in `step`.
        bans: every verdict so far, in order.
        norms: window of V3.
        draw: validators of `step`.
        fingerprints: digest of all peers' environments, from HELLO.
        complaints: answered complaints by pair (node/protocol/adjudication/complaints.py).
        probation: (peer, gradients found correct) of peers on probation, ascending
        (node/protocol/state_sync/probation.py).
        returned: (peer, first step of which it is in the roster again), in the order in which they came back.
        window: what undo keeps.
        late: pairs with late edges, and the steps that gave them (node/protocol/adjudication/complaints.py).
        bounds: D and T_g in milliseconds, once they are agreed on (node/protocol/attempt/measured_bounds.py).
        summary, certificate: what the CLOSEs of the last committed step signed, and those CLOSEs (empty at genesis).
    """

    step: int
    parameters_D: Tensor
    optimiser_D: Tensor
    r: bytes
    roster: Roster
    bans: tuple[Ban, ...] = ()
    norms: NormWindow = field(default_factory=NormWindow)
    draw: Draw = field(default_factory=Draw)
    fingerprints: bytes = b""
    complaints: tuple[tuple[int, int, int], ...] = ()
    probation: tuple[tuple[int, int], ...] = ()
    returned: tuple[tuple[int, int], ...] = ()
    window: Window = field(default_factory=Window)
    late: tuple[tuple[int, int, tuple[int, ...]], ...] = ()
    bounds: tuple[int, ...] = ()
    summary: Summary | None = None
    certificate: tuple[Signed, ...] = ()

    @property
    def removed_faults(self) -> int:
        """Removals that count against f_0: an eliminated pair holds at least one faulty peer, so it counts one; the
        removal of a peer that was let back counts no longer."""
        back = dict(self.returned)
        standing = (ban for ban in self.bans if ban.step >= back.get(ban.peer, 0))
        single = sum(ban.removed and ban.reason != "eliminated" for ban in standing)
        return single + sum(ban.reason == "eliminated" for ban in self.bans) // 2

    def summarise(self, transcript: bytes) -> Summary:
        """The summary of this state as reached by the transcript with the given digest."""
        return Summary(
            step=self.step,
            transcript=transcript,
            parameters=parameters_digest(self.parameters_D),
            optimiser=tensor_digest("optimiser", (), self.optimiser_D),
            r=self.r,
            active=self.roster.active,
            bans=self.bans,
            validators=self.draw.order,
            validator_count=self.draw.count,
            norms=norms_digest(self.norms),
            fingerprints=self.fingerprints,
            complaints=self.complaints,
            probation=self.probation,
            returned=self.returned,
            window=self.window.digest,
            undo=self.window.due,
            undo_checkers=self.window.checkers,
            late=self.late,
            bounds=self.bounds,
        )

    def punished(self, step: int, attempt: int, removals: Sequence[Removal], reform: bool) -> State:
        """The state after verdicts: bans recorded, removed peers out of the roster.

        Args:
            reform: the report's rule 2: a first offence of gradient kind keeps the peer, honest from then on.
        """
        bans = list(self.bans)
        for removal in removals:
            first = all(ban.peer != removal.peer for ban in bans)
            removed = not (reform and first and removal.reason == "gradient")
            bans.append(Ban(step, attempt, removal.peer, removal.reason, removal.accuser, removed))
        back = dict(self.returned)
        out = [ban.peer for ban in bans if ban.removed and ban.step >= back.get(ban.peer, 0)]
        return replace(self, bans=tuple(bans), roster=self.roster.without(out))
