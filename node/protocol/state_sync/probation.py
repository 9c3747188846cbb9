"""Peers that come back: who may, what they sign on probation, and what everybody finds of it.

A peer that fell silent (`gone`) may return once. On probation it is in no roster and nobody waits for it: it follows
the committed states, computes its gradient of each step and signs its digest (JOIN). Active peers carry that into their
next REPORT, and everyone computes the gradient again: no validator has to be believed, and it costs one gradient a step
while a probation lasts. `--probation` correct digests in committed transcripts let it back, a wrong one bans it for
ever.
Source: Gorbunov et al. 2021, section 3.3 (Sybil attacks); PROTOCOL section 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
from torch import Tensor

from btard.node.errors import WireError
from btard.node.protocol.adjudication.charges import Equivocation, FalseProbation, Guilt
from btard.node.protocol.adjudication.offences import standing
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.roster import Roster
from btard.node.protocol.settings import Settings
from btard.node.protocol.state.state import Ban, State, Summary
from btard.node.protocol.state_sync import admission
from btard.node.protocol.wire.certificate import open_signed
from btard.node.protocol.wire.encoding import (
    DIGEST_BYTES,
    decode_body,
    decode_signed,
    encode,
    number,
    stub,
    tensor_digest,
)
from btard.node.protocol.wire.messages import Body, Join, Phase, Report, Slot

_PER_PEER = 2
"""Two different JOINs of a peer for one step prove that it lies; more are of no use."""


def absent(bans: Sequence[Ban], active: Sequence[int]) -> tuple[int, ...]:
    """Who is out, and only ever was removed as gone: whether it may come back or not, it is told how the run stands."""
    guilty = {ban.peer for ban in bans if standing(ban.reason) != "gone"}
    return tuple(sorted({ban.peer for ban in bans} - guilty - set(active)))


def candidates(
    settings: Settings, bans: Sequence[Ban], returned: Sequence[tuple[int, int]], active: Sequence[int]
) -> tuple[int, ...]:
    """Who may come back: peers that were only ever removed as gone, and have not come back before.

    Nobody where environments differ: there a digest proves nothing, and nobody holds the bytes. Nor where steps can be
    taken back: who has not been there holds nothing of them.
    """
    if settings.probation == 0 or settings.recompute_tolerance > 0 or settings.undo > 0:
        return ()
    before = {peer for peer, _ in returned}
    return tuple(peer for peer in absent(bans, active) if peer not in before)


def absent_of(state: State | Summary) -> tuple[int, ...]:
    """Who is told of a state."""
    return absent(state.bans, state.roster.active if isinstance(state, State) else state.active)


def candidates_of(settings: Settings, state: State | Summary) -> tuple[int, ...]:
    """Who may come back in a state, or come in as a newcomer."""
    summary, active = (state.summary, state.roster.active) if isinstance(state, State) else (state, state.active)
    gone = candidates(settings, state.bans, summary.returned, active)
    return gone if settings.roster == "closed" else (*gone, *admission.candidates(summary))


def nearly_in(settings: Settings, state: State) -> tuple[int, ...]:
    """Who may be in the roster from the next step on, and so be there before us."""
    counts = dict(state.summary.probation)
    return tuple(peer for peer in candidates_of(settings, state) if counts.get(peer, 0) + 1 >= settings.probation)


def eligible(attempt: Attempt) -> tuple[int, ...]:
    """Whose JOINs count in an attempt: candidates in the state that the last certificate covers."""
    return candidates_of(attempt.settings, attempt.state.summary)


def join_slot(settings: Settings, roster: Roster, step: int, peer: int) -> Slot:
    """The slot of a JOIN, which names the founding roster: its sender is in no other, or in none.

    Args:
        settings: of the run.
        roster: any of the run.
        step, peer: of the JOIN.
    """
    return Slot(settings.run, roster.founding.digest, step, 0, Phase.JOIN, peer)


def gradient_digest(settings: Settings, step: int, peer: int, gradient_D: Tensor) -> bytes:
    """What a peer on probation signs of its gradient; the peer is part of it, so that it is of no use to another."""
    return tensor_digest("probation", (settings.run, number(step), number(peer)), gradient_D)


# --- in a REPORT ----------------------------------------------------------------------------------------------


def joins_fit(joins: Sequence[bytes], attempt: Attempt, sender: int) -> bool:
    """True if these are JOINs of the step before, validly signed, at most two of each candidate; and, if `sender`'s
    REPORT may carry one, an application, after them."""
    if not joins:
        return True
    application = admission.application_of(joins[-1])
    if application is not None:
        if not admission.application_fits(application, attempt, sender):
            return False
        joins = joins[:-1]
    bodies = [_opened(data, attempt) for data in joins]
    senders = [body.slot.sender for body in bodies if body is not None]
    crowded = any(senders.count(peer) > _PER_PEER for peer in senders)
    return len(senders) == len(joins) == len(set(joins)) and not crowded


def _opened(data: bytes, attempt: Attempt) -> Join | None:
    try:
        signed = decode_signed(data)
    except WireError:
        return None
    roster = attempt.roster

    def odd(body: Body) -> str | None:
        right = body.slot == join_slot(attempt.settings, roster, attempt.step - 1, body.slot.sender) and not body.prefix
        return None if right and isinstance(body, Join) and len(body.gradient) == DIGEST_BYTES else "wrong_slot"

    if encode(signed) != data:  # else one JOIN could be shown as many
        return None
    body = open_signed(
        signed,
        roster.keys,
        attempt.tools.verify,
        run=attempt.settings.run,
        kind=Join,
        senders=eligible(attempt),
        rule=odd,
    )
    return None if isinstance(body, str) else body


def requests(attempt: Attempt) -> dict[int, tuple[bytes, ...]]:
    """The different JOINs (encoded) that the REPORTs of an attempt carry, by sender, ascending."""
    found: dict[int, dict[bytes, bytes]] = {}
    for report in attempt.transcript.of(Report, Phase.REPORT).values():
        for data in report.joins:
            if admission.application_of(data) is not None:
                continue
            body = decode_signed(data).body
            found.setdefault(decode_body(body).slot.sender, {}).setdefault(body, data)
    return {peer: tuple(found[peer].values()) for peer in sorted(found)}


@dataclass(frozen=True, slots=True)
class Review:
    """What the REPORTs of one attempt come to.

    Args:
        guilts: members that signed a wrong digest, or two.
        correct: whose digest was the right one.
        wrong: newcomers that signed a wrong digest, or two: they have never been members, so none is banned.
    """

    guilts: tuple[Guilt, ...] = ()
    correct: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()

    def applied(self, state: State, step: int, needed: int, patience: int = admission.PATIENCE) -> State:
        """The state before `step` with this: counters raised, and who has done enough in the roster.

        Args:
            state: with the verdicts of the attempt.
            needed: `--probation`.
            patience: steps that a newcomer may let pass without a correct gradient.
        """
        if not (self.correct or state.summary.admissions):  # as in almost every step of a closed roster
            return state
        register = state.summary.register
        if not (self.correct or register.probation or register.newcomers):  # as in almost every step
            return state
        guilty = {ban.peer for ban in state.bans if standing(ban.reason) != "gone"}
        counts = {peer: count for peer, count in register.probation if peer not in guilty}
        for peer in self.correct:
            if peer not in guilty:
                counts[peer] = counts.get(peer, 0) + 1
        back = tuple(sorted(peer for peer, count in counts.items() if count >= needed))
        left = tuple((peer, counts[peer]) for peer in sorted(counts) if peer not in back)
        active = tuple(sorted({*state.roster.active, *back}))
        returned = (*state.summary.returned, *((peer, step) for peer in back))
        state = replace(state.with_facts(returned=returned), roster=replace(state.roster, active=active))
        members = (peer for peer, _ in returned)
        register = msgspec.structs.replace(register, probation=left)
        return admission.registered(
            state, admission.revised(register, step, self.correct, self.wrong, members, patience)
        )


def wanted(attempt: Attempt) -> tuple[int, ...]:
    """Whose gradients of the step before have to be computed to judge an attempt's JOINs."""
    return tuple(peer for peer, joins in requests(attempt).items() if len(joins) == 1)


def review(attempt: Attempt, past: Attempt | None, recomputed: Mapping[int, Tensor]) -> Review | None:
    """Judge every JOIN of an attempt; None while a gradient is missing.

    Args:
        attempt: complete up to REPORT.
        past: the committed attempt of the step before.
        recomputed: gradients of that step, by peer.
    """
    asked = requests(attempt)
    if past is None or not asked:
        return Review()
    if any(peer not in recomputed for peer in wanted(attempt)):
        return None
    guilts, correct, wrong, newcomers = [], [], [], admission.candidates(attempt.state.summary)
    for peer, joins in asked.items():
        right = len(joins) == 1 and matches(joins[0], attempt, past.step, recomputed[peer])
        if right:
            correct.append(peer)
        elif peer in newcomers:
            wrong.append(peer)
        elif len(joins) > 1:
            first, second = (stub(decode_signed(data)) for data in joins[:2])
            guilts.append(Guilt(peer, "equivocation", None, Equivocation(peer, first, second)))
        else:
            guilts.append(Guilt(peer, "probation", None, FalseProbation(peer, joins[0])))
    return Review(tuple(guilts), tuple(correct), tuple(wrong))


def matches(join: bytes, attempt: Attempt, step: int, gradient_D: Tensor) -> bool:
    """True if a JOIN (encoded) holds the digest of its sender's gradient of `step`."""
    body = decode_body(decode_signed(join).body)
    assert isinstance(body, Join)
    return body.gradient == gradient_digest(attempt.settings, step, body.slot.sender, gradient_D)
