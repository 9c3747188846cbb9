"""What active peers tell a peer that comes back: the state that the last certificate covers, and for its first step
in the roster what it would know if it had been there. Unsigned: certificates, digests and a quorum bind all of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from btard.node.errors import WireError
from btard.node.protocol.roster import Roster
from btard.node.protocol.settings import Settings, Verify
from btard.node.protocol.state.state import AttemptRecord, Certified, State
from btard.node.protocol.wire.certificate import Certificate, open_signed
from btard.node.protocol.wire.encoding import decode_body, decoded, encode
from btard.node.protocol.wire.messages import Phase, Signed

_PHASES = Phase.CLOSE.value - Phase.COMMIT.value
"""Phases before CLOSE, all of them: more than any attempt goes through."""


class Past(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is told of the `AttemptRecord` of the step before: its number, the state it started from (None: genesis),
    its messages up to CLOSE; and the norm window after it."""

    number: int
    before: Certified | None
    messages: tuple[Signed, ...]
    norms: tuple[tuple[float, ...], ...]


class Snapshot(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The agreed state, and for a peer that it lets back the step before it."""

    now: Certified
    past: Past | None = None

    @property
    def word(self) -> bytes:
        """What all honest peers tell alike: the states, not the signatures that each of them happens to hold."""
        past = self.past
        before = past.before.summary.digest if past is not None and past.before is not None else b""
        return encode((self.now.summary.digest, past.number if past is not None else -1, before))


def snapshot_of(state: State, past: AttemptRecord | None) -> Snapshot:
    """What to tell.

    Args:
        state: committed.
        past: the attempt that led to it, for a peer that it lets back.
    """
    now = state.certified
    assert now is not None
    if past is None:
        return Snapshot(now)
    messages = tuple(signed for of_phase in past.phases.values() for signed in of_phase)
    return Snapshot(now, Past(past.number, past.state.certified, messages, state.norms.steps))


def certified(told: Certified, known: Roster, settings: Settings, verify: Verify) -> bool:
    """True if the roster before signed this state, and more than f of the peers that we know to be active among them:
    one of them is honest, and an honest peer signs for its own roster only.

    Args:
        told: a state with its certificate.
        known: the roster that we have seen last.
        settings, verify: of the run.
    """
    summary = told.summary
    try:
        certificate = Certificate.of(told.certificate)
    except WireError:
        return False
    step, attempt = summary.step - 1, certificate.end.slot.attempt
    roster = summary.roster(known).at(summary.bans, summary.returned, step, attempt)
    problem = certificate.verify(
        verify, roster, run=settings.run, step=step, attempt=attempt, value=summary.digest, known=known
    )
    return problem is None


def complete(past: Past, settings: Settings, roster: Roster, step: int, verify: Verify) -> bool:
    """True if the messages are what honest peers tell of a committed attempt: in each of its phases before CLOSE one
    of every active peer. Whatever else a liar has signed for the attempt (a SUSPECT, a second message for a slot) would
    be no phase of it, or would hide what the others said.

    Args:
        past: what is told of it.
        settings, verify: of the run.
        roster: of the attempt.
        step: of the attempt.
    """
    if not 0 < len(past.messages) <= _PHASES * len(roster.active):
        return False
    found: set[tuple[Phase, int]] = set()
    run, where = settings.run, (settings.run, roster.digest, step, past.number)
    for signed in past.messages:
        body = open_signed(signed, roster.keys, verify, run=run, where=where, senders=roster.active)
        if isinstance(body, str):
            return False
        slot = body.slot
        if not Phase.COMMIT.value <= slot.phase.value < Phase.CLOSE.value or (slot.phase, slot.sender) in found:
            return False
        found.add((slot.phase, slot.sender))
    return len(found) == len({phase for phase, _ in found}) * len(roster.active)


def after_dispute(state: State) -> State:
    """A certified state with what the OUTCOMEs that certify it add: its summary was fixed before the dispute."""
    certificate = Certificate.of(state.certificate)
    if not certificate.by_outcome:
        return state
    more = [removal for removal in certificate.removals if removal.peer in state.roster.active]
    return state.punished(certificate.end.slot.step, certificate.end.slot.attempt, more, reform=False)


def by_phase(messages: Sequence[Signed]) -> dict[Phase, tuple[Signed, ...]]:
    """An attempt's messages by phase, in order."""
    found: dict[Phase, list[Signed]] = {}
    for signed in messages:
        found.setdefault(decode_body(signed.body).slot.phase, []).append(signed)
    return {phase: tuple(found[phase]) for phase in sorted(found, key=lambda phase: phase.value)}


_decoder = msgspec.msgpack.Decoder(Snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """The snapshot in `data`.

    Raises:
        WireError: not a snapshot.
    """
    return decoded(_decoder, data, "a snapshot")
