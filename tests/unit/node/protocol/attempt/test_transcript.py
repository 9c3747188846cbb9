"""One message per slot, the prefix over finished phases."""

from __future__ import annotations

import pytest

from btard.node.protocol.attempt.transcript import Added, Transcript
from btard.node.protocol.wire.encoding import encode_body
from btard.node.protocol.wire.messages import Body, Close, Commit, Have, Phase, Signed, Slot, Suspect

ACTIVE = (0, 2, 5)


def commit(sender: int, randomness: bytes = b"c" * 32, prefix: tuple[bytes, ...] = ()) -> Commit:
    return Commit(Slot(b"run", b"roster", 1, 0, Phase.COMMIT, sender), prefix, (), randomness)


def signed(body: Body, signature: bytes = b"s") -> Signed:
    return Signed(encode_body(body), signature)


def filled(order: tuple[int, ...] = ACTIVE) -> Transcript:
    transcript = Transcript(ACTIVE)
    for sender in order:
        assert transcript.add(commit(sender), signed(commit(sender))) is Added.NEW
    return transcript


def test_a_second_body_is_a_conflict_and_a_second_signature_is_not() -> None:
    transcript = filled()
    assert transcript.add(commit(2), signed(commit(2), b"another")) is Added.DUPLICATE
    other = commit(2, b"d" * 32)
    assert transcript.add(other, signed(other)) is Added.CONFLICT
    assert transcript.conflicts == {(Phase.COMMIT, 2): (signed(commit(2)), signed(other))}
    third = commit(2, b"e" * 32)
    assert transcript.add(third, signed(third)) is Added.CONFLICT
    assert len(transcript.conflicts) == 1, "two are proof enough; more would only fill the memory"
    assert transcript.of(Commit, Phase.COMMIT)[2] == commit(2), "the first one stays"


def test_messages_are_listed_in_roster_order_whatever_their_arrival() -> None:
    assert list(filled((5, 0, 2)).of(Commit, Phase.COMMIT)) == [0, 2, 5]
    assert list(filled((5, 0, 2)).signed(Phase.COMMIT)) == [0, 2, 5]


def test_what_is_missing() -> None:
    assert filled((2,)).missing(Phase.COMMIT) == (0, 5)
    assert filled().missing(Phase.COMMIT) == ()
    assert [each.complete(Phase.COMMIT) for each in (filled((2,)), filled())] == [False, True]
    assert filled().missing(Phase.AGG) == ACTIVE


def finished(transcript: Transcript) -> tuple[bytes, ...]:
    transcript.finish(Phase.COMMIT)
    return transcript.prefix


def test_the_prefix_depends_on_bodies_alone() -> None:
    same = Transcript(ACTIVE)
    for sender in ACTIVE:
        same.add(commit(sender), signed(commit(sender), b"another signature"))
    other = filled((0, 2))
    changed = commit(5, b"d" * 32)
    other.add(changed, signed(changed))
    assert finished(filled()) == finished(filled((5, 2, 0))) == finished(same)
    assert finished(filled()) != finished(other)


def test_the_prefix_has_a_hash_per_finished_phase() -> None:
    transcript = filled()
    empty = transcript.digest
    transcript.finish(Phase.COMMIT)
    assert (len(transcript.prefix), transcript.finished) == (1, (Phase.COMMIT,))
    assert transcript.digest != empty


def suspect(sender: int, peer: int = 2, named: Phase = Phase.COMMIT) -> Suspect:
    return Suspect(Slot(b"run", b"roster", 1, 0, Phase.SUSPECT, sender), (), named, peer)


def test_suspicions_count_once_for_each_peer_and_slot() -> None:
    transcript = filled()
    first = suspect(0)
    assert transcript.add(first, signed(first)) is Added.NEW
    assert transcript.add(first, signed(first, b"another")) is Added.DUPLICATE
    assert transcript.silent(2) == ()
    for other in (suspect(5), suspect(0, named=Phase.AGG)):
        assert transcript.add(other, signed(other)) is Added.NEW
    assert transcript.silent(2) == ((Phase.COMMIT, 2),)
    assert transcript.silent(1) == ((Phase.COMMIT, 2), (Phase.AGG, 2))


def test_the_first_two_prefixes_that_differ_are_kept() -> None:
    """A longer prefix is no contradiction; what differs in a phase that both cover is, and the first pair stays."""
    transcript = Transcript(ACTIVE)
    said = [commit(0, prefix=(b"a",)), commit(2, prefix=(b"a", b"b")), commit(5, prefix=(b"a", b"x"))]
    for body in said[:2]:
        transcript.add(body, signed(body))
    assert transcript.split is None
    transcript.add(said[2], signed(said[2]))
    assert transcript.split == (signed(said[1]), signed(said[2]))
    have = Have(Slot(b"run", b"roster", 1, 0, Phase.HAVE, 0), (b"y",), ())
    transcript.add(have, signed(have))
    assert transcript.split == (signed(said[1]), signed(said[2]))


@pytest.mark.parametrize("alike", [True, False])
def test_a_prefix_that_came_before_the_phase_was_complete_is_held_against_ours(alike: bool) -> None:
    (ours,), transcript = finished(filled()), filled()
    early = Have(Slot(b"run", b"roster", 1, 0, Phase.HAVE, 2), (ours if alike else b"x",), ())
    transcript.add(early, signed(early))
    transcript.finish(Phase.COMMIT)
    assert transcript.split == (None if alike else (signed(early), signed(commit(0))))


def test_what_is_here_is_known_by_its_bytes() -> None:
    transcript, other = filled((0, 2)), commit(2, b"d" * 32)
    assert transcript.body(Phase.COMMIT, 2) == commit(2)
    assert transcript.body(Phase.COMMIT, 5) is None and transcript.body(Phase.AGG, 2) is None
    assert transcript.knows(Phase.COMMIT, 2, encode_body(commit(2)))
    assert not transcript.knows(Phase.COMMIT, 2, encode_body(other)), "its signature has not been checked"
    assert not transcript.knows(Phase.COMMIT, 5, encode_body(commit(2)))


def test_a_view_shows_proofs_and_suspicions_beside_the_messages() -> None:
    transcript, other = filled((5, 0, 2)), commit(2, b"d" * 32)
    transcript.add(other, signed(other))
    told = [suspect(5, named=Phase.AGG), suspect(5), suspect(0)]
    for body in told:
        transcript.add(body, signed(body))
    expected = [commit(0), commit(2), other, commit(5), *reversed(told)]
    assert list(transcript.everything()) == [signed(body) for body in expected]


def test_closes_fix_the_finished_phases_and_nothing_else() -> None:
    """What else one peer holds of the attempt, another may not."""
    transcript, other = filled(), commit(2, b"d" * 32)
    transcript.finish(Phase.COMMIT)
    late = Have(Slot(b"run", b"roster", 1, 0, Phase.HAVE, 0), (), ())
    closes = [Close(Slot(b"run", b"roster", 1, 0, Phase.CLOSE, peer), transcript.prefix, bytes(32)) for peer in ACTIVE]
    for body in (other, suspect(0), late, *closes):
        transcript.add(body, signed(body))
    certified = transcript.certified()
    assert list(certified.everything()) == [signed(body) for body in (*map(commit, ACTIVE), *closes)]
    assert not certified.conflicts and not certified.suspects
