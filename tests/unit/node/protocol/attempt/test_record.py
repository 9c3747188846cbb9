"""What a peer keeps of an attempt brings the same attempt back, and shares nothing with it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import torch

from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.record import AttemptRecord
from btard.node.protocol.wire.encoding import decode_body, encode_body
from btard.node.protocol.wire.messages import Commit, Phase, Signed, Suspect
from tests.protocol_attempts import complete, said, stopped

BAD = 5


def restored(record: AttemptRecord, like: Attempt, me: int = 0, secret: bytes = b"secret") -> Attempt:
    return Attempt.of(record, like.settings, like.tools, me, secret)


def again(attempt: Attempt, me: int = 0) -> Attempt:
    return restored(attempt.record(), attempt, me)


def test_an_attempt_comes_back_as_it_was() -> None:
    attempt = complete().attempt
    attempt.publications[(2, 0, BAD, 3)] = torch.ones(3)
    back = again(attempt)
    for name in ("where", "me", "contributors", "pairs", "r", "own_D", "state"):
        assert getattr(back, name) is getattr(attempt, name) or getattr(back, name) == getattr(attempt, name), name
    assert torch.equal(back.z, attempt.z) and attempt.z.numel()
    assert back.transcript.digest == attempt.transcript.digest and back.transcript.finished
    assert list(back.transcript.everything()) == list(attempt.transcript.everything())
    assert (back.aggregates, back.publications) == (attempt.aggregates, attempt.publications)
    assert back.record() == attempt.record() and attempt.record().contributors == attempt.contributors


def test_it_holds_each_message_once_and_the_finished_phases_whole() -> None:
    attempt = complete().attempt
    record = attempt.record()
    assert tuple(record.phases) == attempt.transcript.finished and record.step == attempt.step
    for phase, messages in record.phases.items():
        assert [decode_body(signed.body).slot.sender for signed in messages] == list(attempt.roster.active), phase
    flat = [signed for messages in (*record.phases.values(), record.others) for signed in messages]
    assert len(flat) == len(set(flat)) and set(flat) == set(attempt.transcript.everything())


def test_what_proves_misconduct_is_kept_too() -> None:
    attempt = complete().attempt
    other = msgspec.structs.replace(said(attempt, Commit, BAD), randomness=b"2" * 32)
    suspicion = Suspect(attempt.slot(Phase.SUSPECT, 1), (), Phase.CLOSE, BAD)
    added = [Signed(encode_body(body), bytes(64)) for body in (other, suspicion)]
    for body, signed in zip((other, suspicion), added, strict=True):
        attempt.transcript.add(body, signed)
    assert set(added) <= set(attempt.record().others)
    back = again(attempt).transcript
    assert back.conflicts == attempt.transcript.conflicts != {}
    assert back.suspects == attempt.transcript.suspects != {}
    assert back.split is None
    assert list(back.everything()) == list(attempt.transcript.everything())


def test_an_attempt_in_its_midst_has_no_randomness_yet() -> None:
    _, round_ = stopped(2, "REVEAL")
    back = again(round_.attempt)
    assert back.transcript.finished == round_.attempt.transcript.finished != ()
    assert back.r == b"" and back.z.numel() == 0


def test_what_comes_back_is_a_copy() -> None:
    attempt = complete().attempt
    kept = attempt.record()
    first = restored(kept, attempt)
    first.aggregates.clear()
    first.publications[(0, 0, 0, 0)] = torch.ones(1)
    second = restored(kept, attempt)
    assert set(second.aggregates) == set(attempt.aggregates) != set() and not second.publications


def test_who_had_no_place_in_it_sees_it_as_any_other_would() -> None:
    """A peer that has been let back since."""
    attempt = complete().attempt
    assert again(attempt, me=3).me == 3
    kept = attempt.record()
    kept = replace(kept, state=replace(kept.state, roster=kept.state.roster.without((0,))), phases={}, others=())
    assert restored(kept, attempt).me == 1


def test_its_share_follows_from_the_secret_and_the_place() -> None:
    attempt = complete().attempt
    kept = attempt.record()

    def share(number: int, secret: bytes) -> bytes:
        return restored(replace(kept, number=number), attempt, 0, secret).share.x

    assert share(0, b"secret") == share(0, b"secret")
    assert len({share(0, b"secret"), share(1, b"secret"), share(0, b"another")}) == 3
