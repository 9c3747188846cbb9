"""Whatever an honest peer may have to say fits into the bound of its phase, at every size of the roster."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest

from btard.node.limits import MAX_PEERS, MAX_UNDO
from btard.node.protocol.adjudication.offences import OFFENCES
from btard.node.protocol.wire.encoding import encode, encode_body, encode_signed
from btard.node.protocol.wire.messages import (
    Accusation,
    AccusationKind,
    Agg,
    Body,
    Checksums,
    Close,
    Commit,
    Have,
    Held,
    Hello,
    Join,
    Judge,
    Late,
    Missing,
    Outcome,
    Phase,
    Removal,
    Report,
    Reveal,
    Signed,
    Slot,
    Suspect,
    Verdict,
    Void,
)
from btard.node.protocol.wire.size_limits import (
    MAX_PROOFS,
    body_bytes,
    control_bytes,
    delivery_s,
    evidence_bytes,
    join_bytes,
    view_bytes,
    view_messages,
)
from btard.node.protocol.wire.validation import MAX_ACCUSATIONS

DIGEST, SIGNATURE = b"\xff" * 32, b"\xff" * 64
PREFIX = (DIGEST,) * 12
STEP, NUMBER = 2**40, 2**20
SIZES = [2, 3, 4, 7, 16, 64, MAX_PEERS]


def slot(phase: Phase, peers: int) -> Slot:
    return Slot(DIGEST, DIGEST, STEP, NUMBER, phase, peers - 1)


def removals(peers: int) -> tuple[Removal, ...]:
    longest = max(OFFENCES, key=len)
    return tuple(Removal(peer, longest, peers - 1) for peer in range(peers))


def silence(peers: int) -> bytes:
    """f + 1 suspicions of one peer."""
    faults = (peers + 1) // 2 - 1
    body = Suspect(slot(Phase.SUSPECT, peers), (), Phase.CLOSE, peers - 2)
    return encode((Signed(encode_body(body), SIGNATURE),) * (faults + 1))


def join(peers: int) -> bytes:
    return encode_signed(Signed(encode_body(Join(slot(Phase.JOIN, peers), (), DIGEST)), SIGNATURE))


def waits(peers: int) -> tuple[Late, ...]:
    phases = [phase for phase in Phase if Phase.COMMIT.value <= phase.value <= Phase.CLOSE.value]
    return tuple(Late(phase, bulk, peers - 1) for phase in phases for bulk in (False, True))


def words(peers: int) -> int:
    """Most contributions that one checker speaks of in an undo step: some k are banned at once, all of whose steps are
    in the window, and those that are left may still hide faulty ones."""
    most, faults = 0, (peers + 1) // 2 - 1
    for banned in range(1, faults + 1):
        active = peers - banned
        checkers = min((active + 1) // 2 - 1, faults - banned) + 1
        most = max(most, math.ceil(MAX_UNDO * banned * checkers / active))
    return most


def report(peers: int, gradients: bool) -> Report:
    """Of a step with gradients, or of an undo step."""
    accusation = Accusation(AccusationKind.AGGREGATE, peers - 1, STEP, NUMBER, peers - 1)
    verdicts = (Verdict(peers - 1, False),) * (peers // 3)
    return Report(
        slot(Phase.REPORT, peers),
        PREFIX,
        (True,) * peers if gradients else (),
        verdicts,
        (accusation,) * MAX_ACCUSATIONS if gradients else (),
        (silence(peers),) * MAX_PROOFS,
        (join(peers),) * (2 * (peers // 2)),
        () if gradients else (True,) * words(peers),
        waits(peers),
        (2**31,) * 2,
    )


LARGEST: dict[str, Callable[[int], Body]] = {
    "HELLO": lambda n: Hello(slot(Phase.HELLO, n), (), DIGEST, bytes(500)),
    "COMMIT": lambda n: Commit(slot(Phase.COMMIT, n), PREFIX, (DIGEST,) * n, DIGEST),
    "a complaint of all": lambda n: Agg(slot(Phase.AGG, n), PREFIX, Missing(tuple(range(n)))),
    "all complain of all": lambda n: Held(slot(Phase.HELD, n), PREFIX, (True,) * (n * n)),
    "REVEAL": lambda n: Reveal(slot(Phase.REVEAL, n), PREFIX, DIGEST, DIGEST, (False,) * n),
    "CHECKSUMS": lambda n: Checksums(slot(Phase.CHECKSUMS, n), PREFIX, (1.1,) * n, (2.2,) * n),
    "REPORT": lambda n: report(n, gradients=True),
    "REPORT of an undo step": lambda n: report(n, gradients=False),
    "every part of two steps": lambda n: Have(slot(Phase.HAVE, n), PREFIX, (True,) * (2 * n * n)),
    "JUDGE": lambda n: Judge(slot(Phase.JUDGE, n), PREFIX, (True,) * n),
    "all are removed": lambda n: Close(slot(Phase.CLOSE, n), PREFIX, Void(removals(n))),
    "SUSPECT": lambda n: Suspect(slot(Phase.SUSPECT, n), (), Phase.CLOSE, n - 1),
    "OUTCOME": lambda n: Outcome(slot(Phase.OUTCOME, n), PREFIX, Void(removals(n // 2)), removals(n // 2)),
    "JOIN": lambda n: Join(slot(Phase.JOIN, n), (), DIGEST),
}


@pytest.mark.parametrize("name", LARGEST)
def test_what_an_honest_peer_has_to_say_fits(name: str) -> None:
    for peers in SIZES:
        body = LARGEST[name](peers)
        assert len(encode_body(body)) <= body_bytes(body.slot.phase, peers), peers


def test_what_one_report_carries_fits_into_its_shares() -> None:
    for peers in SIZES:
        assert MAX_PROOFS * (len(silence(peers)) + 5) <= evidence_bytes(peers)
        assert 2 * peers * (len(join(peers)) + 3) <= join_bytes(peers)
        assert body_bytes(Phase.REPORT, peers) >= evidence_bytes(peers) + join_bytes(peers)


@pytest.mark.parametrize("peers", [2, 4, 7, 16])
def test_a_view_of_everything_fits(peers: int) -> None:
    """Two messages of the largest size in every slot of every phase of the step, and all suspicions."""
    step = [phase for phase in Phase if Phase.COMMIT.value <= phase.value <= Phase.CLOSE.value]
    framing = len(encode_signed(Signed(bytes(70_000), SIGNATURE))) - 70_000
    slots = 2 * peers * sum(body_bytes(phase, peers) + framing for phase in step)
    named = len(step) * peers
    suspect = Signed(encode_body(Suspect(slot(Phase.SUSPECT, peers), (), Phase.CLOSE, peers - 1)), SIGNATURE)
    suspicions = named * (peers - 1) * len(encode_signed(suspect))
    assert slots + suspicions <= view_bytes(peers) < control_bytes(peers)
    assert body_bytes(Phase.VIEW, peers) == view_bytes(peers)
    assert 2 * named + named * (peers - 1) < view_messages(peers)


def test_a_larger_roster_may_say_more() -> None:
    """Else a roster that takes peers back could not pass on what a smaller one said."""
    for one, other in pairwise(range(1, MAX_PEERS + 1)):
        for phase in (Phase.CLOSE, Phase.HELD, Phase.REPORT, Phase.VIEW):
            assert body_bytes(phase, one) < body_bytes(phase, other)
        assert view_messages(one) < view_messages(other)
        assert control_bytes(one) < control_bytes(other)


RATE = 12.5e6


@pytest.mark.parametrize("rate", [1.0, RATE, 4 * RATE], ids=["slow", "100 Mbit/s", "400 Mbit/s"])
@pytest.mark.parametrize("peers", [2, 16, 64, MAX_PEERS])
def test_the_delivery_bound_is_what_the_largest_views_take(peers: int, rate: float) -> None:
    bound_s = delivery_s(peers, rate)
    views_s = (peers - 1) * control_bytes(peers) / max(rate, RATE)
    assert bound_s >= views_s
    assert bound_s == 2.0 or bound_s < views_s + 0.1 + 1e-9
    assert round(10 * bound_s) == pytest.approx(10 * bound_s), "in tenths"
    assert delivery_s(peers, 1.0) >= bound_s


def test_small_rosters_need_two_seconds() -> None:
    assert [delivery_s(peers, 1.0) for peers in (1, 2, 4)] == [2.0] * 3
    assert delivery_s(16, 1.0) > 2.0
