"""Tensors on their way in: which are kept, when, and from whom; whom it convicts that too few hold an item.

Which items the bits are of, and what is pulled from whom.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from btard.node.protocol.adjudication.charges import Publication, Unusable, Withheld
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
from btard.node.protocol.attempt.attempt import LARGEST_MAGNITUDE, Attempt
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.attempt.transfers import (
    LackingError,
    Transfers,
    bytes_guilt,
    claimers,
    denials,
    lacking,
    owed_aggregates,
    owed_parts,
    scarce,
    unusable_parts,
    withheld,
)
from btard.node.protocol.wire.messages import Agg, Have, Held, Missing, Phase, Removal, Reveal
from tests.protocol_attempts import amend, changed, complete, stopped
from tests.unit.node.protocol.test_peer import signed_by


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


@pytest.mark.parametrize("stands", [True, False], ids=["our AGG stands", "not said yet"])
def test_after_a_new_start_a_false_part_is_waited_for_where_our_agg_rests_on_the_true_one(stands: bool) -> None:
    stage, round_ = stopped(1, "AGG")
    if stands:
        body = Agg(round_.attempt.slot(Phase.AGG), round_.attempt.transcript.prefix, bytes(32))
        round_.attempt.transcript.add(body, signed_by(0, body))
    owner = next(peer for peer in round_.attempt.contributors if peer != 0)
    gradients = stage.simulation.nodes[0].peer.lifecycle.gradients
    again = Round(round_.attempt, round_.past, gradients, [], again=True)
    again.attempt.parts.pop(owner, None)
    again.take_bulk(owner, *wrong(again, BulkKind.PART, owner))
    assert bool(again.attempt.refuted) is not stands
    again.phase = Phase.AGG
    again.bulk_overdue(together=False)
    assert again._overdue is not stands
    again._overdue = False
    again.bulk_overdue(together=True)
    assert again._overdue is False, "where all were started again, an owner may be late"
    again.bulk_overdue(together=True)
    assert again._overdue is not stands, "not as late as we would be suspected by those who were not"


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


# --- who holds which bytes ------------------------------------------------------------------------------------


WHOLE: dict[Phase, type[Held | Have | Reveal]] = {Phase.HELD: Held, Phase.REVEAL: Reveal, Phase.HAVE: Have}
INF, NAN = float("inf"), float("nan")


def complaining(*complaints: tuple[int, int]) -> Attempt:
    """Step 0 among six, so f = 2, with these complaints (aggregator, contributor)."""
    attempt = complete(step=0).attempt
    for aggregator in dict(complaints):
        owners = tuple(owner for by, owner in complaints if by == aggregator)
        changed(attempt, Agg, aggregator, aggregate=Missing(owners))
    return attempt


def holding(attempt: Attempt, phase: Phase, *items: Sequence[int]) -> None:
    """What everyone says in a phase, by who says of each item that it holds it; the last peer is the first to say."""
    attempt.transcript._bodies[phase], attempt.transcript._signed[phase] = {}, {}
    for peer in reversed(attempt.roster.active):
        slot, have = attempt.slot(phase, peer), tuple(peer in holders for holders in items)
        if phase is Phase.REVEAL:
            amend(attempt, Reveal(slot, (), bytes(32), bytes(32), have))
        else:
            amend(attempt, (Held if phase is Phase.HELD else Have)(slot, (), have))


def published(attempt: Attempt, owner: int, part: int, *values: float) -> None:
    attempt.publications[(attempt.step, attempt.number, owner, part)] = torch.tensor(values)


def test_the_bits_follow_the_complaints_in_roster_order_and_places_are_not_ids() -> None:
    attempt = complaining((4, 3), (4, 5), (2, 2))
    assert owed_parts(attempt) == (Publication(0, 0, 2, 2), Publication(0, 0, 3, 4), Publication(0, 0, 5, 4))
    attempt.roster = attempt.roster.without([1])
    assert [(item.owner, item.part) for item in owed_parts(attempt)] == [(2, 1), (3, 3), (5, 3)]
    assert [(item.owner, item.part) for item in owed_aggregates(attempt)] == [(0, 0), (2, 1), (3, 2), (4, 3), (5, 4)]
    attempt.contributors = ()
    assert owed_aggregates(attempt) == ()


@pytest.mark.parametrize("phase", WHOLE)
def test_scarce_is_what_no_more_than_f_say_they_hold(phase: Phase) -> None:
    attempt = complaining()
    owed = tuple(Publication(0, 0, owner, 1) for owner in range(4))
    holding(attempt, phase, (3, 4, 5), (0, 5), (), range(6))
    assert claimers(attempt, phase, 0) == (3, 4, 5)
    assert scarce(attempt, phase, owed) == owed[1:3]
    del attempt.transcript._bodies[phase][4]
    assert scarce(attempt, phase, owed) == owed[:3], "who has not spoken holds nothing"


def test_the_quorum_shrinks_with_the_roster() -> None:
    attempt = complaining()
    owed = (Publication(0, 0, 0, 1), Publication(0, 0, 1, 1))
    holding(attempt, Phase.HAVE, (0, 5), (0,))
    assert scarce(attempt, Phase.HAVE, owed) == owed
    attempt.roster = attempt.roster.without([2, 3])
    assert scarce(attempt, Phase.HAVE, owed) == owed[1:]


def test_a_bit_of_a_removed_peer_counts_for_nothing() -> None:
    attempt = complaining()
    holding(attempt, Phase.HAVE, (0, 1, 2))
    attempt.roster = attempt.roster.without([2])
    assert claimers(attempt, Phase.HAVE, 0) == (0, 1)


def test_whoever_lacks_an_item_is_named_with_it() -> None:
    attempt = complaining((1, 4), (2, 5))
    owed = owed_parts(attempt)
    holding(attempt, Phase.HELD, range(5), (0, 1, 3, 4))
    assert list(denials(attempt, Phase.HELD, owed)) == [(2, owed[1]), (5, owed[0]), (5, owed[1])]


def test_what_is_pulled_is_what_we_lack_and_more_than_f_hold() -> None:
    attempt = complaining((1, 2), (1, 3), (1, 4))
    owed = owed_parts(attempt)
    holding(attempt, Phase.HELD, (1, 3, 5), range(6), (1, 5))
    published(attempt, 3, 1, 0.0)
    found = list(lacking(attempt, Phase.HELD, BulkKind.PUBLICATION, owed))
    assert found == [(BulkKind.PUBLICATION, owed[0], (1, 3, 5))], "the second is here, the third is scarce"
    attempt.aggregates = {peer: torch.zeros(3) for peer in range(5)}
    holding(attempt, Phase.REVEAL, *[(2, 3, 4)] * 6)
    aggregates = owed_aggregates(attempt)
    found = list(lacking(attempt, Phase.REVEAL, BulkKind.AGGREGATE, aggregates))
    assert found == [(BulkKind.AGGREGATE, aggregates[5], (2, 3, 4))]


def test_an_owner_is_convicted_once_in_roster_order() -> None:
    """One that withholds three parts is no guiltier, and each is named by its first."""
    attempt = complaining()
    items = tuple(Publication(0, 0, owner, part) for owner, part in ((5, 1), (0, 2), (5, 0), (5, 3)))
    guilts = withheld(attempt, items, "part")
    assert [guilt.removal for guilt in guilts] == [Removal(0, "withheld", None), Removal(5, "withheld", None)]
    assert [guilt.charge for guilt in guilts] == [Withheld(0, "part", 0, 2), Withheld(5, "part", 0, 1)]
    attempt.roster = attempt.roster.without([5])
    assert [guilt.peer for guilt in withheld(attempt, items, "part")] == [0]
    assert withheld(attempt, (), "part") == ()


def test_more_owners_than_can_be_faulty_are_not_convicted() -> None:
    """The network was cut into pieces none of which is more than f: their attempt is void, and nobody goes for it."""
    attempt = complaining()
    assert len(withheld(attempt, tuple(Publication(0, 0, owner, 1) for owner in (0, 3)), "part")) == 2
    assert withheld(attempt, tuple(Publication(0, 0, owner, 1) for owner in (0, 3, 5)), "part") == ()


VALUES = [
    ("zero", 0.0, True),
    ("the largest", LARGEST_MAGNITUDE, True),
    ("minus the largest", -LARGEST_MAGNITUDE, True),
    ("larger", LARGEST_MAGNITUDE * 1.0001, False),
    ("minus a larger", -LARGEST_MAGNITUDE * 1.0001, False),
    ("infinite", INF, False),
    ("not a number", NAN, False),
]


@pytest.mark.parametrize(("value", "fine"), [row[1:] for row in VALUES], ids=[row[0] for row in VALUES])
def test_published_bytes_prove_what_nobody_can_compute_with(value: float, fine: bool) -> None:
    attempt = complaining((1, 0), (1, 4), (3, 4))
    for owner, part in ((0, 1), (4, 1)):
        published(attempt, owner, part, 0.0, 1.0)
    published(attempt, 4, 3, 0.0, value, 1.0)
    guilts = [(guilt.peer, guilt.reason, guilt.charge) for guilt in unusable_parts(attempt)]
    assert guilts == ([] if fine else [(4, "unusable", Unusable(4, 3))])
    assert bytes_guilt(Unusable(4, 3), attempt) == (() if fine else (Removal(4, "unusable", None),))
    assert bytes_guilt(Unusable(4, 1), attempt) == ()


def test_nobody_is_called_unusable_before_every_part_is_here() -> None:
    """Else peers that pulled in another order would see others convicted."""
    attempt = complaining((1, 5), (2, 0), (3, 5))
    published(attempt, 5, 1, NAN)
    published(attempt, 5, 3, INF)
    with pytest.raises(LackingError):
        unusable_parts(attempt)
    published(attempt, 0, 2, NAN)
    guilts = unusable_parts(attempt)
    assert [guilt.charge for guilt in guilts] == [Unusable(0, 2), Unusable(5, 1)], "each once, in roster order"


STRANGE = {
    "nobody complained of it": Unusable(4, 2),
    "another's part was complained of": Unusable(0, 1),
    "of no part": Unusable(4, 6),
    "of a part counted from the end": Unusable(4, -5),
    "of a stranger": Unusable(99, 1),
}


@pytest.mark.parametrize("charge", STRANGE.values(), ids=STRANGE)
def test_a_third_party_convicts_nobody_of_bytes_that_nobody_asked_for(charge: Unusable) -> None:
    attempt = complaining((1, 4))
    for part in range(-6, 7):
        for owner in (0, 4, 99):
            published(attempt, owner, part, NAN)
    assert bytes_guilt(charge, attempt) == ()
    assert bytes_guilt(Unusable(4, 1), attempt) == (Removal(4, "unusable", None),)


@pytest.mark.parametrize(("holders", "guilty"), [(2, True), (3, False)], ids=["f", "f + 1"])
@pytest.mark.parametrize("stage", ["part", "aggregate", "publication"])
def test_a_third_party_sees_what_was_withheld(stage: str, holders: int, guilty: bool) -> None:
    attempt = complaining((1, 4), (2, 0))
    phase = {"part": Phase.HELD, "aggregate": Phase.REVEAL, "publication": Phase.HAVE}[stage]
    places = 6 if stage == "aggregate" else 2
    accused = 4 if stage == "aggregate" else owed_parts(attempt)[1].owner
    marked = 4 if stage == "aggregate" else 1
    holding(attempt, phase, *[range(holders) if place == marked else range(6) for place in range(places)])
    expected = (Removal(accused, "withheld", None),) if guilty else ()
    assert bytes_guilt(Withheld(accused, stage, 0, 0), attempt) == expected


@pytest.mark.parametrize("phase", WHOLE)
@pytest.mark.parametrize(("silent", "lost"), [(0, 0), (3, 0), (4, 2)], ids=["all say so", "f + 1 say so", "f say so"])
def test_what_all_that_spoke_hold_is_scarce_if_no_more_than_f_spoke(phase: Phase, silent: int, lost: int) -> None:
    attempt = complaining()
    owed = tuple(Publication(0, 0, owner, 1) for owner in range(2))
    holding(attempt, phase, range(6), range(6))
    for peer in range(silent):
        del attempt.transcript._bodies[phase][peer]
    assert scarce(attempt, phase, owed) == owed[:lost]
