"""What all honest peers agree on between two steps: the small facts and digests that CLOSE signs, and the vectors.

A fact stands in `Summary` alone; a `State` adds what the digests in it are of, and who has been removed since.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
    """Everything a CLOSE covers, small enough to travel in evidence: digests of the large parts.

    Args:
        step: the step to run next.
        transcript: digest of the attempt that led here.
        parameters, optimiser, norms, window: digests of what `State` holds.
        r: randomness of the step committed last.
        active: who takes part in `step`.
        bans: every verdict so far, in order.
        validators, validator_count: the `Draw` of `step`.
        fingerprints: digest of all peers' environments, from HELLO.
        complaints: answered complaints by pair (node/protocol/adjudication/complaints.py).
        probation: (peer, gradients found correct), ascending by peer (node/protocol/state_sync/probation.py).
        returned: (peer, first step of which it is in the roster again), in the order in which they came back.
        undo: contributions that `step` recomputes: with any, it is an undo step.
        undo_checkers: how many peers recompute each.
        late: pairs with late edges, and the steps that gave them (node/protocol/adjudication/complaints.py).
        bounds: D and T_g in milliseconds, once they are agreed on (node/protocol/attempt/measured_bounds.py).
    """

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


class Certified(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A state's summary and what ended the step before it."""

    summary: Summary
    certificate: tuple[Signed, ...]


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
    """The agreed state before a step.

    Args:
        summary: its small facts, and digests of the rest, as the CLOSEs of the last committed step signed them.
        parameters_D, optimiser_D: float32 vectors, the second as long as the optimiser likes; never changed in place.
        roster: who takes part: the summary's `active` without the peers removed since.
        bans: the summary's, and those since: by void attempts, and by a dispute that let its value stand.
        norms: window of V3.
        window: what undo keeps.
        certificate: those CLOSEs, or the OUTCOMEs in their place (empty at genesis).
    """

    summary: Summary
    parameters_D: Tensor
    optimiser_D: Tensor
    roster: Roster
    bans: tuple[Ban, ...] = ()
    norms: NormWindow = field(default_factory=NormWindow)
    window: Window = field(default_factory=Window)
    certificate: tuple[Signed, ...] = ()

    @staticmethod
    def genesis(roster: Roster, data_seed: int, parameters_D: Tensor, optimiser_D: Tensor) -> State:
        """The state before step 0, which nobody signs: everyone computes it from the run's configuration."""
        r, none = genesis_randomness(data_seed), b""
        summary = Summary(0, none, none, none, r, roster.active, (), (), 0, none, none)
        return State(summary, parameters_D, optimiser_D, roster)

    @property
    def step(self) -> int:
        """The step to run next."""
        return self.summary.step

    @property
    def draw(self) -> Draw:
        """Validators of the step."""
        return Draw(self.summary.validators, self.summary.validator_count)

    @property
    def certified(self) -> Certified | None:
        """What a third party is shown of it; None at genesis."""
        return Certified(self.summary, self.certificate) if self.step else None

    def with_facts(self, **facts: Any) -> State:
        """The state with other facts, by their names in `Summary`; its digests are as they were."""
        return replace(self, summary=msgspec.structs.replace(self.summary, **facts))

    @property
    def removed_faults(self) -> int:
        """Removals that count against f_0: an eliminated pair holds at least one faulty peer, so it counts one; the
        removal of a peer that was let back counts no longer."""
        back = dict(self.summary.returned)
        standing = (ban for ban in self.bans if ban.step >= back.get(ban.peer, 0))
        single = sum(ban.removed and ban.reason != "eliminated" for ban in standing)
        return single + sum(ban.reason == "eliminated" for ban in self.bans) // 2

    def summarise(self, transcript: bytes) -> Summary:
        """The facts of this state, with the digests of all it holds and of the transcript that reached it."""
        return msgspec.structs.replace(
            self.summary,
            transcript=transcript,
            parameters=parameters_digest(self.parameters_D),
            optimiser=tensor_digest("optimiser", (), self.optimiser_D),
            active=self.roster.active,
            bans=self.bans,
            norms=norms_digest(self.norms),
            window=self.window.digest,
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
        back = dict(self.summary.returned)
        out = [ban.peer for ban in bans if ban.removed and ban.step >= back.get(ban.peer, 0)]
        return replace(self, bans=tuple(bans), roster=self.roster.without(out))
