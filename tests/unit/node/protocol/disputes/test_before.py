"""How the attempt before the present one stands: closed unless it is said otherwise, joined while it is open."""

from __future__ import annotations

import pytest

from btard.node.protocol.attempt.ending import Trigger
from btard.node.protocol.disputes.before import Before
from btard.node.protocol.disputes.dispute import Dispute
from tests.protocol_attempts import complete


def test_a_peer_that_knows_no_attempt_before_has_nothing_to_dispute() -> None:
    before = Before()
    assert before.closed and not before.held and not before.joined and not before.passed_on
    assert (before.round, before.dispute, before.windows, before.proof) == (None, None, 0, ())


def test_who_has_been_answered_in_one_attempt_has_not_in_the_next() -> None:
    first = Before()
    first.answered.add(3)
    assert Before().answered == set()


@pytest.mark.parametrize(
    ("disputed", "begun", "closed", "joined"),
    [
        (False, False, False, False),
        (True, False, False, False),
        (True, True, False, True),
        (True, True, True, False),
    ],
    ids=["no sign of a dispute", "signs of one", "its rounds run here", "its rounds run, too late"],
)
def test_when_this_peer_takes_part_in_its_dispute(disputed: bool, begun: bool, closed: bool, joined: bool) -> None:
    round_ = complete()
    dispute = Dispute(round_, []) if disputed else None
    if dispute is not None and begun:
        dispute.freeze(Trigger("a reason", ()))
        dispute.begin()
    assert Before(round_, windows=3, closed=closed, dispute=dispute).joined is joined
