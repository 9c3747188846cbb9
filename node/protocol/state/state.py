"""What all honest peers agree on between two steps, and what is kept of the attempts that led there.

A fact stands in `Summary` alone, which CLOSE signs; a `State` adds what the digests in it are of, and who has been
removed since. An `AttemptRecord` is one attempt wherever it is kept: in memory across a restart, in the window of undo,
in a checkpoint, in evidence, and in what a peer that comes back is told. `Attempt.record` makes one, `Attempt.of` makes
the attempt of it again. What is written elsewhere is a function of it: node/storage/state_codec.py (its vectors in
files), node/protocol/evidence/format.py (the canonical bytes that convict) and node/protocol/state_sync/messages.py
(what digests bind, without vectors). They stand together since a state's window holds records, and a record its state.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from torch import Tensor

from btard.node.protocol.attempt.mprng import permutation
from btard.node.protocol.attempt.verification import Draw, NormWindow
from btard.node.protocol.roster import Roster
from btard.node.protocol.wire.encoding import decode_body, digest, encode, number, tensor_digest
from btard.node.protocol.wire.messages import Commit, Phase, Removal, Signed

# --- the window of undo ---------------------------------------------------------------------------------------


class Contribution(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True):
    """What `owner` contributed to a committed step, by the number of the attempt that stood."""

    step: int
    attempt: int
    owner: int


@dataclass(frozen=True, slots=True)
class Restoration:
    """What an undo step came to.

    Args:
        suspects: whose contributions were in question.
        lies: those that are false, ascending.
        to_step: the step whose initial parameters stand again; None: nothing was false.
        lost: steps with gradients that no longer count.
        older: the first lie may be older than the window.
    """

    suspects: tuple[int, ...]
    lies: tuple[Contribution, ...]
    to_step: int | None
    lost: int
    older: bool


def recheck_shares(
    due: Sequence[Contribution], checkers: int, active: tuple[int, ...], r: bytes
) -> dict[int, tuple[Contribution, ...]]:
    """Who recomputes what: each contribution is due from `checkers` active peers, none of them its owner.

    Args:
        due, checkers: of the undo step.
        active: the roster of the attempt.
        r: of the step before, which no attacker knew when it contributed.
    """
    shares: dict[int, tuple[Contribution, ...]] = {}
    order = permutation(r, active) if due else ()
    for place, item in enumerate(due):
        pool = [peer for peer in order if peer != item.owner]
        for turn in range(min(checkers, len(pool))):
            checker = pool[(place * checkers + turn) % len(pool)]
            shares[checker] = (*shares.get(checker, ()), item)
    return shares


# --- the state ------------------------------------------------------------------------------------------------


class Ban(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One entry of the ban list; `removed` is false for a reformed peer, which stays in the roster."""

    step: int
    attempt: int
    peer: int
    reason: str
    accuser: int | None
    removed: bool


class Newcomer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Whom an application has let in, to probation or, by now, to the roster.

    Args:
        peer: its id.
        number, key, transport, control, bulk, sponsor: as it applied.
        heard: the step before which it entered, or, later, was found correct last.
    """

    peer: int
    number: int
    key: bytes
    transport: str
    control: str
    bulk: str
    sponsor: int | None
    heard: int


class Register(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What peers agree on of probations and newcomers, once an application has let anybody in.

    Args:
        probation: (peer, gradients found correct), ascending by peer.
        newcomers: those that are members, or were, and the one on probation; ascending by peer.
        out: (key, its sponsor, the number that its next application has at least) of those whose probation ended
            without a place, in order; without a number it was wrong, and is out for ever.
        opens: the first step in which another may enter.
    """

    probation: tuple[tuple[int, int], ...] = ()
    newcomers: tuple[Newcomer, ...] = ()
    out: tuple[tuple[bytes, int | None, int | None], ...] = ()
    opens: int = 0

    def bars(self, key: bytes) -> bool:
        """True if a key was wrong on probation, and is out for ever."""
        return any(out == key and least is None for out, _, least in self.out)


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
        admissions: (peer, gradients found correct), ascending by peer (node/protocol/state_sync/probation.py); once a
            newcomer has entered, a `Register`. As long as none has, the bytes are those of a closed roster.
        returned: (peer, first step of which it is in the roster again), in the order in which they came back.
        undo: contributions that `step` recomputes: with any, it is an undo step.
        undo_checkers: how many peers recompute each.
        late: pairs with late edges, and the steps that gave them (node/protocol/adjudication/complaints.py).
        bounds: D and T_g in milliseconds, once they are agreed on (node/protocol/attempt/deadlines.py).
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
    admissions: tuple[tuple[int, int], ...] | Register = ()
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

    @property
    def register(self) -> Register:
        """Probations and newcomers."""
        found = self.admissions
        return found if isinstance(found, Register) else Register(found)

    @property
    def probation(self) -> tuple[tuple[int, int], ...]:
        """(peer, gradients found correct), ascending by peer."""
        found = self.admissions
        return found.probation if isinstance(found, Register) else found

    def ends(self, steps: int) -> bool:
        """True if a run of so many steps ends with this state."""
        return self.step > steps and not self.undo

    def roster(self, known: Roster, active: tuple[int, ...] | None = None) -> Roster:
        """A roster with the newcomers' keys that this state names.

        Args:
            known: any roster of the run.
            active: who is active in it; None: this state's.
        """
        newcomers, founders = self.register.newcomers, known.founders
        admitted = sum(peer >= founders for peer, _ in self.returned)
        named = known.naming(((each.peer, each.key) for each in newcomers), admitted)
        return replace(named, active=self.active if active is None else active)


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
class Window:
    """The window before a step.

    Args:
        layers: the steps that the parameters went through, ascending, as far as they are kept.
        forgotten: earlier ones are not kept any more.
        examined: how many entries of the ban list have been dealt with.
        undone: what the step before came to, if it was an undo step; it follows from the rest.
    """

    layers: tuple[Layer, ...] = ()
    forgotten: bool = False
    examined: int = 0
    undone: Restoration | None = None

    @property
    def digest(self) -> bytes:
        """What CLOSE covers of it."""
        return digest("window", number(self.forgotten), number(self.examined), *(layer.digest for layer in self.layers))

    def of(self, peers: Iterable[int]) -> tuple[Contribution, ...]:
        """All contributions of some peers that are kept, ascending."""
        wanted = frozenset(peers)
        if not wanted:  # as in almost every step
            return ()
        return tuple(
            Contribution(layer.step, layer.record.number, owner)
            for layer in self.layers
            for owner in layer.record.contributors
            if owner in wanted
        )

    def layer(self, item: Contribution) -> Layer:
        """The step that a contribution was made to."""
        return next(layer for layer in self.layers if (layer.step, layer.record.number) == (item.step, item.attempt))


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
        if not removals and not self.bans:  # as in almost every step
            return self
        bans = list(self.bans)
        for removal in removals:
            first = all(ban.peer != removal.peer for ban in bans)
            removed = not (reform and first and removal.reason == "gradient")
            bans.append(Ban(step, attempt, removal.peer, removal.reason, removal.accuser, removed))
        back = dict(self.summary.returned)
        out = [ban.peer for ban in bans if ban.removed and ban.step >= back.get(ban.peer, 0)]
        return replace(self, bans=tuple(bans), roster=self.roster.without(out))


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt as one peer holds it; what follows from these is not kept (r, z, the split, who contributed).

    Args:
        state: that it started from.
        number: 0 for the first attempt at the step.
        phases: its finished phases in order, each with the message of every active peer in roster order.
        others: what was signed beside those: CLOSEs, messages of unfinished phases, contradictions, SUSPECTs.
        aggregates: by aggregator, float32 `[P]`.
        own_D: this peer's gradient, None if it computed none.
        publications: the parts that were published in it, by step, attempt, owner and part.
    """

    state: State
    number: int
    phases: dict[Phase, tuple[Signed, ...]]
    others: tuple[Signed, ...] = ()
    aggregates: dict[int, Tensor] = field(default_factory=dict)
    own_D: Tensor | None = None
    publications: dict[tuple[int, int, int, int], Tensor] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The step's number."""
        return self.state.step

    @property
    def contributors(self) -> tuple[int, ...]:
        """Who committed to a gradient in it."""
        bodies = (decode_body(signed.body) for signed in self.phases.get(Phase.COMMIT, ()))
        return tuple(body.slot.sender for body in bodies if isinstance(body, Commit) and body.parts)


@dataclass(frozen=True, slots=True)
class Resumption:
    """A peer at the beginning of an attempt.

    Args:
        state: the agreed state before the step, removals of earlier attempts applied.
        number: of the attempt at it.
        past: the committed attempt of the step before, None in step 0.
        certificate: what ended the attempt before, for laggards.
        proofs: encoded equivocations that are still to be reported.
        before: the attempt before, where it is not `past`: one at the same step, that was void.
        viewed: a view of this attempt was signed in a life whose dispute is not taken up again.
    """

    state: State
    number: int
    past: AttemptRecord | None
    certificate: tuple[Signed, ...]
    proofs: tuple[bytes, ...]
    before: AttemptRecord | None = None
    viewed: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """One committed step with gradients.

    Args:
        record: of it, `own_D` None and its state without a window.
        digest: `layer_digest`.
    """

    record: AttemptRecord
    digest: bytes

    @property
    def step(self) -> int:
        """The step's number."""
        return self.record.step


def layer_digest(record: AttemptRecord, transcript: bytes) -> bytes:
    """Digest of a committed step: of the certified state before it and of its transcript, which bind all the rest."""
    before = record.state.summary.digest if record.step else b""
    return digest("layer", number(record.step), number(record.number), before, transcript)
