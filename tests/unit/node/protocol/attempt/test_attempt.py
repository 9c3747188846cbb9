"""One attempt: the split of a vector, one message per slot with the prefix over finished phases, who contributes.

What is bound by which digest, what is said of tensors that are not here, and that what is kept of an attempt makes it
again.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from btard.node.protocol.api import BulkKind
from btard.node.protocol.attempt.attempt import (
    Added,
    Attempt,
    Split,
    Transcript,
    aggregate_digest,
    finite,
    part_digest,
    part_radius,
    usable,
)
from btard.node.protocol.attempt.mprng import Share
from btard.node.protocol.attempt.verification import Checksum
from btard.node.protocol.state.state import AttemptRecord, Contribution
from btard.node.protocol.wire.encoding import decode_body, encode_body
from btard.node.protocol.wire.messages import (
    Agg,
    Agg2,
    Body,
    Close,
    Commit,
    Have,
    Missing,
    Phase,
    Signed,
    Slot,
    Suspect,
)
from tests.protocol_attempts import amend, changed, complete, said, state_with, stopped
from tests.unit.node.protocol.attempt.test_transfers import complaining, published

# --- the split ------------------------------------------------------------------------------------------------


@given(st.integers(1, 10_000), st.integers(1, 300))
def test_parts_are_contiguous_and_differ_by_at_most_one(dimension: int, count: int) -> None:
    split = Split(dimension, count)
    bounds = split.bounds
    assert (len(bounds), bounds[0][0], bounds[-1][1]) == (count, 0, dimension)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))
    sizes = [split.size(part) for part in range(count)]
    assert max(sizes) - min(sizes) <= 1
    assert split.largest == max(sizes)
    assert min(sizes) >= 1 or dimension < count


@pytest.mark.parametrize(("dimension", "count", "sizes"), [(6, 6, [1] * 6), (7, 3, [2, 2, 3]), (10, 4, [2, 3, 2, 3])])
def test_sizes(dimension: int, count: int, sizes: list[int]) -> None:
    assert [Split(dimension, count).size(part) for part in range(count)] == sizes


def test_the_radius_of_a_genesis_part_is_tau() -> None:
    assert part_radius(5.0, 16, 6, 96) == pytest.approx(5.0)


@given(st.integers(6, 1000), st.integers(2, 6))
def test_the_total_radius_does_not_change_when_bans_split_the_vector_anew(dimension: int, active: int) -> None:
    split = Split(dimension, active)
    total = math.fsum(part_radius(5.0, split.size(part), 6, dimension) ** 2 for part in range(active))
    assert total == pytest.approx(6 * 25.0)


# --- the transcript -------------------------------------------------------------------------------------------


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


# --- the attempt ----------------------------------------------------------------------------------------------


SHARE = Share(b"x" * 32, b"s" * 32)
BAD = 5


def again(attempt: Attempt, me: int = 0, number: int = 1, settings: object = None, **state: object) -> Attempt:
    """A fresh attempt from the state of another."""
    start = state_with(attempt.state, **state)
    return Attempt(settings or attempt.settings, attempt.tools, start, number, me, SHARE)  # type: ignore[arg-type]


# --- who contributes --------------------------------------------------------------------------------------------------


def test_whoever_validates_does_not_contribute_unless_validators_do() -> None:
    attempt = complete().attempt
    ((validator, target),) = attempt.pairs
    assert attempt.contributors == tuple(peer for peer in range(6) if peer != validator)
    assert again(attempt, me=validator).targets == (target,)
    assert again(attempt, me=target).targets == ()
    assert again(attempt, settings=replace(attempt.settings, validators_contribute=True)).contributors == tuple(
        range(6)
    )


def test_without_gradients_nobody_contributes_and_nobody_aggregates() -> None:
    attempt = complete(step=0).attempt
    undo = again(attempt, undo=(Contribution(0, 0, 1), Contribution(0, 0, 2)), undo_checkers=3)
    last = again(attempt, step=attempt.settings.steps)
    assert undo.contributors == undo.aggregators == last.contributors == last.aggregators == ()
    assert undo.commit() == Commit(undo.slot(Phase.COMMIT), (), (), undo.commit().randomness)  # type: ignore[union-attr]
    agg, reveal = last.agg(overdue=False), last.reveal(overdue=False)
    assert agg is not None and agg.aggregate == b""
    assert reveal is not None and reveal.have == ()
    assert (last.burden, attempt.burden) == (0, 0)
    assert sum(len(share) for share in undo.shares.values()) == 6
    assert undo.burden == max(len(share) for share in undo.shares.values())


def test_a_smaller_roster_splits_anew_and_a_place_is_not_an_id() -> None:
    attempt = complete(step=0).attempt
    smaller = again(attempt, me=5, roster=attempt.roster.without([1, 4]))
    assert (smaller.split.count, smaller.place, smaller.contributors) == (4, 3, (0, 2, 3, 5))
    assert smaller.where != attempt.where
    flat_D = torch.arange(19.0)
    assert torch.cat([smaller.slice(flat_D, part) for part in range(4)]).equal(flat_D)


# --- commitments ------------------------------------------------------------------------------------------------------


def test_a_digest_binds_run_step_attempt_owner_part_and_kind() -> None:
    settings, values_P = complete(step=0).attempt.settings, torch.ones(3)
    names = [(1, 0, 2, 3), (2, 0, 2, 3), (1, 1, 2, 3), (1, 0, 3, 3), (1, 0, 2, 2), (10, 2, 3, 0)]
    made = [digest(settings, *name, values_P) for digest in (part_digest, aggregate_digest) for name in names]
    made.append(part_digest(replace(settings, run=bytes(32)), 1, 0, 2, 3, values_P))
    made.append(part_digest(settings, 1, 0, 2, 3, torch.tensor([1.0, 1.0, 1.0000001])))
    assert len(set(made)) == len(made)


def test_bytes_match_only_what_their_owner_committed_to() -> None:
    attempt = complete(step=0).attempt
    own_P = attempt.slice(attempt.own_D, 2)  # type: ignore[arg-type]
    assert attempt.part_matches(0, 2, own_P)
    assert not attempt.part_matches(0, 1, own_P), "another part of the same size"
    assert not attempt.part_matches(1, 2, own_P)
    assert not attempt.part_matches(0, 2, -own_P)
    held_P = attempt.aggregates[3]
    assert attempt.aggregate_matches(3, held_P)
    assert not attempt.aggregate_matches(2, held_P)
    del attempt.transcript._bodies[Phase.COMMIT][0], attempt.transcript._bodies[Phase.AGG][3]
    assert attempt.committed_part(0, 2) is None and not attempt.part_matches(0, 2, own_P)
    assert attempt.committed_aggregate(3) is None and not attempt.aggregate_matches(3, held_P)


def test_after_a_complaint_the_second_digest_binds_and_never_replaces_a_first() -> None:
    attempt = complete(step=0).attempt
    first = said(attempt, Agg, 3)
    attempt.transcript._bodies[Phase.AGG2], attempt.transcript._signed[Phase.AGG2] = {}, {}
    amend(attempt, Agg2(attempt.slot(Phase.AGG2, 3), (), b"2" * 32))
    assert attempt.committed_aggregate(3) == first.aggregate  # type: ignore[union-attr]
    changed(attempt, Agg, 3, aggregate=Missing((1,)))
    assert attempt.committed_aggregate(3) == b"2" * 32


def test_a_validator_has_committed_to_no_part() -> None:
    attempt = complete().attempt
    assert attempt.committed_part(attempt.pairs[0][0], 0) is None


# --- what is not here -------------------------------------------------------------------------------------------------


def test_our_commit_waits_for_our_gradient() -> None:
    attempt = again(complete(step=0).attempt)
    assert attempt.commit() is None
    attempt.own_D = torch.arange(19.0)
    commit = attempt.commit()
    assert commit is not None and len(commit.parts) == 6
    attempt.transcript._bodies[Phase.COMMIT] = {0: commit}
    assert all(attempt.part_matches(0, part, attempt.slice(attempt.own_D, part)) for part in range(6))


LACKING = [
    ("a part may come", {"missing": (4,)}, None),
    ("it did not", {"missing": (4,), "overdue": True}, (4,)),
    ("its owner sent another", {"missing": (4,), "refuted": (4,)}, (4,)),
    ("one was refuted, one may come", {"missing": (2, 4), "refuted": (4,)}, None),
    ("all others were", {"missing": (1, 2), "refuted": (2, 1)}, (1, 2)),
    ("one is not a number", {"spoilt": (5,)}, (5,)),
    ("our own too", {"spoilt": (0, 3), "missing": (1,), "overdue": True}, (0, 1, 3)),
]


@pytest.mark.parametrize(("case", "owners"), [row[1:] for row in LACKING], ids=[row[0] for row in LACKING])
def test_of_whom_an_aggregator_complains(case: dict[str, object], owners: tuple[int, ...] | None) -> None:
    attempt = complete(step=0).attempt
    for peer in case.get("missing", ()):  # type: ignore[attr-defined]
        del attempt.parts[peer]
    for peer in case.get("refuted", ()):  # type: ignore[attr-defined]
        attempt.refuted.add(attempt.key(BulkKind.PART, peer, 0))
    for peer in case.get("spoilt", ()):  # type: ignore[attr-defined]
        attempt.parts[peer] = torch.tensor([0.0, math.nan, 0.0])
    agg = attempt.agg(overdue=bool(case.get("overdue")))
    assert (agg.aggregate if agg is not None else None) == (Missing(owners) if owners is not None else None)


def test_without_a_complaint_the_aggregate_is_kept_and_committed_to() -> None:
    attempt = complete(step=0).attempt
    before = attempt.aggregates.pop(0)
    agg = attempt.agg(overdue=False)
    assert agg is not None and attempt.aggregates[0].equal(before)
    assert agg.aggregate == aggregate_digest(attempt.settings, 0, 0, 0, 0, before)


@pytest.mark.parametrize(("part", "owed"), [(1, True), (2, False), (5, False), (6, False), (-5, False)])
def test_a_part_is_owed_to_whom_complained_of_it(part: int, owed: bool) -> None:
    attempt = complaining((1, 4), (2, 3))
    assert attempt.owes(4, part) is owed
    assert not attempt.owes(99, part)


def test_the_second_aggregate_is_made_of_what_was_published() -> None:
    attempt, honest = complaining((0, 4), (0, 2), (3, 1)), complete(step=0).attempt
    expected = said(honest, Agg, 0)
    for owner in (2, 4):
        published(attempt, owner, 0, *attempt.parts.pop(owner).tolist())
    del attempt.parts[5]
    assert attempt.agg2() is None, "started again, it lacks a part of which it has not complained"
    attempt.parts[5] = honest.parts[5]
    agg2 = attempt.agg2()
    assert agg2 is not None and agg2.aggregate == expected.aggregate  # type: ignore[union-attr]
    others = complaining((3, 1))
    del others.parts[5]
    assert others.agg2() == Agg2(others.slot(Phase.AGG2), others.transcript.prefix, b""), "we had not complained"


def test_a_reveal_says_which_aggregates_are_here_once_no_other_can_come() -> None:
    attempt = complete(step=0).attempt
    del attempt.aggregates[2], attempt.aggregates[5]
    have = (True, True, False, True, True, False)
    assert attempt.reveal(overdue=False) is None
    late = attempt.reveal(overdue=True)
    assert late is not None and late.have == have
    attempt.refuted |= {attempt.key(BulkKind.AGGREGATE, 2, 2), attempt.key(BulkKind.PART, 5, 5)}
    assert attempt.reveal(overdue=False) is None, "it is a part of peer 5 that was false"
    attempt.refuted.add(attempt.key(BulkKind.AGGREGATE, 5, 5))
    reveal = attempt.reveal(overdue=False)
    assert reveal is not None and reveal.have == have


# --- checksums --------------------------------------------------------------------------------------------------------


def test_claims_of_honest_peers_hold_and_one_bit_more_does_not() -> None:
    attempt = complete().attempt
    assert set(attempt.checks()) == {True}
    owner = attempt.contributors[-1]
    claims = said(attempt, type(attempt.checksums()), owner)
    s = (math.nextafter(claims.s[0], math.inf), *claims.s[1:])  # type: ignore[union-attr]
    amend(attempt, msgspec.structs.replace(claims, s=s))  # type: ignore[type-var]
    assert attempt.checks() == tuple(peer != owner for peer in attempt.contributors)
    assert attempt.check_of(0, owner), "what it reported before"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_against_an_aggregate_that_is_not_finite_everyone_claims_zero(value: float) -> None:
    attempt = complete(step=0).attempt
    attempt.aggregates[4] = torch.tensor([0.0, value, 0.0])
    assert attempt.true_checksum(torch.ones(3), 4) == Checksum(0.0, 0.0)
    sums = attempt.checksums()
    assert (sums.s[4], sums.norms[4]) == (0.0, 0.0)
    assert sums.norms[3] > 0


def test_against_the_largest_finite_aggregate_a_claim_is_still_one() -> None:
    attempt = complete(step=0).attempt
    attempt.aggregates[4] = torch.full((3,), torch.finfo(torch.float32).max)
    claim = attempt.true_checksum(torch.ones(3), 4)
    assert math.isfinite(claim.norm) and claim.norm > 1e38


def test_nothing_is_usable_and_finite() -> None:
    """A roster larger than the vector has empty parts."""
    assert usable(torch.empty(0)) and finite(torch.empty(0))
    assert not finite(torch.tensor([1.0, -math.inf])) and finite(torch.tensor([3e38]))


# --- what is kept of it ----------------------------------------------------------------------------------------------


def restored(record: AttemptRecord, like: Attempt, me: int = 0, secret: bytes = b"secret") -> Attempt:
    return Attempt.of(record, like.settings, like.tools, me, secret)


def back_from(attempt: Attempt, me: int = 0) -> Attempt:
    return restored(attempt.record(), attempt, me)


def test_an_attempt_comes_back_as_it_was() -> None:
    attempt = complete().attempt
    attempt.publications[(2, 0, BAD, 3)] = torch.ones(3)
    back = back_from(attempt)
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
    back = back_from(attempt).transcript
    assert back.conflicts == attempt.transcript.conflicts != {}
    assert back.suspects == attempt.transcript.suspects != {}
    assert back.split is None
    assert list(back.everything()) == list(attempt.transcript.everything())


def test_an_attempt_in_its_midst_has_no_randomness_yet() -> None:
    _, round_ = stopped(2, "REVEAL")
    back = back_from(round_.attempt)
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
    assert back_from(attempt, me=3).me == 3
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


def test_suspicions_of_one_phase_are_shown_by_whom_they_name() -> None:
    transcript = filled()
    told = [suspect(0, peer=5), suspect(5, peer=2), suspect(0, peer=2)]
    for body in told:
        transcript.add(body, signed(body))
    assert list(transcript.everything())[len(ACTIVE) :] == [signed(body) for body in reversed(told)]


def test_how_many_have_spoken_in_a_phase() -> None:
    assert [filled(peers).count(Phase.COMMIT) for peers in ((), (2,), ACTIVE)] == [0, 1, 3]
    assert filled().count(Phase.AGG) == 0
