"""Which relayed views one peer accepts in a dispute, and why it refuses others."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from btard.node.protocol.api import Endorse, Output, SetTimer
from btard.node.protocol.disputes.dolev_strong import DolevStrong, round_timer
from btard.node.protocol.wire.encoding import encode_body, endorsement_bytes
from btard.node.protocol.wire.messages import Body, Endorsed, Phase, Signed, Slot, View
from tests.unit.node.protocol.test_router import Case
from tests.unit.node.protocol.wire.test_certificate import (
    REMOVED,
    ROSTER,
    SIGNERS,
    WHERE,
    commit,
    crowded,
    signed,
)

ME = 0


class Court:
    """Peer 0's side of a dispute among five, and what comes in."""

    def __init__(self, rounds_over: int = 0) -> None:
        case = Case()
        self.out: list[Output] = []
        slot = Slot(*WHERE, Phase.VIEW, ME)
        settings, tools = case.attempt.settings, case.attempt.tools
        self.dispute = DolevStrong(settings, tools, ROSTER, slot, self.out)
        for _ in range(rounds_over):
            self.dispute.round_over()

    def take(self, *relayed: Endorsed) -> str | None:
        return [self.dispute.take(each) for each in relayed][-1]


def view(owner: int, number: int = 0, prefix: tuple[bytes, ...] = (), **fields: object) -> View:
    slot = msgspec.structs.replace(Slot(*WHERE, Phase.VIEW, owner), **fields)
    return View(slot, prefix, (Signed(bytes([number]), b""),))


def relayed(body: Body, *by: int, keys: Callable[[int], int] = int) -> Endorsed:
    """A body with the endorsements of these peers, in order; `keys` says with whose key each of them signs."""
    data, made = encode_body(body), []
    for place, peer in enumerate(by):
        content = endorsement_bytes(data, body.slot.sender, by[:place])
        made.append((peer, SIGNERS[keys(peer)].sign(content)))
    return Endorsed(signed(body), tuple(made))


def unsigned(body: Body, *by: int) -> Endorsed:
    return Endorsed(Signed(encode_body(body), bytes(64)), relayed(body, *by).endorsements)


def reordered(each: Endorsed) -> Endorsed:
    return msgspec.structs.replace(each, endorsements=each.endorsements[::-1])


def test_a_view_is_accepted_and_passed_on_until_all_have_it() -> None:
    court = Court()
    assert court.take(relayed(view(1))) is None
    assert court.take(relayed(view(2), 1)) is None
    assert court.take(relayed(view(3), 1, 2)) is None, "f = 2 have endorsed it: everyone has it"
    passed = [output.endorsed for output in court.out if isinstance(output, Endorse)]
    assert passed == [relayed(view(1)), relayed(view(2), 1)]
    assert court.dispute.heard == (1, 2, 3)


REFUSED: dict[str, tuple[int, tuple[Endorsed, ...], str]] = {
    "no view": (0, (Endorsed(signed(commit(1)), ()),), "unexpected"),
    "no message": (0, (Endorsed(Signed(b"\xc1", b""), ()),), "malformed"),
    "of too many messages": (0, (Endorsed(signed(crowded()), ()),), "oversized"),
    "with a prefix": (0, (relayed(view(1, prefix=(b"x",))),), "wrong_slot"),
    "of another attempt": (0, (relayed(view(1, attempt=7)),), "wrong_slot"),
    "of another roster": (0, (relayed(view(1, roster=b"?" * 32)),), "wrong_slot"),
    "of another run": (0, (relayed(view(1, run=b"?" * 32)),), "foreign_run"),
    "of a removed peer": (0, (relayed(view(REMOVED)),), "not_active"),
    "twice": (0, (relayed(view(1)), relayed(view(1), 2)), "duplicate"),
    "the third": (0, (relayed(view(1)), relayed(view(1, 1)), relayed(view(1, 2))), "too_many_views"),
    "late by a round": (1, (relayed(view(1)),), "late_view"),
    "late by another round": (2, (relayed(view(1), 2),), "late_view"),
    "after the end": (3, (relayed(view(1), 2, 3),), "unexpected_view"),
    "unsigned": (0, (unsigned(view(1)),), "bad_signature"),
    "unsigned, but endorsed": (1, (unsigned(view(1), 2),), "bad_signature"),
    "endorsed with another's key": (1, (relayed(view(1), 2, keys=lambda _: 3),), "bad_signature"),
    "endorsed by its owner": (1, (relayed(view(1), 1),), "bad_signature"),
    "endorsed twice by one": (2, (relayed(view(1), 2, 2),), "bad_signature"),
    "endorsed by a removed peer": (1, (relayed(view(1), REMOVED),), "bad_signature"),
    "endorsed in another order": (2, (reordered(relayed(view(1), 2, 3)),), "bad_signature"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_why_a_view_is_refused(name: str) -> None:
    rounds_over, views, reason = REFUSED[name]
    court = Court(rounds_over)
    assert court.take(*views) == reason
    assert not [output for output in court.out if isinstance(output, Endorse) and output.endorsed == views[-1]]


def test_two_views_of_one_owner_convict_it_and_count_for_nothing() -> None:
    court = Court()
    for number in (0, 1):
        assert court.take(relayed(view(1, number))) is None
    assert court.dispute.doubles == (1,) and court.dispute.heard == ()
    assert court.dispute.double_of(1) == (signed(view(1, 0)), signed(view(1, 1)))
    assert list(court.dispute.union()) == []


def test_each_round_has_its_timer_and_the_last_one_ends_it() -> None:
    court = Court()
    court.dispute.start(())
    _, _, step, attempt = WHERE
    begun = SetTimer(round_timer(step, attempt), 2.0 * Case().attempt.settings.delivery_bound_s)
    for left in (2, 1, 0):
        assert court.out[-1] == begun and not court.dispute.finished
        court.out.clear()
        court.dispute.round_over()
        assert len(court.out) == (left > 0)
    assert court.dispute.finished
    assert len({round_timer(*place) for place in ((1, 0), (1, 1), (2, 0))}) == 3


@pytest.mark.parametrize(
    ("endorsed", "length"),
    [
        (relayed(view(1)), 1),
        (relayed(view(1), 2, 3), 3),
        (relayed(view(1), 2, 2), 0),
        (relayed(view(1), REMOVED), 0),
        (relayed(view(1), 2, keys=lambda _: 3), 0),
    ],
    ids=["its owner", "three peers", "one of them twice", "a removed peer", "another's key"],
)
def test_how_many_have_signed_a_view(endorsed: Endorsed, length: int) -> None:
    assert Court().dispute.chain(endorsed, 1) == length
