"""What a peer keeps of an attempt brings the same attempt back, and shares nothing with it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import torch

from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.transcript import Added
from btard.node.protocol.state.snapshot import Past, add
from btard.node.protocol.wire.encoding import decode_body, encode_body
from btard.node.protocol.wire.messages import Commit, Phase, Signed, Suspect
from tests.protocol_attempts import complete, said

BAD = 5


def again(attempt: Attempt, me: int = 0) -> Attempt:
    return Past.of(attempt).attempt(attempt.settings, attempt.tools, me, b"secret")


def test_an_attempt_comes_back_as_it_was() -> None:
    attempt = complete().attempt
    attempt.publications[(2, 0, BAD, 3)] = torch.ones(3)
    back = again(attempt)
    for name in ("where", "me", "contributors", "pairs", "r", "iterations", "own_D", "state"):
        assert getattr(back, name) is getattr(attempt, name) or getattr(back, name) == getattr(attempt, name), name
    assert torch.equal(back.z, attempt.z) and attempt.z.numel()
    assert back.transcript.digest == attempt.transcript.digest and back.transcript.finished
    assert list(back.transcript.everything()) == list(attempt.transcript.everything())
    assert (back.aggregates, back.publications) == (attempt.aggregates, attempt.publications)


def test_what_proves_misconduct_is_kept_too() -> None:
    attempt = complete().attempt
    other = msgspec.structs.replace(said(attempt, Commit, BAD), randomness=b"2" * 32)
    suspicion = Suspect(attempt.slot(Phase.SUSPECT, 1), (), Phase.CLOSE, BAD)
    for body in (other, suspicion):
        attempt.transcript.add(body, Signed(encode_body(body), bytes(64)))
    back = again(attempt).transcript
    assert back.conflicts == attempt.transcript.conflicts != {}
    assert back.suspects == attempt.transcript.suspects != {}
    assert back.split is None


def test_an_attempt_in_its_midst_has_no_randomness_yet() -> None:
    attempt = complete().attempt
    attempt.r, attempt.z = b"", torch.empty(0)
    back = again(attempt)
    assert back.r == b"" and back.z.numel() == 0


def test_what_comes_back_is_a_copy() -> None:
    attempt = complete().attempt
    kept = Past.of(attempt)
    first = kept.attempt(attempt.settings, attempt.tools, 0, b"secret")
    first.aggregates.clear()
    first.publications[(0, 0, 0, 0)] = torch.ones(1)
    second = kept.attempt(attempt.settings, attempt.tools, 0, b"secret")
    assert set(second.aggregates) == set(attempt.aggregates) != set() and not second.publications


def test_who_had_no_place_in_it_sees_it_as_any_other_would() -> None:
    """A peer that has been let back since."""
    attempt = complete().attempt
    assert again(attempt, me=3).me == 3
    kept = Past.of(attempt)
    kept = replace(kept, state=replace(kept.state, roster=kept.state.roster.without((0,))), messages=(), finished=())
    assert kept.attempt(attempt.settings, attempt.tools, 0, b"secret").me == 1


def test_its_share_follows_from_the_secret_and_the_place() -> None:
    attempt = complete().attempt
    kept = Past.of(attempt)

    def share(number: int, secret: bytes) -> bytes:
        return replace(kept, number=number).attempt(attempt.settings, attempt.tools, 0, secret).share.x

    assert share(0, b"secret") == share(0, b"secret")
    assert len({share(0, b"secret"), share(1, b"secret"), share(0, b"another")}) == 3


def test_messages_are_added_once() -> None:
    attempt = complete().attempt
    messages = tuple(attempt.transcript.everything())
    add(attempt, messages)
    assert tuple(attempt.transcript.everything()) == messages
    assert attempt.transcript.add(decode_body(messages[0].body), messages[0]) is Added.DUPLICATE
