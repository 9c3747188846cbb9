"""One attempt at a step, as one peer holds it: the split of the gradient, the transcript, tensors, and what it says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from btard.node.protocol.attempt.mprng import Share, batch_seed, combine, commitment, projection, share
from btard.node.protocol.attempt.verification import Checksum, checksum, same
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.state.state import AttemptRecord, Contribution, State, recheck_shares
from btard.node.protocol.wire.certificate import Certificate, Where
from btard.node.protocol.wire.encoding import body_digest, decode_body, digest, number, tensor_digest
from btard.node.protocol.wire.messages import (
    Agg,
    Agg2,
    Body,
    BulkKey,
    BulkKind,
    Checksums,
    Close,
    Commit,
    Late,
    Message,
    Missing,
    Phase,
    Report,
    Reveal,
    Signed,
    Slot,
    Suspect,
)

# --- the split ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Cuts a vector of `dimension` entries into `count` contiguous parts whose sizes differ by at most one."""

    dimension: int
    count: int

    @cached_property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of each part."""
        cuts = [part * self.dimension // self.count for part in range(self.count + 1)]
        return tuple(pairwise(cuts))

    def size(self, part: int) -> int:
        """Number of entries of a part."""
        start, stop = self.bounds[part]
        return stop - start

    @property
    def largest(self) -> int:
        """Number of entries of the largest part."""
        return -(-self.dimension // self.count)


def part_radius(tau: float, size: int, genesis_peers: int, dimension: int) -> float:
    """Clipping radius of a part: `tau_j = tau sqrt(d_j n_0 / d)`.

    Args:
        tau: radius of a part of the genesis split.
        size: entries of the part (d_j).
        genesis_peers: parts of the genesis split (n_0).
        dimension: entries of the whole vector (d).

    Returns:
        The radius; the total `sum_j tau_j^2 = n_0 tau^2` does not change when bans re-split the vector.
    """
    return tau * math.sqrt(size * genesis_peers / dimension)


# --- the transcript -------------------------------------------------------------------------------------------


M = TypeVar("M", bound=Message)


class Added(Enum):
    """What became of a message."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a dispute starts: messages that prove it to everyone who receives them."""

    cause: str
    messages: tuple[Signed, ...]


class Transcript:
    """Messages by phase and sender; one per slot, a second different one is kept as proof of equivocation."""

    def __init__(self, active: tuple[int, ...]) -> None:
        self.active = active
        self.prefix: tuple[bytes, ...] = ()
        self.finished: tuple[Phase, ...] = ()
        self.conflicts: dict[tuple[Phase, int], tuple[Signed, Signed]] = {}
        self.split: tuple[Signed, Signed] | None = None
        """Two messages whose prefixes differ in a phase that both cover."""
        self.suspects: dict[tuple[Phase, int], dict[int, Signed]] = {}
        """Who suspects the sender of a phase's message, by (phase, sender)."""
        self.spoke: dict[int, Signed] = {}
        """The first message of each peer that has signed one of this attempt: it has ended the attempt before."""
        self._bodies: dict[Phase, dict[int, Body]] = {}
        self._signed: dict[Phase, dict[int, Signed]] = {}
        self._seen_prefix: list[tuple[bytes, Signed]] = []

    def add(self, body: Body, signed: Signed) -> Added:
        """Keep a message whose signature is valid and whose sender is active."""
        if isinstance(body, Suspect):
            return self._add_suspect(body, signed)
        phase, sender = body.slot.phase, body.slot.sender
        self.spoke.setdefault(sender, signed)
        held = self._signed.get(phase)
        if held is None:
            held, self._bodies[phase] = self._signed.setdefault(phase, {}), {}
        if sender not in held:
            held[sender] = signed
            self._bodies[phase][sender] = body
            self._compare_prefix(body, signed)
            return Added.NEW
        if held[sender].body == signed.body:
            return Added.DUPLICATE
        self.conflicts.setdefault((phase, sender), (held[sender], signed))
        return Added.CONFLICT

    def adopt(self, body: Body, signed: Signed) -> None:
        """Keep a message of the union that a dispute has agreed on: of a phase that is still open here, in the place of
        another that its sender may have shown to us alone."""
        phase, sender = body.slot.phase, body.slot.sender
        held = self._signed.get(phase, {}).get(sender)
        if held is not None and held.body != signed.body and phase not in self.finished:
            del self._signed[phase][sender], self._bodies[phase][sender]
            self.conflicts[(phase, sender)] = signed, held
        self.add(body, signed)

    def _add_suspect(self, body: Suspect, signed: Signed) -> Added:
        self.spoke.setdefault(body.slot.sender, signed)
        held = self.suspects.setdefault((body.named, body.peer), {})
        if body.slot.sender in held:
            return Added.DUPLICATE
        held[body.slot.sender] = signed
        return Added.NEW

    def _compare_prefix(self, body: Message, signed: Signed) -> None:
        for place, value in enumerate(body.prefix):
            if place == len(self._seen_prefix):
                self._seen_prefix.append((value, signed))
            elif self._seen_prefix[place][0] != value and self.split is None:
                self.split = (self._seen_prefix[place][1], signed)

    def certified(self) -> Transcript:
        """For an attempt that n CLOSEs ended: what their prefix fixes, and they; the same at every peer."""
        copy = Transcript(self.active)
        for phase in (*self.finished, Phase.CLOSE):
            for sender, signed in self.signed(phase).items():
                copy.add(self._bodies[phase][sender], signed)
        return copy

    def of(self, kind: type[M], phase: Phase) -> dict[int, M]:
        """Bodies of a phase by sender, in roster order."""
        held, found = self._bodies.get(phase, {}), dict[int, M]()
        for peer in self.active:
            body = held.get(peer)
            if isinstance(body, kind):
                found[peer] = body
        return found

    def body(self, phase: Phase, sender: int) -> Message | None:
        """One message's body, None if it is not here."""
        return self._bodies.get(phase, {}).get(sender)

    def knows(self, phase: Phase, sender: int, body: bytes) -> bool:
        """True if exactly this message is here: its signature has been checked."""
        held = self._signed.get(phase, {}).get(sender)
        return held is not None and held.body == body

    def signed(self, phase: Phase) -> dict[int, Signed]:
        """Signed messages of a phase by sender, in roster order."""
        held, found = self._signed.get(phase, {}), dict[int, Signed]()
        for peer in self.active:
            if peer in held:
                found[peer] = held[peer]
        return found

    def everything(self) -> Iterator[Signed]:
        """Every signed message held, in slot order, conflicting ones and SUSPECTs included."""
        for phase in sorted(self._signed, key=lambda phase: phase.value):
            for peer, signed in self.signed(phase).items():
                yield signed
                if (phase, peer) in self.conflicts:
                    yield self.conflicts[(phase, peer)][1]
        for named in sorted(self.suspects, key=lambda slot: (slot[0].value, slot[1])):
            yield from (self.suspects[named][peer] for peer in sorted(self.suspects[named]))

    def missing(self, phase: Phase) -> tuple[int, ...]:
        """Active peers whose message of the phase is not here."""
        held = self._signed.get(phase, {})
        return tuple([peer for peer in self.active if peer not in held]) if len(held) < len(self.active) else ()

    def complete(self, phase: Phase) -> bool:
        """True if nobody's message of the phase is missing."""
        return len(self._signed.get(phase, ())) >= len(self.active)

    def count(self, phase: Phase) -> int:
        """How many peers' messages of the phase are here."""
        return len(self._signed.get(phase, ()))

    def silent(self, quorum: int) -> tuple[tuple[Phase, int], ...]:
        """Slots that at least `quorum` peers suspect."""
        found = (slot for slot, by in self.suspects.items() if len(by) >= quorum)
        return tuple(sorted(found, key=lambda slot: (slot[0].value, slot[1])))

    def finish(self, phase: Phase) -> None:
        """Append the phase's hash to the prefix; the phase must be complete."""
        messages = self.signed(phase).values()
        value = digest("phase", phase.name.encode(), *[body_digest(signed.body) for signed in messages])
        self.prefix = (*self.prefix, value)
        self.finished = (*self.finished, phase)
        place = len(self.prefix) - 1
        if place < len(self._seen_prefix) and self._seen_prefix[place][0] != value and self.split is None:
            self.split = (self._seen_prefix[place][1], next(iter(messages)))

    @property
    def digest(self) -> bytes:
        """Digest of all finished phases."""
        return digest("transcript", *self.prefix)


# --- the attempt ----------------------------------------------------------------------------------------------


LARGEST_MAGNITUDE = 2.0**40
"""Entries beyond this would overflow the Gram matrix; committed to, they are proof of misconduct."""


def part_digest(settings: Settings, step: int, attempt: int, owner: int, part: int, values_P: Tensor) -> bytes:
    """Commitment to one part of a gradient."""
    fields = (settings.run, number(step), number(attempt), number(owner), number(part))
    return tensor_digest("part", fields, values_P)


def aggregate_digest(settings: Settings, step: int, attempt: int, owner: int, part: int, values_P: Tensor) -> bytes:
    """Commitment to one aggregate."""
    fields = (settings.run, number(step), number(attempt), number(owner), number(part))
    return tensor_digest("aggregate", fields, values_P)


def usable(values_P: Tensor) -> bool:
    """True if every entry is finite and small enough to compute with."""
    if not values_P.numel():
        return True
    # The extremes propagate NaN, which then compares false.
    low, high = torch.aminmax(values_P)
    return low.item() >= -LARGEST_MAGNITUDE and high.item() <= LARGEST_MAGNITUDE


def finite(values_P: Tensor) -> bool:
    """True if no entry is NaN or infinite."""
    return bool(values_P.isfinite().all())


class Attempt:
    """The split, the contributors and everything received in one attempt at a step.

    Args:
        settings, tools: see there.
        state: the agreed state before the step, with the removals of earlier attempts applied.
        number: 0 for the first attempt at a step.
        me: this peer's id.
        share: its randomness for this attempt.
    """

    def __init__(self, settings: Settings, tools: Tools, state: State, number: int, me: int, share: Share) -> None:
        agreed = state.summary
        self.settings = settings.bounded(agreed.bounds)
        self.tools, self.state, self.number, self.me, self.share = tools, state, number, me, share
        self.roster = state.roster
        self.step = state.step
        self.split = Split(settings.dimension, len(self.roster.active))
        founders = self.roster.founders
        sizes = [stop - start for start, stop in self.split.bounds]
        self.radii = tuple([part_radius(settings.tau, size, founders, settings.dimension) for size in sizes])
        """Clipping radius tau_j of each part."""
        self.clip_radii = tuple(map(tools.rule.clip_radius, self.radii))
        """The radius at which the checksums of each part clip."""
        self.pairs = state.draw.pairs(self.roster.active)
        self.contributors = self._contributors()
        self.shares = recheck_shares(agreed.undo, agreed.undo_checkers, self.roster.active, agreed.r)
        """In an undo step: who recomputes which contributions."""
        self.place = self.roster.place(me)
        self.transcript = Transcript(self.roster.active)
        self.own_D: Tensor | None = None
        self.parts: dict[int, Tensor] = {}
        self.aggregates: dict[int, Tensor] = {}
        self.publications: dict[tuple[int, int, int, int], Tensor] = {}
        self.refuted: set[BulkKey] = set()
        """Tensors whose owner sent us others than it had committed to, over its own line: nothing to wait for."""
        self.delivery_s = self.gradient_s = 0.0
        """What this peer measured of the bounds so far."""
        self.late: list[Late] = []
        """Whom we waited for beyond our budget, phase by phase (node/protocol/attempt/deadlines.py)."""
        self.disputed = self.shaken = False
        """There was a dispute of it, or of the committed attempt before: lateness in it is nobody's fault."""
        self.iterations = 0
        self.r = b""
        self.z = torch.empty(0)
        self.where: Where = (settings.run, self.roster.digest, self.step, number)
        """What the slots of all its messages have in common."""

    def _contributors(self) -> tuple[int, ...]:
        if self.step >= self.settings.steps or self.state.summary.undo:
            return ()
        if self.settings.validators_contribute:
            return self.roster.active
        validating = {validator for validator, _ in self.pairs}
        return tuple(peer for peer in self.roster.active if peer not in validating)

    # --- what is kept of it -----------------------------------------------------------------------------------

    def record(self) -> AttemptRecord:
        """What there is to keep; tensors by reference."""
        transcript = self.transcript
        phases = {phase: tuple(transcript.signed(phase).values()) for phase in transcript.finished}
        kept = {id(signed) for messages in phases.values() for signed in messages}
        others = tuple(signed for signed in transcript.everything() if id(signed) not in kept)
        return AttemptRecord(self.state, self.number, phases, others, self.aggregates, self.own_D, self.publications)

    @classmethod
    def of(cls, record: AttemptRecord, settings: Settings, tools: Tools, me: int, secret_seed: bytes) -> Attempt:
        """The attempt again; its messages were checked before they were kept.

        Args:
            record: of it.
            settings, tools: see there.
            me: this peer's id. If it has no place in the attempt, having been let back since, it sees it as any other
                would.
            secret_seed: of its randomness.
        """
        active, own_share = record.state.roster.active, share(secret_seed, record.step, record.number)
        attempt = cls(settings, tools, record.state, record.number, me if me in active else active[0], own_share)
        for messages in (*record.phases.values(), record.others):
            for signed in messages:
                attempt.transcript.add(decode_body(signed.body), signed)
        for phase in record.phases:
            attempt.transcript.finish(phase)
        if Phase.REVEAL in record.phases:
            attempt.fix_randomness()
        attempt.aggregates, attempt.publications = dict(record.aggregates), dict(record.publications)
        attempt.own_D = record.own_D
        return attempt

    def earlier(self, item: Contribution) -> Attempt:
        """The committed attempt that a contribution was made to, from the window of an undo step."""
        return Attempt.of(self.state.window.layer(item).record, self.settings, self.tools, self.me, b"")

    # --- names and numbers ------------------------------------------------------------------------------------

    def slot(self, phase: Phase, sender: int | None = None) -> Slot:
        """The slot of a phase's message."""
        who = self.me if sender is None else sender
        return Slot(*self.where, phase, who)

    def key(self, kind: BulkKind, owner: int, part: int) -> BulkKey:
        """The name of a tensor of this attempt."""
        return BulkKey(self.step, self.number, kind, owner, part)

    def seed(self, peer: int) -> bytes:
        """xi of a peer in this step."""
        return batch_seed(self.settings.data_seed, self.state.summary.r, self.step, peer, self.settings.shards)

    def slice(self, gradient_D: Tensor, part: int) -> Tensor:
        """Part `part` of a flat vector (a view)."""
        start, stop = self.split.bounds[part]
        return gradient_D[start:stop]

    @property
    def targets(self) -> tuple[int, ...]:
        """Whom this peer validates in this attempt."""
        return tuple(target for validator, target in self.pairs if validator == self.me)

    @property
    def burden(self) -> int:
        """Most gradients that one peer recomputes for its REPORT in an undo step; 0 in any other."""
        most = max(map(len, self.shares.values()), default=0)
        return most + len(self.pairs) if most else 0

    # --- commitments ------------------------------------------------------------------------------------------

    def committed_part(self, owner: int, part: int) -> bytes | None:
        """The digest that `owner` committed to for a part, None before its COMMIT is here."""
        commit = self.transcript.body(Phase.COMMIT, owner)
        return commit.parts[part] if isinstance(commit, Commit) and commit.parts else None

    def committed_aggregate(self, owner: int) -> bytes | None:
        """The digest that an aggregator committed to, None before its AGG is here."""
        agg = self.transcript.body(Phase.AGG, owner)
        if isinstance(agg, Agg) and isinstance(agg.aggregate, bytes):
            return agg.aggregate
        again = self.transcript.body(Phase.AGG2, owner)
        return again.aggregate if isinstance(again, Agg2) else None

    def part_matches(self, owner: int, part: int, values_P: Tensor) -> bool:
        """True if the bytes are the ones the owner committed to."""
        digest = part_digest(self.settings, self.step, self.number, owner, part, values_P)
        return digest == self.committed_part(owner, part)

    def aggregate_matches(self, owner: int, values_P: Tensor) -> bool:
        """True if the bytes are the aggregate its aggregator committed to."""
        place = self.roster.place(owner)
        digest = aggregate_digest(self.settings, self.step, self.number, owner, place, values_P)
        return digest == self.committed_aggregate(owner)

    # --- what this peer says ----------------------------------------------------------------------------------

    def commit(self) -> Commit | None:
        """COMMIT, once our gradient is there (who does not contribute commits to randomness alone)."""
        parts: tuple[bytes, ...] = ()
        if self.me in self.contributors:
            if self.own_D is None:
                return None
            parts = tuple(
                part_digest(self.settings, self.step, self.number, self.me, part, self.slice(self.own_D, part))
                for part in range(self.split.count)
            )
        hidden = commitment(self.settings.run, self.step, self.number, self.me, self.share)
        return Commit(self.slot(Phase.COMMIT), self.transcript.prefix, parts, hidden)

    def lacking_parts(self) -> tuple[int, ...]:
        """Contributors whose part did not arrive, or cannot be computed with."""
        return tuple(owner for owner in self.contributors if owner not in self.parts or not usable(self.parts[owner]))

    def agg(self, overdue: bool) -> Agg | None:
        """AGG, once every contributor's part is here; a complaint once the wait for them is over, or needless."""
        absent = [owner for owner in self.contributors if owner not in self.parts]
        if not overdue and self._await_any(BulkKind.PART, [(owner, self.place) for owner in absent]):
            return None
        lacking = self.lacking_parts()
        value = Missing(lacking) if lacking else self._aggregate()
        return Agg(self.slot(Phase.AGG), self.transcript.prefix, value)

    def _await_any(self, kind: BulkKind, absent: list[tuple[int, int]]) -> bool:
        """True if one of these tensors (owner, part), which are not here, may still come from its owner."""
        if not self.refuted:
            return bool(absent)
        return any(self.key(kind, owner, part) not in self.refuted for owner, part in absent)

    def awaits_publication(self, index: tuple[int, int, int, int]) -> bool:
        """True if a published part (step, attempt, owner, part) is not here and may still come from its owner."""
        step, number, owner, part = index
        named = BulkKey(step, number, BulkKind.PUBLICATION, owner, part)
        return index not in self.publications and named not in self.refuted

    def _aggregate(self) -> bytes:
        """Run the rule on the parts and keep the result; returns its digest."""
        if not self.contributors:
            return b""
        inputs_NP = [self.parts[owner] for owner in self.contributors]
        result = self.tools.rule.aggregate(inputs_NP, self.radii[self.place])
        self.iterations, value_P, precision = result.iterations, result.value_P, self.settings.precision
        self.aggregates[self.me] = value_P = precision.rounded(value_P) if precision.narrow else value_P
        return aggregate_digest(self.settings, self.step, self.number, self.me, self.place, value_P)

    def complaints(self) -> tuple[tuple[int, int], ...]:
        """(aggregator, contributor) of every complaint in AGG, in roster order."""
        found = []
        for peer, body in self.transcript.of(Agg, Phase.AGG).items():
            if isinstance(body.aggregate, Missing):
                found += [(peer, owner) for owner in body.aggregate.owners]
        return tuple(found)

    def owes(self, owner: int, part: int) -> bool:
        """True if the aggregator of `part` has complained that it lacks `owner`'s."""
        if not 0 <= part < self.split.count:
            return False
        agg = self.transcript.body(Phase.AGG, self.roster.active[part])
        return isinstance(agg, Agg) and isinstance(agg.aggregate, Missing) and owner in agg.aggregate.owners

    def agg2(self) -> Agg2 | None:
        """AGG2: the aggregate of a peer that had complained, now that the parts are published; None while one is not
        here (after a new start in the midst of the attempt)."""
        complained = False
        for aggregator, owner in self.complaints():
            if aggregator == self.me:
                self.parts[owner] = self.publications[(self.step, self.number, owner, self.place)]
                complained = True
        if complained and any(owner not in self.parts for owner in self.contributors):
            return None
        return Agg2(self.slot(Phase.AGG2), self.transcript.prefix, self._aggregate() if complained else b"")

    @property
    def aggregators(self) -> tuple[int, ...]:
        """Peers that aggregate a part in this attempt: all active ones, or nobody in a step without gradients."""
        return self.roster.active if self.contributors else ()

    def reveal(self, overdue: bool) -> Reveal | None:
        """REVEAL, once every aggregate is here, or with the bits of those that did not come in time or are false."""
        owners = self.aggregators
        have = tuple([owner in self.aggregates for owner in owners])
        absent = [(owner, part) for part, owner in enumerate(owners) if not have[part]]
        if not overdue and self._await_any(BulkKind.AGGREGATE, absent):
            return None
        return Reveal(self.slot(Phase.REVEAL), self.transcript.prefix, self.share.x, self.share.salt, have)

    def fix_randomness(self) -> None:
        """Compute r from all reveals: only now, after every gradient and every aggregate is committed to."""
        reveals = self.transcript.of(Reveal, Phase.REVEAL)
        self.r = combine(self.step, self.number, [reveal.x for reveal in reveals.values()])
        if self.contributors:
            self.z = projection(self.r, self.split.largest)

    def checksums(self) -> Checksums:
        """CHECKSUMS of our own gradient against every aggregate."""
        claims: list[Checksum] = []
        if self.own_D is not None and self.me in self.contributors:
            claims = [self.true_checksum(self.slice(self.own_D, part), part) for part in range(self.split.count)]
        s, norms = tuple([claim.s for claim in claims]), tuple([claim.norm for claim in claims])
        return Checksums(self.slot(Phase.CHECKSUMS), self.transcript.prefix, s, norms)

    def true_checksum(self, values_P: Tensor, part: int) -> Checksum:
        """The checksum of a contributor's part against the agreed aggregate of this attempt.

        Against an aggregate that is not finite everyone claims zero: NaN would make the honest look implausible, and
        the part is recomputed anyway.
        """
        aggregate_P = self.aggregates[self.roster.active[part]]
        truth = checksum(values_P, aggregate_P, self.z, self.clip_radii[part], self.tools.arithmetic)
        # The norm is finite whenever the aggregate is and the part is usable, so this scan hardly ever runs.
        return truth if math.isfinite(truth.norm) or finite(aggregate_P) else Checksum(0.0, 0.0)

    def claims(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What all contributors claimed in CHECKSUMS: s and norms, float64 `[contributors, parts]`."""
        told = self.transcript.of(Checksums, Phase.CHECKSUMS)
        bodies = [told[owner] for owner in self.contributors]
        return np.array([body.s for body in bodies]), np.array([body.norms for body in bodies])

    def claim(self, owner: int, part: int) -> Checksum:
        """What a contributor claimed in CHECKSUMS."""
        body = self.transcript.body(Phase.CHECKSUMS, owner)
        assert isinstance(body, Checksums)
        return Checksum(body.s[part], body.norms[part])

    def claim_holds(self, owner: int, part: int, values_P: Tensor) -> bool:
        """V1: a contributor's claim is what its committed bytes give."""
        truth = self.true_checksum(values_P, part)
        return same(self.claim(owner, part), truth, self.clip_radii[part], self.settings.claim_tolerance)

    def checks(self) -> tuple[bool, ...]:
        """Our V1 bits, one per contributor, for the part we aggregate."""
        return tuple([self.claim_holds(owner, self.place, self.parts[owner]) for owner in self.contributors])

    def check_of(self, aggregator: int, contributor: int) -> bool:
        """The V1 bit that an aggregator reported."""
        report = self.transcript.body(Phase.REPORT, aggregator)
        assert isinstance(report, Report)
        return report.checks[self.contributors.index(contributor)]

    def closed(self) -> dict[int, Close]:
        """The CLOSEs of this attempt."""
        return self.transcript.of(Close, Phase.CLOSE)

    def certificate(self) -> Certificate | None:
        """Its CLOSEs as a certificate, None while they are none."""
        signed = self.transcript.signed(Phase.CLOSE)
        return Certificate.among([(body, signed[peer]) for peer, body in self.closed().items()], self.roster.active)
