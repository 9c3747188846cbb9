"""What a peer must notice when a phase is complete, although each message looked right when it came."""

from __future__ import annotations

import msgspec
import pytest

from btard.node.protocol.api import Committed, Disputed, MessageArrived, Output
from btard.node.protocol.attempt.gradient_requests import Gradients
from btard.node.protocol.attempt.phases import Knowledge, message
from btard.node.protocol.attempt.round import value_of
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Close, Have, Held, Phase, Report, Reveal
from tests.fuzz.arena import Arena
from tests.fuzz.scenes import ATTACKER, SCENES, recorded
from tests.protocol_attempts import complete, stopped
from tests.unit.node.protocol.test_peer import signed_by
from tests.unit.node.protocol.test_router import BAD

COMPLAINT = next(place for place, attacks in enumerate(SCENES) if attacks and attacks[0].name == "complain")
LIE = next(place for place, attacks in enumerate(SCENES) if attacks and attacks[0].name == "lie_checksum")
PLAIN = 0


def place_of(scene: int, phase: Phase) -> int:
    """Where the script has the attacker's first message of a phase."""
    for place, event in enumerate(recorded(scene)):
        if isinstance(event, MessageArrived):
            slot = decode_body(event.signed.body).slot
            if (slot.phase, slot.sender) == (phase, ATTACKER):
                return place
    raise LookupError(phase)


def replay(scene: int, phase: Phase, early_by: int, **fields: object) -> list[Output]:
    """A run in which the attacker's message of a phase comes `early_by` inputs early and with other fields."""
    place = place_of(scene, phase)
    arena = Arena(scene, place - early_by)
    event = recorded(scene)[place]
    assert isinstance(event, MessageArrived)
    body = msgspec.structs.replace(decode_body(event.signed.body), **fields)
    told: list[Output] = []
    perform = arena._perform
    arena._perform = lambda output: (told.append(output), perform(output))[1]  # type: ignore[method-assign]
    arena.feed(MessageArrived(ATTACKER, arena.signed(body, ATTACKER)))
    for at, honest in enumerate(recorded(scene)[place - early_by : place + 40], place - early_by):
        if at != place and (honest.via != ATTACKER or at < place):
            arena.feed(honest)
    assert arena.accused <= {ATTACKER}
    return told


CASES = {
    "HELD with too few bits, before the complaints are known": (COMPLAINT, Phase.HELD, 14, {"have": ()}, Held),
    "REVEAL of another value, before the commitment": (PLAIN, Phase.REVEAL, 0, {"x": bytes(32)}, Reveal),
    "HAVE with too few bits, before the charges are known": (LIE, Phase.HAVE, 8, {"have": ()}, Have),
    "CLOSE with no prefix": (PLAIN, Phase.CLOSE, 0, {"prefix": ()}, Close),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_disputed(name: str) -> None:
    scene, phase, early_by, fields, _ = CASES[name]
    told = replay(scene, phase, early_by, **fields)
    disputed = [output for output in told if isinstance(output, Disputed)]
    assert disputed, [type(output).__name__ for output in told]
    step = disputed[0].step
    assert not any(isinstance(output, Committed) and output.step == step for output in told)


def test_without_the_parts_nothing_is_reported_of_them() -> None:
    """A peer that a damaged disk has thrown back, to where nobody owes it anything, waits; it used to end."""
    _, round_ = stopped(0, "REPORT")
    known = Knowledge(round_.attempt, None, None, Gradients(), (), False)
    assert isinstance(message(Phase.REPORT, known), Report)
    round_.attempt.parts.popitem()
    assert message(Phase.REPORT, known) is None


# --- after a dispute --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("certified", [False, True], ids=["OUTCOMEs with a removal", "n CLOSEs"])
def test_what_a_liar_has_shown_to_us_alone_does_not_count_where_the_union_holds_another(certified: bool) -> None:
    """Its REPORT, in the phase in which we were frozen. Where n CLOSEs stand, ours covers what we held."""
    theirs, (_, ours) = complete(node=1), stopped(2, "REPORT")
    value = value_of(*theirs.conclude((), certified=True) or ())
    union = [(decode_body(signed.body), signed) for signed in theirs.attempt.transcript.everything()]
    true = theirs.attempt.transcript.signed(Phase.REPORT)[BAD]
    lie = signed_by(BAD, msgspec.structs.replace(decode_body(true.body), evidence=(b"another",)))
    ours.attempt.transcript.add(decode_body(lie.body), lie)
    ours.frozen = ours.sealed = True
    verdict = ours.conclude(union, certified)
    if certified:
        assert verdict is None or value_of(*verdict) != value
    else:
        assert verdict is not None and value_of(*verdict) == value
    held = ours.attempt.transcript.signed(Phase.REPORT)[BAD]
    assert held == (lie if certified else true)
    assert set(ours.attempt.transcript.conflicts[(Phase.REPORT, BAD)]) == {lie, true}, "and proves what it is"
    assert len(list(ours.attempt.transcript.everything())) == len(union) + 1
