"""An attempt is replayed from what evidence holds of it as every honest peer saw it, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch

from btard.node.protocol.adjudication.charges import Averaging, Guilt
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.evidence.format import Record, decode, gather
from btard.node.protocol.evidence.replay import Replay, UnprovenError, require
from btard.node.protocol.state.state import Ban
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Commit, Have, Held, Phase, Reveal, Signed
from tests.protocol_attempts import PEERS, said, stopped
from tests.unit.node.protocol.test_peer import signed_by

BAD, PART = 5, 3
put = msgspec.structs.replace


def ban(peer: int, step: int, attempt: int = 0, removed: bool = True) -> Ban:
    return Ban(step, attempt, peer, "silent", None, removed)


def recorded(step: int = 2) -> tuple[Replay, Record, Attempt]:
    """A third party, what evidence holds of a step, and the step as peer 0 saw it."""
    stage, round_ = stopped(step, "CLOSE")
    attempt = round_.attempt
    charge = Averaging(PART, "V2")
    data = gather(Guilt(PART, "aggregate", None, charge), ban(PART, step), attempt, round_.past, None, ())
    return Replay(stage.ground(), [], []), decode(data).trial, attempt


@pytest.mark.parametrize("step", [0, 2])
def test_a_replayed_attempt_is_the_one_that_was(step: int) -> None:
    replay, record, attempt = recorded(step)
    again = replay.attempt(record)
    assert (again.where, again.contributors, again.pairs) == (attempt.where, attempt.contributors, attempt.pairs)
    assert again.transcript.prefix == attempt.transcript.prefix and again.r == attempt.r != b""
    assert torch.equal(again.z, attempt.z)
    assert list(again.aggregates) == [PART] and torch.equal(again.aggregates[PART], attempt.aggregates[PART])


def without(kind: Phase, peer: int = BAD) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        slots = [(signed, decode_body(signed.body).slot) for signed in record.messages]
        return put(
            record, messages=tuple(signed for signed, slot in slots if (slot.phase, slot.sender) != (kind, peer))
        )

    return change


def instead(made: Callable[[], Signed], kind: Phase) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        rest = without(kind)(record).messages
        return put(record, messages=(*rest, made()))

    return change


def other_commit() -> Signed:
    body = said(recorded()[2], Commit, BAD)
    return signed_by(BAD, put(body, randomness=b"2" * 32))


def false_prefix() -> Signed:
    return signed_by(BAD, put(said(recorded()[2], Reveal, BAD), prefix=(bytes(32),) * 2))


def odd_bits(kind: type[Have | Held], phases: int, first: bool) -> Callable[[Record], Record]:
    """Bits from everyone, one more from `BAD`; read before what says how many there have to be, or after it."""

    def change(record: Record) -> Record:
        attempt = recorded()[2]
        prefix, phase = attempt.transcript.prefix[:phases], Phase[kind.__name__.upper()]
        made = tuple(
            signed_by(peer, kind(attempt.slot(phase, peer), prefix, (True,) * (peer == BAD))) for peer in range(PEERS)
        )
        return put(record, messages=(*made, *record.messages) if first else (*record.messages, *made))

    return change


def first_aggregate(**fields: object) -> Callable[[Record], Record]:
    return lambda record: put(record, aggregates=(put(record.aggregates[0], **fields),))


CHANGES: list[tuple[str, Callable[[Record], Record], str]] = [
    ("no such step", lambda r: put(r, step=-1), "no such attempt"),
    ("an enormous attempt", lambda r: put(r, attempt=1 << 63), "no such attempt"),
    ("the largest attempt", lambda r: put(r, attempt=(1 << 63) - 1), "another slot"),
    ("an enormous step", lambda r: put(r, step=1 << 63), "no such attempt"),
    ("the largest step", lambda r: put(r, step=(1 << 63) - 1), "of another step"),
    ("a smaller roster", lambda r: put(r, active=r.active[:-1]), "roster is not the one"),
    ("a larger roster", lambda r: put(r, active=(*r.active, PEERS)), "roster is not the one"),
    ("no state before", lambda r: put(r, before=None), "before step 2 is not certified"),
    ("the state before another step", lambda r: put(r, before=put(r.before, step=1)), "of another step"),
    ("another r before", lambda r: put(r, before=put(r.before, r=bytes(32))), "covers another state"),
    ("other validators", lambda r: put(r, before=put(r.before, validator_count=0)), "covers another state"),
    ("a CLOSE too few", lambda r: put(r, certificate=r.certificate[1:]), "CLOSEs of step 1 are missing"),
    ("one CLOSE twice", lambda r: put(r, certificate=(*r.certificate[1:], r.certificate[1])), "twice"),
    ("a message missing", without(Phase.REPORT), "messages of REPORT are missing"),
    ("a message twice", lambda r: put(r, messages=(*r.messages, r.messages[0])), "a slot has two messages"),
    (
        "a false signature",
        lambda r: put(r, messages=(put(r.messages[0], signature=bytes(64)), *r.messages[1:])),
        "signature",
    ),
    ("another attempt's messages", lambda r: put(r, attempt=1), "another"),
    ("another commitment", instead(other_commit, Phase.COMMIT), "fits no rule|prefixes differ"),
    ("another past", instead(false_prefix, Phase.REVEAL), "prefixes differ"),
    ("HAVEs of two lengths", odd_bits(Have, 5, first=False), "peer 5 fits no rule: HAVE must carry 0 bits"),
    ("a HELD before the AGGs", odd_bits(Held, 2, first=True), "peer 5 fits no rule: HELD must carry 0 bits"),
    ("another aggregate", first_aggregate(values=bytes(4 * 3)), "not the committed one"),
    ("an aggregate of nobody", first_aggregate(owner=PEERS), "has no aggregate"),
]


@pytest.mark.parametrize(("change", "problem"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_nothing_else_is_replayed(change: Callable[[Record], Record], problem: str) -> None:
    replay, record, _ = recorded()
    replay.attempt(record)
    with pytest.raises(UnprovenError, match=problem):
        replay.attempt(change(record))


def test_rosters_follow_from_what_is_proven_so_far() -> None:
    replay, record, _ = recorded()
    everyone = tuple(range(PEERS))
    assert replay.roster_at(9, 0).active == everyone
    replay.proven += [ban(4, 1), ban(3, 2, 1, removed=False)]
    replay.returned.append((4, 7))
    assert [replay.roster_at(*at).active for at in ((1, 0), (1, 1), (6, 0), (7, 0))] == [
        everyone,
        (0, 1, 2, 3, 5),
        (0, 1, 2, 3, 5),
        everyone,
    ]
    with pytest.raises(UnprovenError, match="roster is not the one"):
        replay.attempt(record)


def test_of_an_empty_roster_nothing_is_replayed() -> None:
    replay, record, _ = recorded()
    replay.proven += [ban(peer, 0) for peer in range(PEERS)]
    with pytest.raises(UnprovenError, match="nobody is left"):
        replay.attempt(record)


def test_a_certificate_ends_one_attempt_with_one_value() -> None:
    replay, record, _ = recorded()
    assert record.before is not None
    closed = replay.closed(record.certificate, 1, 0, record.before.digest)
    assert closed.value == record.before.digest
    assert replay.closed(record.certificate, 1, 0).messages == record.certificate, "whatever it says"
    for step, attempt, value in ((1, 0, bytes(32)), (2, 0, None), (1, 1, None), (-1, 0, None)):
        with pytest.raises(UnprovenError):
            replay.closed(record.certificate, step, attempt, value)


def test_a_message_is_opened_in_its_own_attempt_only() -> None:
    replay, record, _ = recorded()
    signed, roster = record.messages[0], replay.roster_at(2, 0)
    assert replay.open(signed, roster, 2, 0) == decode_body(signed.body)
    for step, attempt, of in ((1, 0, roster), (2, 1, roster), (2, 0, roster.without((5,)))):
        with pytest.raises(UnprovenError):
            replay.open(signed, of, step, attempt)


def test_what_is_required() -> None:
    require(True, "not said")
    with pytest.raises(UnprovenError, match=r"^it is said$"):
        require(False, "it is said")
