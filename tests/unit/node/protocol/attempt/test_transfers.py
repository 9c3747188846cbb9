"""Tensors on their way in: which are kept, when, and from whom."""

from __future__ import annotations

import pytest
import torch

from btard.node.protocol.adjudication.charges import Publication
from btard.node.protocol.api import (
    BulkArrived,
    BulkKey,
    BulkKind,
    BulkRequested,
    Dropped,
    Say,
    SendBulk,
    TranscriptRequested,
)
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.attempt.transfers import Transfers
from btard.node.protocol.wire.messages import Missing, Reveal
from tests.protocol_attempts import stopped


def waiting() -> Round:
    """Peer 0 in step 1, waiting for parts."""
    _, round_ = stopped(1, "COMMIT")
    return round_


ROUND = waiting()
ATTEMPT = ROUND.attempt
OWNER = next(peer for peer in ATTEMPT.contributors if peer != 0)
VALIDATOR = ATTEMPT.pairs[0][0]
SIZE = ATTEMPT.split.size(0)
WANTED = [
    ("a contributor's part", BulkKey(1, 0, BulkKind.PART, OWNER, 0), OWNER, SIZE, True),
    ("its own", BulkKey(1, 0, BulkKind.PART, OWNER, 0), None, SIZE, True),
    ("from another neighbour", BulkKey(1, 0, BulkKind.PART, OWNER, 0), (OWNER + 1) % 6, SIZE, False),
    ("a validator's part", BulkKey(1, 0, BulkKind.PART, VALIDATOR, 0), VALIDATOR, SIZE, False),
    ("a part of another aggregator", BulkKey(1, 0, BulkKind.PART, OWNER, 3), OWNER, ATTEMPT.split.size(3), False),
    ("too long", BulkKey(1, 0, BulkKind.PART, OWNER, 0), OWNER, SIZE + 1, False),
    ("too short", BulkKey(1, 0, BulkKind.PART, OWNER, 0), OWNER, SIZE - 1, False),
    ("empty", BulkKey(1, 0, BulkKind.PART, OWNER, 0), OWNER, 0, False),
    ("of the step before", BulkKey(0, 0, BulkKind.PART, OWNER, 0), OWNER, SIZE, False),
    ("of the next attempt", BulkKey(1, 1, BulkKind.PART, OWNER, 0), OWNER, SIZE, False),
    ("an aggregate", BulkKey(1, 0, BulkKind.AGGREGATE, OWNER, OWNER), OWNER, ATTEMPT.split.size(OWNER), True),
    ("another's aggregate", BulkKey(1, 0, BulkKind.AGGREGATE, OWNER, 0), OWNER, SIZE, False),
    ("a stranger's aggregate", BulkKey(1, 0, BulkKind.AGGREGATE, 77, 0), 77, SIZE, False),
    ("a publication", BulkKey(1, 0, BulkKind.PUBLICATION, OWNER, 3), OWNER, ATTEMPT.split.size(3), True),
    ("a publication of no part", BulkKey(1, 0, BulkKind.PUBLICATION, OWNER, 6), OWNER, 3, False),
    ("a negative part", BulkKey(1, 0, BulkKind.PUBLICATION, OWNER, -1), OWNER, 3, False),
    ("a publication of the step before", BulkKey(0, 0, BulkKind.PUBLICATION, OWNER, 0), OWNER, SIZE, False),
]


@pytest.mark.parametrize(("key", "via", "entries", "expected"), [row[1:] for row in WANTED],
                         ids=[row[0] for row in WANTED])  # fmt: skip
def test_what_is_kept(key: BulkKey, via: int | None, entries: int, expected: bool) -> None:
    transfers = Transfers(ATTEMPT, ROUND.past)
    assert transfers.expects(via, key, entries) is expected


def test_across_environments_the_gradient_of_the_step_before_may_be_published() -> None:
    _, round_ = stopped(1, "COMMIT", recompute_tolerance=1e-6)
    assert round_.past is not None
    key = BulkKey(0, 0, BulkKind.PUBLICATION, 3, 1)
    assert Transfers(round_.attempt, round_.past).expects(3, key, round_.past.split.size(1))


def test_one_buffer_per_sender_and_part() -> None:
    transfers = Transfers(ATTEMPT, ROUND.past)
    key = BulkKey(1, 0, BulkKind.PART, OWNER, 0)
    transfers.take(OWNER, key, torch.zeros(SIZE))
    assert not transfers.expects(OWNER, key, SIZE)


def wrong(round_: Round, kind: BulkKind, owner: int) -> tuple[BulkKey, torch.Tensor]:
    """A tensor of the right name and size that its owner has not committed to."""
    part = round_.attempt.place if kind is BulkKind.PART else round_.attempt.roster.place(owner)
    return round_.attempt.key(kind, owner, part), torch.full((round_.attempt.split.size(part),), 7.0)


def test_a_false_part_over_its_owners_line_is_complained_of_once_all_others_are_here() -> None:
    stage, round_ = stopped(1, "AGG")
    owner = next(peer for peer in round_.attempt.contributors if peer != 0)
    round_.attempt.parts.pop(owner, None)
    stage.simulation.nodes[0].peer.handle(BulkArrived(owner, *wrong(round_, BulkKind.PART, owner)))
    assert round_.attempt.agg(overdue=False) is None, "others may still come"
    for other in round_.attempt.contributors:
        if other != owner:
            gradient_D = stage.task.gradient(round_.attempt.state.parameters_D, round_.attempt.seed(other))[0]
            round_.attempt.parts[other] = round_.attempt.slice(gradient_D, 0)
    complaint = round_.attempt.agg(overdue=False)
    assert complaint is not None and complaint.aggregate == Missing((owner,))


@pytest.mark.parametrize("own_line", [True, False], ids=["its aggregator's line", "the line of a peer that was asked"])
def test_a_false_aggregate_ends_the_wait_for_it_over_its_aggregators_line_alone(own_line: bool) -> None:
    """Else a spoofer could make an honest peer look faulty."""
    stage, round_ = stopped(1, "REVEAL")
    attempt, owner, other = round_.attempt, 3, 4
    attempt.aggregates = {peer: torch.zeros(0) for peer in attempt.aggregators if peer != owner}
    key, values_P = wrong(round_, BulkKind.AGGREGATE, owner)
    if not own_line:
        round_.transfers.pull(BulkKind.AGGREGATE, Publication(key.step, key.attempt, owner, key.part), (other,))
    assert attempt.reveal(overdue=False) is None
    out = stage.simulation.nodes[0].peer.handle(BulkArrived(owner if own_line else other, key, values_P))
    assert Dropped(owner if own_line else other, "bulk_digest") in out
    bodies = [output.body for output in out if isinstance(output, Say)]
    assert [body.have for body in bodies if isinstance(body, Reveal)] == (
        [tuple(peer != owner for peer in attempt.aggregators)] if own_line else []
    )


def test_after_a_new_start_a_false_part_is_waited_for_like_a_missing_one() -> None:
    """Our AGG may stand, and needs every part."""
    stage, round_ = stopped(1, "AGG")
    owner = next(peer for peer in round_.attempt.contributors if peer != 0)
    gradients = stage.simulation.nodes[0].peer.lifecycle.gradients
    again = Round(round_.attempt, round_.past, gradients, [], again=True)
    again.attempt.parts.pop(owner, None)
    again.take_bulk(owner, *wrong(again, BulkKind.PART, owner))
    assert not again.attempt.refuted


def test_what_does_not_match_its_digest_is_forgotten_and_the_true_bytes_are_taken() -> None:
    stage, _ = stopped(1, "AGG")
    peer = stage.simulation.nodes[0].peer
    assert peer.attempt is not None
    owner = next(other for other in peer.attempt.contributors if other != 0)
    key = BulkKey(1, 0, BulkKind.PART, owner, 0)
    values_P = torch.full((peer.attempt.split.size(0),), 7.0)
    assert peer.handle(BulkArrived(owner, key, values_P)) == [Dropped(owner, "bulk_digest")]
    assert owner not in peer.attempt.parts
    true_D = stage.task.gradient(peer.attempt.state.parameters_D, peer.attempt.seed(owner))[0]
    assert peer.expects(owner, key, 4 * values_P.numel())
    peer.handle(BulkArrived(owner, key, peer.attempt.slice(true_D, 0)))
    assert owner in peer.attempt.parts


def test_each_may_have_a_tensor_once_for_each_time_it_starts() -> None:
    """A peer that starts again has lost what it was given; it may ask for all again, thrice."""
    stage, _ = stopped(1, "REVEAL")
    peer = stage.simulation.nodes[0].peer
    assert peer.attempt is not None
    asks, restarts = BulkRequested(3, BulkKey(1, 0, BulkKind.PART, 0, 3)), TranscriptRequested(3, 1, 0)
    events = (asks, asks, *(restarts, asks, asks) * 4)
    served = [any(isinstance(output, SendBulk) for output in peer.handle(event)) for event in events]
    assert served == [True, False, *(False, True, False) * 3, False, False, False]
