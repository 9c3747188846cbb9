"""What a transcript accuses whom of, and which bytes judging it needs; what a list of SUSPECTs proves, and what not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import msgspec
import pytest
from msgspec.structs import replace

from btard.node.crypto.signing import Signer, verify
from btard.node.protocol.adjudication.charges import (
    Averaging,
    Broken,
    Charge,
    Equivocation,
    FalseChecksum,
    FalseGradient,
    FalseHistory,
    FalseProbation,
    OutOfBounds,
    Publication,
    Ruled,
    Silent,
    Unusable,
    Withheld,
    accusation_of,
    contradict,
    encode_equivocation,
    encode_equivocations,
    encode_silences,
    equivocation,
    silence,
)
from btard.node.protocol.adjudication.judging import charges, judged_peers, publications, raised
from btard.node.protocol.attempt.attempt import Attempt, Transcript
from btard.node.protocol.attempt.verification import NormWindow
from btard.node.protocol.wire.encoding import encode, encode_body, signing_bytes, stub, stub_bytes
from btard.node.protocol.wire.messages import (
    Accusation,
    AccusationKind,
    Checksums,
    Close,
    Have,
    Phase,
    Place,
    Report,
    Signed,
    Slot,
    Stub,
    Suspect,
    Verdict,
    plain_bytes,
)
from tests.protocol_attempts import changed, complete, replace_state, said


def attempt_of(**more: object) -> Attempt:
    return complete(**more).attempt


def lied(attempt: Attempt, peer: int, part: int, *, s: float | None = None, norm: float | None = None) -> None:
    """Change a contributor's claim."""
    body = said(attempt, Checksums, peer)
    assert isinstance(body, Checksums)
    values, norms = list(body.s), list(body.norms)
    values[part] = values[part] if s is None else s
    norms[part] = norms[part] if norm is None else norm
    changed(attempt, Checksums, peer, s=tuple(values), norms=tuple(norms))


def accused_by(attempt: Attempt, peer: int, *accusations: Accusation) -> None:
    changed(attempt, Report, peer, accusations=accusations)


def flagged(attempt: Attempt, aggregator: int, contributor: int) -> None:
    """An aggregator's V1 bit turned to false."""
    place = attempt.contributors.index(contributor)
    body = said(attempt, Report, aggregator)
    assert isinstance(body, Report)
    changed(attempt, Report, aggregator, checks=tuple(bit and at != place for at, bit in enumerate(body.checks)))


def test_an_honest_transcript_accuses_nobody() -> None:
    for step in (0, 1, 2, 3):
        assert charges(attempt_of(step=step)) == ()


@pytest.mark.parametrize("lie", [{"s": math.nan}, {"s": 1e30}, {"norm": -1.0}, {"norm": math.inf}], ids=str)
def test_v0_charges_the_sender_and_has_the_part_recomputed(lie: dict[str, float]) -> None:
    attempt = attempt_of()
    peer = attempt.contributors[1]
    lied(attempt, peer, 3, **lie)
    assert charges(attempt) == (OutOfBounds(peer, 3), Averaging(3, "V0"))


def test_v2_has_the_part_recomputed() -> None:
    attempt = attempt_of()
    peer = attempt.contributors[0]
    claim = attempt.claim(peer, 2)
    lied(attempt, peer, 2, s=claim.s + 0.1 * claim.norm)
    assert charges(attempt) == (Averaging(2, "V2"),)


def test_v3_has_the_part_recomputed_once_its_limit_is_known() -> None:
    attempt = attempt_of()
    norms = NormWindow(((1e-9,),) * 10)
    replace_state(attempt, norms=norms)
    assert charges(attempt) == tuple(Averaging(part, "V3") for part in range(6))


def test_v1_bits_accuse_the_sender_unless_the_part_is_recomputed_anyway() -> None:
    attempt = attempt_of()
    aggregator, peer = attempt.roster.active[2], attempt.contributors[0]
    flagged(attempt, aggregator, peer)
    assert charges(attempt) == (FalseChecksum(peer, 2, aggregator),)
    lied(attempt, peer, 2, s=math.nan)
    assert charges(attempt) == (OutOfBounds(peer, 2), Averaging(2, "V0"))


def test_accusations_count_if_they_concern_this_attempt() -> None:
    attempt = attempt_of()
    peer, other = attempt.contributors[:2]
    here = {"step": attempt.step, "attempt": attempt.number}
    accused_by(
        attempt, 4,
        Accusation(AccusationKind.CHECKSUM, peer, part=1, **here),
        Accusation(AccusationKind.CHECKSUM, peer, part=1, **here),
        Accusation(AccusationKind.CHECKSUM, other, part=6, **here),
        Accusation(AccusationKind.CHECKSUM, other, part=-1, **here),
        Accusation(AccusationKind.CHECKSUM, 99, part=1, **here),
        Accusation(AccusationKind.CHECKSUM, other, part=1, step=0, attempt=0),
        Accusation(AccusationKind.AGGREGATE, 5, part=77, **here),
        Accusation(AccusationKind.GRADIENT, peer, part=1, **here),
    )  # fmt: skip
    accused_by(attempt, 3, Accusation(AccusationKind.AGGREGATE, 5, part=0, **here))
    assert charges(attempt) == (
        Averaging(5, "accusation", 3), Averaging(5, "accusation", 4), FalseChecksum(peer, 1, 4),
    ), "every accuser answers for itself; what concerns other steps is dropped without penalty"  # fmt: skip


def test_a_verdict_is_the_only_accusation_of_a_gradient() -> None:
    attempt = attempt_of()
    validator, target = attempt.pairs[0]
    changed(attempt, Report, validator, verdicts=(Verdict(target, False),))
    assert charges(attempt) == (FalseGradient(target, validator),)
    assert judged_peers(attempt) == (target,)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 6)])
def test_rules_without_a_residual_are_audited(share: float, expected: int) -> None:
    from btard.node.config import Plugin

    found = charges(attempt_of(rule=Plugin("median"), audit_share=share))
    assert found == tuple(Averaging(part, "audit") for part in range(expected))


def every_charge(attempt: Attempt) -> list[tuple[Charge, bool]]:
    """Charges that the transcript of the test below raises, and such that it does not."""
    peer, (validator, target) = attempt.contributors[0], attempt.pairs[0]
    return [
        (OutOfBounds(peer, 3), True),
        (OutOfBounds(peer, 2), False),
        (Averaging(3, "V0"), True),
        (Averaging(3, "V2"), False),
        (Averaging(2, "V2"), True),
        (Averaging(2, "V3"), False),
        (Averaging(2, "V2", 1), False),
        (Averaging(1, "V3"), True),
        (Averaging(1, "audit"), False),
        (Averaging(1, "nonsense"), False),
        (Averaging(5, "accusation", 4), True),
        (Averaging(5, "accusation", 3), False),
        (Averaging(5, "accusation", None), False),
        (FalseGradient(target, validator), True),
        (FalseGradient(target, 3 if validator != 3 else 2), False),
        (FalseChecksum(peer, 2, attempt.roster.active[2]), True),
        (FalseChecksum(peer, 4, attempt.roster.active[4]), False),
    ]


@pytest.mark.parametrize("row", range(17))
def test_a_third_party_sees_whether_a_charge_was_raised(row: int) -> None:
    attempt = attempt_of()
    peer, (validator, target) = attempt.contributors[0], attempt.pairs[0]
    lied(attempt, peer, 3, s=math.inf)
    lied(attempt, peer, 2, s=attempt.claim(peer, 2).s + 0.3 * attempt.claim(peer, 2).norm)
    flagged(attempt, attempt.roster.active[2], peer)
    changed(attempt, Report, validator, verdicts=(Verdict(target, False),))
    accused_by(attempt, 4, Accusation(AccusationKind.AGGREGATE, 5, attempt.step, attempt.number, 0))
    charge, expected = every_charge(attempt)[row]
    assert raised(charge, attempt) is expected


def test_what_must_be_published() -> None:
    """A whole part for CheckAveraging, one part of the accused for a checksum; on one platform no gradient."""
    round_ = complete()
    attempt, past = round_.attempt, round_.past
    peer = attempt.contributors[3]
    found = (Averaging(2, "V2"), FalseChecksum(peer, 4, 0), FalseChecksum(peer, 2, 0), FalseGradient(peer, 1),
             OutOfBounds(peer, 0))  # fmt: skip
    expected = {Publication(attempt.step, attempt.number, owner, 2) for owner in attempt.contributors}
    expected |= {Publication(attempt.step, attempt.number, peer, 4)}
    wanted = publications(found, attempt, past)
    assert set(wanted) == expected
    assert list(wanted) == sorted(wanted, key=lambda item: (item.step, item.attempt, item.owner, item.part))


def test_across_environments_the_accused_publishes_its_gradient() -> None:
    round_ = complete(recompute_tolerance=1e-6)
    attempt, past = round_.attempt, round_.past
    assert past is not None
    _, target = attempt.pairs[0]
    assert publications((FalseGradient(target, 1), FalseGradient(99, 1)), attempt, past) == tuple(
        Publication(past.step, past.number, target, part) for part in range(6)
    )


ONE, TWO = (Stub(Place(Slot(b"r", b"o", 2, 0, Phase.AGG, 3), (), None), body, b"") for body in (b"1", b"2"))
NAMES = [
    (OutOfBounds(3, 1), ("bounds", 3, 1, None)),
    (Averaging(2, "V3"), ("averaging:V3", 2, 2, None)),
    (Averaging(2, "accusation", 5), ("averaging:accusation", 2, 2, 5)),
    (FalseChecksum(3, 1, 4), ("checksum", 3, 1, 4)),
    (FalseGradient(3, 4), ("gradient", 3, None, 4)),
    (FalseHistory(3, 1, 0), ("history", 3, None, None)),
    (Withheld(3, "part", 2, 1), ("withheld:part", 3, 1, None)),
    (Unusable(3, 1), ("unusable", 3, 1, None)),
    (Silent(3, Phase.AGG), ("silence:AGG", 3, None, None)),
    (Broken(3, 4), ("edges", 3, None, None)),
    (Equivocation(3, ONE, TWO), ("equivocation", 3, None, None)),
    (FalseProbation(3, b"join"), ("probation", 3, None, None)),
    (Ruled(3, "prefix"), ("prefix", 3, None, None)),
]


@pytest.mark.parametrize(("charge", "named"), NAMES, ids=[row[1][0] for row in NAMES])
def test_a_charge_is_a_value_that_travels_as_its_fields_and_nothing_else(
    charge: Charge, named: tuple[object, ...]
) -> None:
    fields = msgspec.msgpack.decode(encode(charge))
    same = msgspec.msgpack.decode(encode(charge), type=type(charge))
    assert isinstance(fields, list) and len({charge, same}) == 1
    with pytest.raises(msgspec.ValidationError, match="length"):
        msgspec.msgpack.decode(encode((*fields, 0)), type=type(charge))


@pytest.mark.parametrize(("charge", "named"), NAMES, ids=[row[1][0] for row in NAMES])
def test_how_a_charge_is_reported(charge: Charge, named: tuple[object, ...]) -> None:
    said_ = accusation_of(attempt_of(), charge)
    assert (said_.kind, said_.accused, said_.part, said_.accuser) == named


# --- proofs of equivocation -----------------------------------------------------------------------------------------

SIGNERS = [Signer(bytes([peer]) * 32) for peer in range(3)]
KEYS = tuple(signer.public for signer in SIGNERS)
RUN = b"r" * 32


def place_in(
    phase: Phase = Phase.AGG, prefix: str = "a", named: tuple[Phase, int] | None = None, **slot: object
) -> Place:
    where = {"run": RUN, "roster": b"roster", "step": 3, "attempt": 0, "sender": 1, **slot}
    return Place(Slot(phase=phase, **where), tuple(hash_.encode() for hash_ in prefix), named)  # type: ignore[arg-type]


def stub_at(place: Place, body: bytes = b"one", by: int = 1) -> Stub:
    return Stub(place, body, SIGNERS[by].sign(stub_bytes(place, body)))


CLOSING = place_in(Phase.CLOSE, "abc")
SUSPECTING = place_in(Phase.SUSPECT, "", (Phase.AGG, 2))
PAIRS = [
    ("one slot, two bodies", place_in(), place_in(), b"two", True),
    ("one slot, one body", place_in(), place_in(), b"one", False),
    ("one slot, two bodies, one more phase seen", place_in(), place_in(prefix="ab"), b"two", True),
    ("two phases, one history", place_in(), place_in(Phase.REVEAL, "abc"), b"two", False),
    ("two phases, another history", place_in(), place_in(Phase.REVEAL, "xbc"), b"two", True),
    ("the other order", place_in(Phase.REVEAL, "xbc"), place_in(), b"two", True),
    ("another history after the common part", place_in(prefix="ab"), place_in(Phase.REVEAL, "ax"), b"two", True),
    ("CLOSE last", CLOSING, place_in(Phase.REPORT, "ab"), b"two", False),
    ("CLOSE beside another's last", CLOSING, place_in(Phase.JUDGE, "abc"), b"two", False),
    ("a phase after CLOSE", CLOSING, place_in(Phase.JUDGE, "abcd"), b"two", True),
    ("a phase after CLOSE, the other order", place_in(Phase.JUDGE, "abcd"), CLOSING, b"two", True),
    ("a later phase that is no CLOSE", place_in(Phase.REPORT, "ab"), place_in(Phase.JUDGE, "abcd"), b"two", False),
    ("one peer suspects two", SUSPECTING, place_in(Phase.SUSPECT, "", (Phase.AGG, 0)), b"two", False),
    ("one peer suspects in two phases", SUSPECTING, place_in(Phase.SUSPECT, "", (Phase.AGG2, 2)), b"two", False),
    ("one suspicion, two bodies", SUSPECTING, SUSPECTING, b"two", True),
    ("another step", place_in(), place_in(prefix="x", step=4), b"two", False),
    ("another attempt", place_in(), place_in(prefix="x", attempt=1), b"two", False),
    ("another roster", place_in(), place_in(prefix="x", roster=b"smaller"), b"two", False),
    ("another run", place_in(), place_in(prefix="x", run=b"other"), b"two", False),
    ("another sender", place_in(), place_in(prefix="x", sender=2), b"two", False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "body", "proven"), [row[1:] for row in PAIRS], ids=[row[0] for row in PAIRS]
)
def test_what_no_honest_peer_signs_both_of(first: Place, second: Place, body: bytes, proven: bool) -> None:
    assert contradict(stub_at(first), stub_at(second, body)) is proven
    data = encode_equivocation(stub_at(first), stub_at(second, body))
    charge = equivocation(data, RUN, KEYS, verify)
    assert charge == (Equivocation(1, stub_at(first), stub_at(second, body)) if proven else None)


@pytest.mark.parametrize("sender", range(len(KEYS)))
def test_any_member_can_be_convicted(sender: int) -> None:
    first, second = (stub_at(place_in(sender=sender), body, by=sender) for body in (b"one", b"two"))
    assert equivocation(encode_equivocation(first, second), RUN, KEYS, verify) == Equivocation(sender, first, second)


def test_a_transcript_gives_the_pairs_that_it_holds() -> None:
    """Two messages for one slot; and where prefixes differ, a message unlike its own sender's CLOSE."""
    transcript, said = Transcript((0, 1, 2)), {}

    def hear(name: str, phase: Phase, sender: int, prefix: tuple[bytes, ...], value: bytes = b"") -> None:
        slot = Slot(RUN, b"roster", 3, 0, phase, sender)
        body = Close(slot, prefix, value) if phase is Phase.CLOSE else Have(slot, prefix, (bool(value),))
        said[name] = Signed(encode_body(body), bytes(64))
        transcript.add(body, said[name])

    hear("right", Phase.HAVE, 0, (b"a",))
    hear("wrong", Phase.HAVE, 1, (b"x",))
    assert encode_equivocations(transcript) == [], "which of the two is false, nobody can prove yet"
    hear("end", Phase.CLOSE, 0, (b"a", b"b"))
    assert encode_equivocations(transcript) == []
    hear("contradicted", Phase.CLOSE, 1, (b"a", b"b"))
    pair = encode_equivocation(stub(said["contradicted"]), stub(said["wrong"]))
    assert encode_equivocations(transcript) == [pair]
    hear("once", Phase.HAVE, 2, (b"a",))
    hear("again", Phase.HAVE, 2, (b"a",), b"1")
    assert encode_equivocations(transcript) == [encode_equivocation(stub(said["once"]), stub(said["again"])), pair]


def forged(stub_: Stub) -> Stub:
    return replace(stub_, signature=SIGNERS[0].sign(b"something else"))


UNPROVEN = [
    ("the first signature is another's", lambda one, two: (stub_at(one, by=2), stub_at(two, b"two"))),
    ("the second signature is another's", lambda one, two: (stub_at(one), stub_at(two, b"two", by=2))),
    ("the first signature is of something else", lambda one, two: (forged(stub_at(one)), stub_at(two, b"two"))),
    ("the second signature is of something else", lambda one, two: (stub_at(one), forged(stub_at(two, b"two")))),
]


@pytest.mark.parametrize("pair", [row[1] for row in UNPROVEN], ids=[row[0] for row in UNPROVEN])
def test_both_signatures_have_to_be_the_accuseds(pair: Callable[[Place, Place], tuple[Stub, Stub]]) -> None:
    assert equivocation(encode_equivocation(*pair(place_in(), place_in())), RUN, KEYS, verify) is None


@pytest.mark.parametrize(("slot", "by"), [({"run": b"other"}, 1), ({"sender": 3}, 2), ({"sender": -1}, 2)], ids=str)
def test_a_pair_of_another_run_or_of_nobody_proves_nothing(slot: dict[str, object], by: int) -> None:
    place = place_in(**slot)  # type: ignore[arg-type]
    data = encode_equivocation(stub_at(place, by=by), stub_at(place, b"two", by=by))
    assert equivocation(data, RUN, KEYS, verify) is None


@pytest.mark.parametrize("data", [b"", b"\x90", encode((1, 2))], ids=["nothing", "an empty list", "two numbers"])
def test_rubbish_is_no_proof(data: bytes) -> None:
    assert equivocation(data, RUN, KEYS, verify) is None


# --- silence --------------------------------------------------------------------------------------------------


ACCUSED = 5
STEP = 2
LARGE = (bytes(plain_bytes(6)),)


@pytest.fixture(scope="module")
def signers() -> list[Signer]:
    from btard.node.crypto.keys import generate

    return [Signer(bytes.fromhex(secret.signing_seed)) for secret in generate(0, 6)[1]]


@pytest.fixture(scope="module")
def attempt() -> Attempt:
    return complete(step=STEP).attempt


def suspects(
    attempt: Attempt, signers: list[Signer], by: Iterable[int] = (0, 1, 2), *, step: int = STEP - 1, number: int = 0,
    phase: Phase = Phase.CLOSE, peer: int = ACCUSED, run: bytes | None = None, prefix: tuple[bytes, ...] = (),
) -> list[Signed]:  # fmt: skip
    made = []
    for sender in by:
        slot = Slot(run or attempt.settings.run, attempt.roster.digest, step, number, Phase.SUSPECT, sender)
        body = Suspect(slot, prefix, phase, peer)
        data = encode_body(body)
        made.append(Signed(data, signers[sender].sign(signing_bytes(body, data))))
    return made


def test_more_than_f_suspicions_prove_silence(attempt: Attempt, signers: list[Signer]) -> None:
    assert attempt.roster.faults == 2
    assert silence(encode(tuple(suspects(attempt, signers))), attempt) == Silent(ACCUSED, Phase.CLOSE)


Make = Callable[[Attempt, list[Signer]], list[Signed]]
NOTHING: list[tuple[str, Make]] = [
    ("none", lambda a, s: []),
    ("f of them", lambda a, s: suspects(a, s, (0, 1))),
    ("one peer thrice", lambda a, s: suspects(a, s, (0, 0, 0))),
    ("the accused among them", lambda a, s: suspects(a, s, (0, 1, ACCUSED))),
    ("of two steps", lambda a, s: [*suspects(a, s, (0, 1)), *suspects(a, s, (2,), step=STEP, number=-1)]),
    ("of two phases", lambda a, s: [*suspects(a, s, (0, 1)), *suspects(a, s, (2,), phase=Phase.AGG)]),
    ("of two peers", lambda a, s: [*suspects(a, s, (0, 1)), *suspects(a, s, (2,), peer=4)]),
    ("of this very attempt", lambda a, s: suspects(a, s, step=STEP)),
    ("of a later step", lambda a, s: suspects(a, s, step=STEP + 1)),
    ("two steps old", lambda a, s: suspects(a, s, step=STEP - 2)),
    ("of another run", lambda a, s: suspects(a, s, run=bytes(32))),
    ("of nobody", lambda a, s: suspects(a, s, peer=77)),
    ("a broken signature", lambda a, s: [*suspects(a, s, (0, 1)), Signed(suspects(a, s, (2,))[0].body, bytes(64))]),
    ("larger than an honest peer takes", lambda a, s: [*suspects(a, s, (0, 1)), *suspects(a, s, (2,), prefix=LARGE)]),
    ("another message", lambda a, s: [*suspects(a, s, (0, 1)), a.transcript.signed(Phase.AGG)[2]]),
]  # fmt: skip


@pytest.mark.parametrize("make", [row[1] for row in NOTHING], ids=[row[0] for row in NOTHING])
def test_what_proves_nothing(attempt: Attempt, signers: list[Signer], make: Make) -> None:
    assert silence(encode(tuple(make(attempt, signers))), attempt) is None


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", encode((1, 2)), encode((("a", "b"),) * 3)])
def test_garbage_proves_nothing(attempt: Attempt, data: bytes) -> None:
    assert silence(data, attempt) is None


def test_what_a_transcript_holds_is_what_a_report_carries(attempt: Attempt, signers: list[Signer]) -> None:
    from btard.node.protocol.wire.encoding import decode_body

    transcript = Transcript(attempt.roster.active)
    for signed in suspects(attempt, signers, (3, 1, 0, 2)):
        transcript.add(decode_body(signed.body), signed)
    for signed in suspects(attempt, signers, (0, 1), peer=4):
        transcript.add(decode_body(signed.body), signed)
    (data,) = encode_silences(transcript, attempt.roster.faults)
    assert silence(data, attempt) == Silent(ACCUSED, Phase.CLOSE), "only two peers suspect peer 4"


def test_f_silent_peers_are_charged_each(attempt: Attempt, signers: list[Signer]) -> None:
    from btard.node.protocol.wire.encoding import decode_body

    transcript = Transcript(attempt.roster.active)
    for peer in (4, ACCUSED):
        for signed in suspects(attempt, signers, peer=peer):
            transcript.add(decode_body(signed.body), signed)
    charged = [silence(data, attempt) for data in encode_silences(transcript, attempt.roster.faults)]
    assert charged == [Silent(4, Phase.CLOSE), Silent(ACCUSED, Phase.CLOSE)]


def test_more_than_f_silent_peers_are_a_network_that_was_cut(attempt: Attempt, signers: list[Signer]) -> None:
    """Each half of the roster suspects the other: no charge against anybody."""
    from btard.node.protocol.wire.encoding import decode_body

    transcript = Transcript(attempt.roster.active)
    for one, other in (((0, 1, 2), (3, 4, 5)), ((3, 4, 5), (0, 1, 2))):
        for peer in other:
            for signed in suspects(attempt, signers, one, peer=peer):
                transcript.add(decode_body(signed.body), signed)
    assert len(transcript.silent(attempt.roster.faults + 1)) == 6
    assert encode_silences(transcript, attempt.roster.faults) == []
