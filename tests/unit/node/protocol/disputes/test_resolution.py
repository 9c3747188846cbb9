"""What a union of views comes to, and what one view proves of an attempt that has ended. Six peers, so f = 2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
import pytest

from btard.node.protocol.attempt.transfers import LackingError
from btard.node.protocol.disputes.resolution import ViewMerge, trigger_in
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import (
    BulkKind,
    Close,
    Commit,
    Held,
    Outcome,
    Phase,
    Reveal,
    Signed,
    Suspect,
    View,
    Void,
)
from tests.protocol_attempts import PEERS, complete, said
from tests.unit.node.protocol.test_peer import signed_by

ALL = tuple(range(PEERS))
BAD = 5
STATE, OTHER = b"s" * 32, b"o" * 32
Views = list[list[Signed]]


class Case:
    """A step that is complete up to REPORT, and what may be said of it."""

    def __init__(self) -> None:
        round_ = complete()
        self.attempt, self.past = round_.attempt, round_.past
        every = (signed for signed in self.attempt.transcript.everything())
        self.honest = [signed for signed in every if decode_body(signed.body).slot.phase is not Phase.CLOSE]
        self.merge: ViewMerge | None = None

    def until(self, phase: Phase, without: Iterable[tuple[Phase, int]] = ()) -> list[Signed]:
        """What all have said up to a phase, but for these slots."""
        slots = [(signed, decode_body(signed.body).slot) for signed in self.honest]
        out = set(without)
        return [
            signed for signed, slot in slots if slot.phase.value <= phase.value and (slot.phase, slot.sender) not in out
        ]

    def closes(self, *by: int, value: bytes | Void = STATE) -> list[Signed]:
        prefix = self.attempt.transcript.prefix
        return [signed_by(peer, Close(self.attempt.slot(Phase.CLOSE, peer), prefix, value)) for peer in by]

    def suspects(self, by: Iterable[int], named: Phase = Phase.CLOSE, peer: int = BAD) -> list[Signed]:
        slot = self.attempt.slot
        return [signed_by(each, Suspect(slot(Phase.SUSPECT, each), (), named, peer)) for each in by]

    def commit(self, peer: int = BAD, **fields: object) -> Signed:
        return signed_by(peer, msgspec.structs.replace(said(self.attempt, Commit, peer), **fields))

    def held(self, prefix: tuple[bytes, ...], peer: int = BAD) -> Signed:
        """A message of a phase that this attempt does not have."""
        return signed_by(peer, Held(self.attempt.slot(Phase.HELD, peer), prefix, ()))

    def outcome(self, views: Views, heard: Sequence[int] = ALL, doubles: Iterable[int] = ()) -> object:
        pairs = {peer: (self.commit(peer), self.commit(peer, randomness=OTHER)) for peer in doubles}
        self.merge = ViewMerge(views, heard, pairs, self.attempt, self.past)
        decision = self.merge.decide()
        return decision and (decision.value, [(guilt.peer, guilt.reason) for guilt in decision.guilts])


@pytest.fixture
def case() -> Case:
    return Case()


def false_reveal(case: Case) -> Signed:
    return signed_by(BAD, msgspec.structs.replace(said(case.attempt, Reveal, BAD), prefix=(OTHER,) * 2))


ROWS: list[tuple[str, Callable[[Case], Views], object]] = [
    ("n equal CLOSEs", lambda c: [c.honest + c.closes(*ALL)], (STATE, [])),
    ("n equal CLOSEs, nothing else", lambda c: [c.closes(*ALL)], (STATE, [])),
    (
        "n equal CLOSEs and an equivocation",
        lambda c: [c.closes(*ALL), [c.commit(), c.commit(randomness=OTHER)]],
        (STATE, []),
    ),
    (
        "n equal CLOSEs, hidden behind two others",
        lambda c: [c.closes(BAD, value=OTHER) + c.closes(BAD, value=Void(())), c.honest + c.closes(*ALL)],
        (STATE, []),
    ),
    (
        "n equal CLOSEs and a suspicion of one",
        lambda c: [c.honest + c.closes(*ALL) + c.suspects((0, 1, 2))],
        (STATE, []),
    ),
    (
        "one CLOSE otherwise",
        lambda c: [c.honest + c.closes(*ALL[:5]) + c.closes(BAD, value=OTHER)],
        (STATE, [(BAD, "close")]),
    ),
    (
        "f CLOSEs otherwise",
        lambda c: [c.honest + c.closes(0, 1, 2, 3) + c.closes(4, 5, value=OTHER)],
        (STATE, [(4, "close"), (5, "close")]),
    ),
    (
        "no value of f + 1",
        lambda c: [c.honest + c.closes(0, 1) + c.closes(2, 3, value=OTHER) + c.closes(4, 5, value=Void(()))],
        None,
    ),
    (
        "f + 1 miss the last CLOSE",
        lambda c: [c.honest + c.closes(*ALL[:5]) + c.suspects((0, 1, 2))],
        (STATE, [(BAD, "silent")]),
    ),
    ("f miss it", lambda c: [c.honest + c.closes(*ALL[:5]) + c.suspects((0, 1))], None),
    (
        "f + 1 miss a COMMIT",
        lambda c: [c.until(Phase.COMMIT, [(Phase.COMMIT, BAD)]) + c.suspects((0, 1, 2), Phase.COMMIT)],
        (None, [(BAD, "silent")]),
    ),
    (
        "f + 1 miss a COMMIT that is there",
        lambda c: [c.until(Phase.AGG) + c.suspects((0, 1, 2), Phase.COMMIT)],
        (None, [(BAD, "silent")]),
    ),
    (
        "f are silent",
        lambda c: [c.until(Phase.COMMIT) + c.suspects((0, 1, 2), Phase.AGG, 4) + c.suspects((0, 1, 2), Phase.AGG, 5)],
        (None, [(4, "silent"), (5, "silent")]),
    ),
    (
        "more than f are silent",
        lambda c: [
            c.until(Phase.COMMIT) + [each for peer in (3, 4, 5) for each in c.suspects((0, 1, 2), Phase.AGG, peer)]
        ],
        None,
    ),
    ("two COMMITs in two views", lambda c: [c.honest, [c.commit(randomness=OTHER)]], (None, [(BAD, "equivocation")])),
    (
        "a false prefix",
        lambda c: [[*c.until(Phase.REVEAL, [(Phase.REVEAL, BAD)]), false_reveal(c)]],
        (None, [(BAD, "prefix")]),
    ),
    (
        "a false prefix and a silence",
        lambda c: [
            [*c.until(Phase.REVEAL, [(Phase.REVEAL, BAD)]), false_reveal(c), *c.suspects((0, 1, 2), Phase.REVEAL, 4)]
        ],
        (None, [(BAD, "prefix")]),
    ),
    (
        "a COMMIT of a part too few",
        lambda c: [[*c.until(Phase.COMMIT, [(Phase.COMMIT, 0)]), c.commit(0, parts=(OTHER,))]],
        (None, [(0, "malformed")]),
    ),
    (
        "an AGG before all COMMITs",
        lambda c: [c.until(Phase.AGG, [(Phase.COMMIT, 4), *((Phase.AGG, peer) for peer in range(5))])],
        (None, [(BAD, "incomplete")]),
    ),
    (
        "of a phase that there is not",
        lambda c: [[*c.honest, c.held(c.attempt.transcript.prefix[:2])]],
        (None, [(BAD, "malformed")]),
    ),
    ("a suspicion of oneself", lambda c: [c.honest + c.suspects((BAD,))], (None, [(BAD, "malformed")])),
    ("a suspicion of a view", lambda c: [c.honest + c.suspects((BAD,), Phase.VIEW, 0)], (None, [(BAD, "malformed")])),
    ("nothing", lambda c: [], None),
]
"""The views, and the value that stands with who is removed."""


@pytest.mark.parametrize(("views", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_a_union_comes_to(case: Case, views: Callable[[Case], Views], expected: object) -> None:
    assert case.outcome(views(case)) == expected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("an AGG before all COMMITs", "silent"),
        ("a false prefix", "silent"),
        ("of a phase that there is not", "silent"),
        ("a suspicion of oneself", "malformed"),
        ("one CLOSE otherwise", "close"),
    ],
)
def test_who_was_not_heard_may_have_gone_by_what_its_view_would_have_shown(case: Case, name: str, reason: str) -> None:
    """It is gone, not banned."""
    views = next(row[1] for row in ROWS if row[0] == name)(case)
    _, removed = case.outcome(views, heard=ALL[:5])  # type: ignore[misc]
    assert removed == [(BAD, reason)]


def test_who_was_not_heard_is_banned_for_what_nobody_could_have_led_it_to(case: Case) -> None:
    views = [[*case.until(Phase.COMMIT, [(Phase.COMMIT, BAD)]), case.commit(parts=(OTHER,))]]
    assert case.outcome(views, heard=ALL[:5]) == (None, [(BAD, "malformed")])


def test_two_views_of_one_owner_are_an_equivocation(case: Case) -> None:
    assert case.outcome([case.honest], doubles=(BAD,)) == (None, [(BAD, "equivocation")])
    assert case.outcome([case.honest + case.closes(*ALL)], doubles=(BAD,)) == (STATE, []), "a certificate outranks it"


JUNK: dict[str, Callable[[Case], list[Signed]]] = {
    "no message": lambda c: [Signed(b"\xc1", bytes(64))],
    "without a signature": lambda c: [Signed(c.commit(randomness=b"1" * 32).body, bytes(64))],
    "in another's name": lambda c: [
        signed_by(4, msgspec.structs.replace(said(c.attempt, Commit, BAD), randomness=b"1" * 32))
    ],
    "of another attempt": lambda c: [c.commit(slot=msgspec.structs.replace(c.attempt.slot(Phase.COMMIT, BAD), step=1))],
    "of another run": lambda c: [c.commit(slot=msgspec.structs.replace(c.attempt.slot(Phase.COMMIT, BAD), run=OTHER))],
    "a view": lambda c: [signed_by(BAD, View(c.attempt.slot(Phase.VIEW, BAD), (), ()))],
    "an OUTCOME": lambda c: [signed_by(BAD, Outcome(c.attempt.slot(Phase.OUTCOME, BAD), (), None, ()))],
    "a third for one slot": lambda c: [c.commit(randomness=bytes([number]) * 32) for number in range(3)],
    "one message thrice": lambda c: [c.commit()] * 3,
    "one suspicion thrice": lambda c: c.suspects((BAD,) * 3, Phase.AGG, 4),
}


@pytest.mark.parametrize("name", JUNK)
def test_nothing_counts_after_what_no_honest_view_holds(case: Case, name: str) -> None:
    proof, junk = [case.commit(4), case.commit(4, randomness=OTHER)], JUNK[name](case)
    outcomes = [case.outcome([case.honest, junk[:-1] + proof]), case.outcome([case.honest, junk + proof])]
    convicted = [[peer for peer, _ in outcome[1]] if isinstance(outcome, tuple) else [] for outcome in outcomes]
    assert 4 in convicted[0] and 4 not in convicted[1]


def test_another_view_is_read_although_one_is_junk(case: Case) -> None:
    junk = [Signed(b"\xc1", bytes(64))]
    assert case.outcome([junk, case.honest + case.closes(*ALL)]) == (STATE, [])


def test_the_bytes_that_a_rule_needs_are_named(case: Case) -> None:
    case.attempt.aggregates.clear()
    with pytest.raises(LackingError):
        case.outcome([case.honest])
    assert case.merge is not None
    named = list(case.merge.lacking())
    assert [(kind, item.owner) for kind, item, _ in named] == [(BulkKind.AGGREGATE, owner) for owner in ALL]
    assert all(len(holders) > case.attempt.roster.faults for *_, holders in named)
    assert case.outcome([case.closes(*ALL)]) == (STATE, []), "a certificate needs none"


def test_deciding_leaves_the_record_of_the_attempt_alone(case: Case) -> None:
    before = case.attempt.transcript.digest, list(case.attempt.transcript.everything())
    case.outcome([case.honest, [case.commit(randomness=OTHER)]])
    assert (case.attempt.transcript.digest, list(case.attempt.transcript.everything())) == before
    assert not case.attempt.transcript.conflicts


# --- a view of an attempt that has ended ------------------------------------------------------------------------------

PROOFS: list[tuple[str, Callable[[Case], list[Signed]], str | None]] = [
    ("nothing", lambda c: [], None),
    ("what all have", lambda c: c.honest + c.closes(*ALL), None),
    ("another COMMIT", lambda c: [c.commit(randomness=OTHER)], "peer 5 equivocates in COMMIT"),
    ("another CLOSE", lambda c: c.closes(BAD, value=OTHER), "peer 5 equivocates in CLOSE"),
    ("f suspicions", lambda c: c.suspects((0, 1)), None),
    ("f + 1 suspicions", lambda c: c.suspects((0, 1, 2)), "peer 5 is silent in CLOSE"),
    ("f + 1 suspicions of several", lambda c: c.suspects((0, 1)) + c.suspects((2,), peer=4), None),
    ("f + 1 suspicions of one peer", lambda c: c.suspects((0, 1, 1)), None),
    ("a message more", lambda c: [c.held(c.attempt.transcript.prefix[:2])], None),
    (
        "a message more, of another past",
        lambda c: [c.held((OTHER,))],
        "prefixes differ: not everybody has seen the same messages",
    ),
    ("a proof after junk", lambda c: [Signed(b"\xc1", b""), c.commit(randomness=OTHER)], None),
    ("a proof after a nested view", lambda c: [*JUNK["a view"](c), c.commit(randomness=OTHER)], None),
    ("a proof after a third message", lambda c: [*[c.commit()] * 3, c.commit(randomness=OTHER)], None),
]


@pytest.mark.parametrize(("messages", "cause"), [row[1:] for row in PROOFS], ids=[row[0] for row in PROOFS])
def test_what_a_view_proves_of_an_ended_attempt(
    case: Case, messages: Callable[[Case], list[Signed]], cause: str | None
) -> None:
    for signed in case.closes(*ALL):
        case.attempt.transcript.add(decode_body(signed.body), signed)
    trigger = trigger_in(messages(case), case.attempt)
    assert (trigger and trigger.cause) == cause
    if trigger is not None:
        assert trigger_in(trigger.messages, case.attempt) == trigger, "it convinces everyone who is shown it"


def test_what_a_union_admits_is_what_its_views_hold_once(case: Case) -> None:
    """A peer that catches up by it gets every message, a liar's second one included."""
    pair, later = [case.commit(), case.commit(randomness=OTHER)], case.suspects((1,))
    case.outcome([case.until(Phase.COMMIT), [*pair, *later], case.until(Phase.COMMIT)])
    assert case.merge is not None
    expected = [*case.until(Phase.COMMIT), pair[1], *later]
    assert list(case.merge.admitted()) == [(decode_body(signed.body), signed) for signed in expected]
