"""Which phase follows which, what voids an attempt, and whose bytes go with a message."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from btard.node.protocol.adjudication.charges import Unusable, Withheld
from btard.node.protocol.adjudication.judging import Counts
from btard.node.protocol.api import BulkKind
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.phases import PHASES, following, misfit
from btard.node.protocol.attempt.transfers import LackingError
from btard.node.protocol.wire.messages import PHASE_OF, Body, Hello, Join, Outcome, Phase, Suspect, View
from btard.node.protocol.wire.validation import OUTSIDE
from tests.unit.node.protocol.attempt.test_transfers import complaining, holding, published

COMPLAINTS = ((1, 4), (2, 0))


def test_there_is_a_row_for_each_phase_of_a_step_in_order() -> None:
    assert list(PHASES) == [phase for phase in Phase if Phase.COMMIT.value <= phase.value <= Phase.CLOSE.value]
    assert all(PHASE_OF[row.message] is phase for phase, row in PHASES.items())


def held(*holders: tuple[int, ...], values: tuple[float, ...] = (0.0, 0.0)) -> Attempt:
    """An attempt with two complaints, after HELD: who holds each part, and what is published."""
    attempt = complaining(*COMPLAINTS)
    holding(attempt, Phase.HELD, *holders)
    for (aggregator, owner), value in zip(COMPLAINTS, values, strict=False):
        published(attempt, owner, aggregator, value)
    return attempt


def revealed(*holders: tuple[int, ...]) -> Attempt:
    attempt = complaining()
    holding(attempt, Phase.REVEAL, *holders)
    return attempt


F, MORE, ALL = (1, 2), (1, 2, 3), (0, 1, 2, 3, 4, 5)
NEXT: dict[str, tuple[Phase, Callable[[], Attempt], Phase, list[object] | None]] = {
    "nobody complains": (Phase.AGG, complaining, Phase.REVEAL, None),
    "somebody complains": (Phase.AGG, lambda: complaining((5, 0)), Phase.RESEND, None),
    "f + 1 hold each part": (Phase.HELD, lambda: held(MORE, ALL), Phase.AGG2, None),
    "f hold a part": (Phase.HELD, lambda: held(F, ALL), Phase.CLOSE, [Withheld(4, "part", 0, 1)]),
    "f hold a part, another is unusable": (
        Phase.HELD,
        lambda: held(F, ALL, values=(0.0, float("nan"))),
        Phase.CLOSE,
        [Withheld(4, "part", 0, 1)],
    ),
    "a scarce part need not be here": (
        Phase.HELD,
        lambda: held(F, ALL, values=()),
        Phase.CLOSE,
        [Withheld(4, "part", 0, 1)],
    ),
    "two are unusable": (
        Phase.HELD,
        lambda: held(ALL, ALL, values=(float("inf"), 2.0**41)),
        Phase.CLOSE,
        [Unusable(0, 2), Unusable(4, 1)],
    ),
    "f + 1 hold each aggregate": (Phase.REVEAL, lambda: revealed(*[MORE] * 6), Phase.CHECKSUMS, None),
    "f hold two aggregates": (
        Phase.REVEAL,
        lambda: revealed(ALL, F, ALL, ALL, ALL, ()),
        Phase.CLOSE,
        [Withheld(1, "aggregate", 0, 1), Withheld(5, "aggregate", 0, 5)],
    ),
}


@pytest.mark.parametrize("name", NEXT)
def test_what_follows_and_what_voids_an_attempt(name: str) -> None:
    phase, make, after, charges = NEXT[name]
    found, judgement = following(make(), phase, None)
    assert found is after
    if charges is None:
        assert judgement is None
    else:
        assert judgement is not None and judgement.void
        assert [guilt.charge for guilt in judgement.guilts] == charges


def test_a_published_part_that_is_on_its_way_is_waited_for() -> None:
    """f + 1 hold it, so it comes; to go on without it would be to disagree with those that have it."""
    with pytest.raises(LackingError):
        following(held(MORE, ALL, values=(float("nan"),)), Phase.HELD, None)


def bodies(attempt: Attempt) -> dict[str, Body]:
    return {
        "HELLO": Hello(attempt.slot(Phase.HELLO, 5), (), bytes(32), b""),
        "VIEW": View(attempt.slot(Phase.VIEW, 5), (), ()),
        "OUTCOME": Outcome(attempt.slot(Phase.OUTCOME, 5), (), None, ()),
        "JOIN": Join(attempt.slot(Phase.JOIN, 5), (), bytes(32)),
    }


@pytest.mark.parametrize("name", ["HELLO", "VIEW", "OUTCOME", "JOIN"])
def test_what_belongs_to_no_phase_fits_no_attempt(name: str) -> None:
    attempt = complaining()
    body = bodies(attempt)[name]
    assert misfit(body, attempt, Counts()) == OUTSIDE[type(body)]


SUSPECTS = [
    (Phase.COMMIT, 0, True),
    (Phase.CLOSE, 0, True),
    (Phase.HELLO, 0, False),
    (Phase.SUSPECT, 0, False),
    (Phase.AGG, 5, False),
    (Phase.AGG, 6, False),
    (Phase.AGG, -1, False),
]


@pytest.mark.parametrize(("named", "peer", "fits"), SUSPECTS)
def test_whom_a_suspicion_may_name(named: Phase, peer: int, fits: bool) -> None:
    attempt = complaining()
    body = Suspect(attempt.slot(Phase.SUSPECT, 5), (), named, peer)
    assert (misfit(body, attempt, Counts()) is None) is fits


def test_resend_carries_those_of_our_parts_that_are_asked_for() -> None:
    attempt = complaining((1, 0), (3, 4), (3, 0), (4, 2))
    send = PHASES[Phase.RESEND].bytes
    assert send is not None and attempt.own_D is not None
    sent = dict(send(attempt, None))
    assert list(sent) == [attempt.key(BulkKind.PUBLICATION, 0, 1), attempt.key(BulkKind.PUBLICATION, 0, 3)]
    assert all(attempt.part_matches(0, key.part, values_P) for key, values_P in sent.items())
    assert {values_P.numel() for values_P in sent.values()} == {3}
    attempt.own_D = None
    assert list(send(attempt, None)) == [], "started again, we may have no gradient"
    attempt.own_D = torch.zeros(19)
    attempt.me = 3
    assert list(send(attempt, None)) == []
