"""Who holds what: which items the bits are of, what too few hold, whom that convicts, and what is pulled from whom."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from btard.node.protocol.adjudication.charges import Publication, Unusable, Withheld
from btard.node.protocol.api import BulkKind
from btard.node.protocol.attempt.attempt import LARGEST_MAGNITUDE, Attempt
from btard.node.protocol.attempt.holdings import (
    LackingError,
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
from tests.protocol_attempts import amend, changed, complete

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
