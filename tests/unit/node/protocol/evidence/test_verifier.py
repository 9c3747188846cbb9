"""Evidence convinces a third party, and nothing that was changed in it does.

An attempt is replayed from what evidence holds of it as every honest peer saw it, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random

import msgspec
import pytest
import torch

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.crypto.keys import generate
from btard.node.crypto.signing import Signer
from btard.node.protocol.adjudication.charges import (
    Averaging,
    Equivocation,
    FalseChecksum,
    FalseGradient,
    FalseProbation,
    Guilt,
    Withheld,
)
from btard.node.protocol.api import Banned, BulkKind, Output, SendBulk
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.evidence import format as files
from btard.node.protocol.evidence.format import Evidence, Record, decode, gather
from btard.node.protocol.evidence.verifier import Ground, Replay, UnprovenError, Verifier, require
from btard.node.protocol.roster import Roster
from btard.node.protocol.state.state import Ban, Contribution, Summary
from btard.node.protocol.wire.encoding import decode_body, decode_signed, encode, encode_body, signing_bytes
from btard.node.protocol.wire.messages import Commit, Have, Held, Phase, Reveal, Signed
from tests.protocol_attempts import PEERS, said, stopped
from tests.simulation.attacked import START, configuration
from tests.simulation.attacked import play as attacked
from tests.simulation.cases import CASES, Case, filed, verifier_for
from tests.simulation.hostile import interpose
from tests.simulation.stage import Stage, play, set_up
from tests.unit.node.protocol.test_peer import signed_by

put = msgspec.structs.replace


# --- the attempt again ----------------------------------------------------------------------------------------


BAD, PART = 5, 3


def ban(peer: int, step: int, attempt: int = 0, removed: bool = True) -> Ban:
    return Ban(step, attempt, peer, "silent", None, removed)


def recorded(step: int = 2) -> tuple[Replay, Record, Attempt]:
    """A third party, what evidence holds of a step, and the step as peer 0 saw it."""
    stage, round_ = stopped(step, "CLOSE")
    attempt = round_.attempt
    charge = Averaging(PART, "V2")
    data = gather(Guilt(PART, "aggregate", None, charge), ban(PART, step), attempt, round_.past, None, ())
    return Replay(stage.ground(), [], []), decode(data).trial, attempt


@pytest.mark.parametrize("step", [0, 2])
def test_a_replayed_attempt_is_the_one_that_was(step: int) -> None:
    replay, record, attempt = recorded(step)
    again = replay.attempt(record)
    assert (again.where, again.contributors, again.pairs) == (attempt.where, attempt.contributors, attempt.pairs)
    assert again.transcript.prefix == attempt.transcript.prefix and again.r == attempt.r != b""
    assert torch.equal(again.z, attempt.z)
    assert list(again.aggregates) == [PART] and torch.equal(again.aggregates[PART], attempt.aggregates[PART])


def without_message(kind: Phase, peer: int = BAD) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        slots = [(signed, decode_body(signed.body).slot) for signed in record.messages]
        return put(
            record, messages=tuple(signed for signed, slot in slots if (slot.phase, slot.sender) != (kind, peer))
        )

    return change


def instead(made: Callable[[], Signed], kind: Phase) -> Callable[[Record], Record]:
    def change(record: Record) -> Record:
        rest = without_message(kind)(record).messages
        return put(record, messages=(*rest, made()))

    return change


def other_commit() -> Signed:
    body = said(recorded()[2], Commit, BAD)
    return signed_by(BAD, put(body, randomness=b"2" * 32))


def false_prefix() -> Signed:
    return signed_by(BAD, put(said(recorded()[2], Reveal, BAD), prefix=(bytes(32),) * 2))


def odd_bits(kind: type[Have | Held], phases: int, first: bool) -> Callable[[Record], Record]:
    """Bits from everyone, one more from `BAD`; read before what says how many there have to be, or after it."""

    def change(record: Record) -> Record:
        attempt = recorded()[2]
        prefix, phase = attempt.transcript.prefix[:phases], Phase[kind.__name__.upper()]
        made = tuple(
            signed_by(peer, kind(attempt.slot(phase, peer), prefix, (True,) * (peer == BAD))) for peer in range(PEERS)
        )
        return put(record, messages=(*made, *record.messages) if first else (*record.messages, *made))

    return change


def first_aggregate(**fields: object) -> Callable[[Record], Record]:
    return lambda record: put(record, aggregates=(put(record.aggregates[0], **fields),))


CHANGES_OF_A_RECORD: list[tuple[str, Callable[[Record], Record], str]] = [
    ("no such step", lambda r: put(r, step=-1), "no such attempt"),
    ("an enormous attempt", lambda r: put(r, attempt=1 << 63), "no such attempt"),
    ("the largest attempt", lambda r: put(r, attempt=(1 << 63) - 1), "another slot"),
    ("an enormous step", lambda r: put(r, step=1 << 63), "no such attempt"),
    ("the largest step", lambda r: put(r, step=(1 << 63) - 1), "of another step"),
    ("a smaller roster", lambda r: put(r, active=r.active[:-1]), "roster is not the one"),
    ("a larger roster", lambda r: put(r, active=(*r.active, PEERS)), "roster is not the one"),
    ("no state before", lambda r: put(r, before=None), "before step 2 is not certified"),
    ("the state before another step", lambda r: put(r, before=put(r.before, step=1)), "of another step"),
    ("another r before", lambda r: put(r, before=put(r.before, r=bytes(32))), "covers another state"),
    ("other validators", lambda r: put(r, before=put(r.before, validator_count=0)), "covers another state"),
    ("a CLOSE too few", lambda r: put(r, certificate=r.certificate[1:]), "CLOSEs of step 1 are missing"),
    ("one CLOSE twice", lambda r: put(r, certificate=(*r.certificate[1:], r.certificate[1])), "twice"),
    ("a message missing", without_message(Phase.REPORT), "messages of REPORT are missing"),
    ("a message twice", lambda r: put(r, messages=(*r.messages, r.messages[0])), "a slot has two messages"),
    (
        "a false signature",
        lambda r: put(r, messages=(put(r.messages[0], signature=bytes(64)), *r.messages[1:])),
        "signature",
    ),
    ("another attempt's messages", lambda r: put(r, attempt=1), "another"),
    ("another commitment", instead(other_commit, Phase.COMMIT), "fits no rule|prefixes differ"),
    ("another past", instead(false_prefix, Phase.REVEAL), "prefixes differ"),
    ("HAVEs of two lengths", odd_bits(Have, 5, first=False), "peer 5 fits no rule: HAVE must carry 0 bits"),
    ("a HELD before the AGGs", odd_bits(Held, 2, first=True), "peer 5 fits no rule: HELD must carry 0 bits"),
    ("another aggregate", first_aggregate(values=bytes(4 * 3)), "not the committed one"),
    ("an aggregate of nobody", first_aggregate(owner=PEERS), "has no aggregate"),
]


@pytest.mark.parametrize(
    ("change", "problem"), [row[1:] for row in CHANGES_OF_A_RECORD], ids=[row[0] for row in CHANGES_OF_A_RECORD]
)
def test_nothing_else_is_replayed(change: Callable[[Record], Record], problem: str) -> None:
    replay, record, _ = recorded()
    replay.attempt(record)
    with pytest.raises(UnprovenError, match=problem):
        replay.attempt(change(record))


def test_rosters_follow_from_what_is_proven_so_far() -> None:
    replay, record, _ = recorded()
    everyone = tuple(range(PEERS))
    assert replay.roster_at(9, 0).active == everyone
    replay.proven += [ban(4, 1), ban(3, 2, 1, removed=False)]
    replay.returned.append((4, 7))
    assert [replay.roster_at(*at).active for at in ((1, 0), (1, 1), (6, 0), (7, 0))] == [
        everyone,
        (0, 1, 2, 3, 5),
        (0, 1, 2, 3, 5),
        everyone,
    ]
    with pytest.raises(UnprovenError, match="roster is not the one"):
        replay.attempt(record)


def test_of_an_empty_roster_nothing_is_replayed() -> None:
    replay, record, _ = recorded()
    replay.proven += [ban(peer, 0) for peer in range(PEERS)]
    with pytest.raises(UnprovenError, match="nobody is left"):
        replay.attempt(record)


def test_a_certificate_ends_one_attempt_with_one_value() -> None:
    replay, record, _ = recorded()
    assert record.before is not None
    closed = replay.closed(record.certificate, 1, 0, record.before.digest)
    assert closed.value == record.before.digest
    assert replay.closed(record.certificate, 1, 0).messages == record.certificate, "whatever it says"
    for step, attempt, value in ((1, 0, bytes(32)), (2, 0, None), (1, 1, None), (-1, 0, None)):
        with pytest.raises(UnprovenError):
            replay.closed(record.certificate, step, attempt, value)


def test_a_message_is_opened_in_its_own_attempt_only() -> None:
    replay, record, _ = recorded()
    signed, roster = record.messages[0], replay.roster_at(2, 0)
    assert replay.open(signed, roster, 2, 0) == decode_body(signed.body)
    for step, attempt, of in ((1, 0, roster), (2, 1, roster), (2, 0, roster.without((5,)))):
        with pytest.raises(UnprovenError):
            replay.open(signed, of, step, attempt)


def test_what_is_required() -> None:
    require(True, "not said")
    with pytest.raises(UnprovenError, match=r"^it is said$"):
        require(False, "it is said")


# --- its judging ----------------------------------------------------------------------------------------------


BY_NAME = {case.name: case for case in CASES}
GRADIENT = BY_NAME["sign_flip"]
REFORMED = BY_NAME["sign_flip-reform"]
AGGREGATE = BY_NAME["shift_aggregate"]
CHECKSUM = BY_NAME["lie_checksum"]
BIT = BY_NAME["false_accuse-bit"]
KINDS = {"gradient": "recomputation", "false_accusation": "recomputation"}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def first(case: Case) -> tuple[Evidence, Verifier]:
    """The first ban's evidence of a case, and a third party that may judge it."""
    stage, found, _ = filed(case)
    return files.decode(found[0].ban.evidence), verifier_for(stage, found[0].before)


@pytest.mark.slow
@every_case
def test_both_bans_are_proven(case: Case) -> None:
    stage, found, _ = filed(case)
    assert [item.ban.peer for item in sorted(found, key=lambda item: item.ban.peer)] == [4, 5]
    for item in found:
        proof = verifier_for(stage, item.before).check(item.ban.evidence)
        assert (proof.ban.peer, proof.ban.reason) == (item.ban.peer, case.reason)
        judged_gradient = isinstance(files.decode(item.ban.evidence).charge, FalseGradient)
        assert proof.kind == ("recomputation" if judged_gradient else "transcript")
        assert str(item.ban.peer) in proof.explanation


@pytest.mark.slow
@every_case
def test_no_byte_can_be_changed(case: Case) -> None:
    """Ninety places of each kind of file, two flips each; the same holds for every single byte."""
    evidence, verifier = first(case)
    data = encode(evidence)
    dice = Random(case.name)
    for place in dice.sample(range(len(data)), 90):
        for flip in (1, dice.randrange(2, 256)):
            changed = bytearray(data)
            changed[place] ^= flip
            with pytest.raises(UnprovenError):
                verifier.check(bytes(changed))


# --- changes with sense ---------------------------------------------------------------------------------------------

Change = Callable[[Evidence], Evidence]


def with_ban(**fields: object) -> Change:
    return lambda evidence: put(evidence, ban=put(evidence.ban, **fields))


def with_charge(**fields: object) -> Change:
    return lambda evidence: put(evidence, charge=put(evidence.charge, **fields))


def with_trial(**fields: object) -> Change:
    return lambda evidence: put(evidence, trial=put(evidence.trial, **fields))


def first_held(field: str, **fields: object) -> Change:
    """Change the first tensor of a list of the evidence, or of its trial."""

    def change(evidence: Evidence) -> Evidence:
        if field == "publications":
            held = evidence.publications
            return put(evidence, publications=(put(held[0], **fields), *held[1:]))
        held = evidence.trial.aggregates
        return put(evidence, trial=put(evidence.trial, aggregates=(put(held[0], **fields), *held[1:])))

    return change


def without(field: str, place: int = 0) -> Change:
    return lambda evidence: put(evidence, **{field: (*getattr(evidence, field)[:place],
                                                    *getattr(evidence, field)[place + 1 :])})  # fmt: skip


def trial_without_message(evidence: Evidence) -> Evidence:
    return put(evidence, trial=put(evidence.trial, messages=evidence.trial.messages[1:]))


def trial_with_a_message_twice(evidence: Evidence) -> Evidence:
    return put(evidence, trial=put(evidence.trial, messages=(evidence.trial.messages[0], *evidence.trial.messages)))


CHANGES: list[tuple[str, Case, Change]] = [
    ("another peer", GRADIENT, with_ban(peer=0)),
    ("another reason", GRADIENT, with_ban(reason="checksum")),
    ("another accuser", GRADIENT, with_ban(accuser=3)),
    ("another accuser of a void attempt", AGGREGATE, with_ban(accuser=3)),
    ("not removed", GRADIENT, with_ban(removed=False)),
    ("not removed, of a void attempt", AGGREGATE, with_ban(removed=False)),
    ("removed instead of reformed", REFORMED, with_ban(removed=True)),
    ("another step", GRADIENT, with_ban(step=2)),
    ("another attempt", AGGREGATE, with_ban(attempt=1)),
    ("another run", GRADIENT, lambda evidence: put(evidence, run=bytes(32))),
    ("another version", GRADIENT, lambda evidence: put(evidence, version=99)),
    ("an honest target", GRADIENT, with_charge(accused=0)),
    ("an accuser that never accused", GRADIENT, with_charge(accuser=0)),
    ("a charge that nobody raised", BIT, lambda evidence: put(evidence, charge=FalseChecksum(0, 1, 2))),
    ("an accusation that nobody made", AGGREGATE,
     lambda evidence: put(evidence, charge=Averaging(4, "accusation", 0))),
    ("another cause", AGGREGATE, with_charge(cause="V0")),
    ("a cause that does not exist", AGGREGATE, with_charge(cause="V9")),
    ("V3 where V2 failed", AGGREGATE, with_charge(cause="V3")),
    ("another part", AGGREGATE, with_charge(part=5)),
    ("a part that does not exist", AGGREGATE, with_charge(part=77)),
    ("a negative part", AGGREGATE, with_charge(part=-2)),
    ("the aggregate of another part", AGGREGATE, first_held("aggregates", part=3)),
    ("the aggregate of another owner", AGGREGATE, first_held("aggregates", owner=3)),
    ("the aggregate of another step", AGGREGATE, first_held("aggregates", step=0)),
    ("an aggregate with other bytes", AGGREGATE, first_held("aggregates", values=bytes(12))),
    ("half a number", AGGREGATE, first_held("aggregates", values=bytes(3))),
    ("a published part with other bytes", AGGREGATE, first_held("publications", values=bytes(12))),
    ("a published part of another attempt", AGGREGATE, first_held("publications", attempt=1)),
    ("a published part of an enormous owner", AGGREGATE, first_held("publications", owner=2**63)),
    ("a published part missing", AGGREGATE, without("publications")),
    ("a CLOSE missing", AGGREGATE, without("certificate")),
    ("a CLOSE missing at a commit", GRADIENT, without("certificate", 3)),
    ("no CLOSE at all", GRADIENT, lambda evidence: put(evidence, certificate=())),
    ("a CLOSE twice", GRADIENT, lambda evidence: put(
        evidence, certificate=(*evidence.certificate, evidence.certificate[0]))),
    ("another message among the CLOSEs", GRADIENT, lambda evidence: put(
        evidence, certificate=(*evidence.certificate, evidence.trial.messages[0]))),
    ("no summary", GRADIENT, lambda evidence: put(evidence, summary=None)),
    ("a summary of a void attempt", AGGREGATE, lambda evidence: put(evidence, summary=evidence.trial.before)),
    ("a message missing", GRADIENT, trial_without_message),
    ("a message twice", GRADIENT, trial_with_a_message_twice),
    ("a smaller roster", GRADIENT, with_trial(active=(0, 1, 2, 3, 5))),
    ("no certified state", GRADIENT, with_trial(before=None)),
    ("no certificate of the state", GRADIENT, with_trial(certificate=())),
    ("no step before", GRADIENT, lambda evidence: put(evidence, past=None)),
    ("the step itself as the step before", GRADIENT, lambda evidence: put(evidence, past=evidence.trial)),
    ("a step before where none belongs", AGGREGATE, lambda evidence: put(evidence, past=evidence.trial)),
    ("other parameters", GRADIENT, lambda evidence: put(evidence, parameters=bytes(len(evidence.parameters)))),
    ("no parameters", GRADIENT, lambda evidence: put(evidence, parameters=b"")),
    ("parameters where none belong", AGGREGATE, lambda evidence: put(evidence, parameters=bytes(4))),
    ("JUDGE messages where none belong", AGGREGATE, lambda evidence: put(evidence, judges=evidence.certificate)),
]  # fmt: skip


@pytest.mark.parametrize(("case", "change"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_a_change_with_sense_is_noticed(case: Case, change: Change) -> None:
    evidence, verifier = first(case)
    verifier.check(encode(evidence))
    changed = change(evidence)
    assert changed != evidence
    with pytest.raises(UnprovenError):
        verifier.check(encode(changed))


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xc1" * 40, bytes(5000)], ids=["empty", "zero", "rubbish", "zeros"])
def test_rubbish_proves_nothing(data: bytes) -> None:
    with pytest.raises(UnprovenError, match="damaged"):
        first(GRADIENT)[1].check(data)


def test_a_truncated_or_prolonged_file_proves_nothing() -> None:
    evidence, verifier = first(CHECKSUM)
    data = encode(evidence)
    for changed in (data[:-1], data[: len(data) // 2], data + b"\x00"):
        with pytest.raises(UnprovenError):
            verifier.check(changed)


def test_a_later_ban_needs_the_earlier_ones() -> None:
    """The roster of an attempt follows from the bans before it, so they are shown in order."""
    stage, found, _ = filed(GRADIENT)
    assert found[1].before
    with pytest.raises(UnprovenError):
        verifier_for(stage, ()).check(found[1].ban.evidence)


def test_evidence_of_another_run_proves_nothing() -> None:
    evidence, _ = first(GRADIENT)
    other = set_up(RunConfig(peers=6, task=Plugin("quadratic", {"dimension": 19}), steps=30, batch_size=2), {}, 99)
    with pytest.raises(UnprovenError, match="another run"):
        Verifier(other.ground()).check(encode(evidence))


def test_a_verifier_in_another_environment_says_that_it_cannot_decide() -> None:
    stage, found, _ = filed(GRADIENT)
    ground = stage.ground()
    elsewhere = Ground(
        settings=_elsewhere(ground), tools=ground.tools, keys=ground.keys, initial_D=ground.initial_D,
        recompute=lambda parameters_D, seed: torch.zeros(19),
    )  # fmt: skip
    proof = Verifier(elsewhere).check(found[0].ban.evidence)
    assert proof.kind == "majority"
    assert "cannot decide" in proof.explanation


def _elsewhere(ground: Ground):  # type: ignore[no-untyped-def]
    return replace(ground.settings, fingerprint=b"another machine")


def test_a_recomputation_that_finds_the_gradient_right_refutes_the_ban() -> None:
    """The proof is the recomputation: with a function that returns what was committed the ban does not stand."""
    stage, found, _ = filed(BY_NAME["false_accuse-verdict"])
    ground = stage.ground()
    wrong = Ground(
        ground.settings, ground.tools, ground.keys, ground.initial_D, lambda parameters_D, seed: -parameters_D
    )
    with pytest.raises(UnprovenError, match="not guilty"):
        Verifier(wrong).check(found[0].ban.evidence)


def test_a_gradient_that_only_its_judges_could_not_repeat_is_called_right() -> None:
    """As where all run code whose answers change in use: nobody lied, whoever was drawn is banned, and the evidence,
    which has no aggregates since its gradient was already wrong there, is no less whole for it."""
    stage, found, _ = filed(GRADIENT)
    ban, ground = found[0].ban, stage.ground()
    true = ground.recompute
    assert true is not None
    committed = replace(ground, recompute=lambda parameters_D, seed: -1000.0 * true(parameters_D, seed))
    with pytest.raises(UnprovenError, match=rf"the gradient is the one that peer {ban.peer} committed to"):
        Verifier(committed).check(ban.evidence)


def test_evidence_of_a_failed_probation_is_bound_in_every_field() -> None:
    run = configuration(steps=20, probation=2)
    story, stage = (
        attacked([Plugin("rejoin", {"then": "gradient"})], schedule=Schedule(start=START), run=run),
        set_up(run),
    )
    silent, probation = (min(story.evidence[key]) for key in sorted(story.evidence))
    verifier = Verifier(stage.ground())
    verifier.settle([verifier.check(silent).ban])
    proof, evidence = verifier.check(probation), files.decode(probation)
    assert (proof.kind, proof.ban.reason) == ("recomputation", "probation")
    charge = evidence.charge
    assert isinstance(charge, FalseProbation)
    signed = decode_signed(charge.join)
    body = put(decode_body(signed.body), gradient=bytes(32))
    forged = encode(Signed(encode_body(body), signed.signature))
    assert evidence.past is not None
    for wrong in (
        {"charge": FalseProbation(5, forged)},
        {"charge": FalseProbation(4, charge.join)},
        {"parameters": bytes(len(evidence.parameters))},
        {"past": None},
        {"past": put(evidence.past, before=None, certificate=())},
        {"ban": put(evidence.ban, peer=4)},
        {"ban": put(evidence.ban, reason="gradient")},
    ):
        with pytest.raises(UnprovenError):
            verifier.check(encode(put(evidence, **wrong)))


# --- mixed environments -----------------------------------------------------------------------------------------------


@cache
def judged_by_majority() -> tuple[Stage, Evidence]:
    """A run whose gradients may differ a little, and the evidence of its first ban."""
    run = RunConfig(
        peers=6, task=Plugin("quadratic", {"dimension": 19}), steps=12, batch_size=2, recompute_tolerance=1e-4
    )
    role = Role((Plugin("sign_flip"),), Schedule(start=0), (5,))
    stage = set_up(run, {5: role}, protocol_seed=3)
    ban = next(seen.output for seen in play(stage, ()) if seen.node == 0 and isinstance(seen.output, Banned))
    return stage, files.decode(ban.evidence)


def resigned(signed: Signed, seed: int, **fields: object) -> Signed:
    """Another message of the same peer: whoever holds all keys can sign anything."""
    body = put(decode_body(signed.body), **fields)
    secret, data = generate(seed, 6)[1][body.slot.sender], encode_body(body)
    return Signed(data, Signer(bytes.fromhex(secret.signing_seed)).sign(signing_bytes(body, data)))


JUDGED: dict[str, tuple[Callable[[Signed], Signed | None], str]] = {
    "one is missing": (lambda each: None if decode_body(each.body).slot.sender == 2 else each, "are missing"),
    "they find nobody guilty": (lambda each: resigned(each, 3, guilty=(False,)), "do not carry the ban"),
    "half of them find it guilty": (
        lambda each: resigned(each, 3, guilty=(decode_body(each.body).slot.sender < 3,)),
        "do not carry the ban",
    ),
    "they find two guilty": (lambda each: resigned(each, 3, guilty=(True, True)), "judges others"),
    "of another past": (lambda each: resigned(each, 3, prefix=(bytes(32),)), "judges another transcript"),
    "unsigned": (lambda each: Signed(each.body, bytes(64)), "signature"),
}


@pytest.mark.parametrize("name", JUDGED)
def test_where_environments_differ_most_of_the_roster_has_to_say_so(name: str) -> None:
    change, problem = JUDGED[name]
    stage, evidence = judged_by_majority()
    proof = Verifier(stage.ground()).check(encode(evidence))
    assert (proof.kind, proof.ban.peer, proof.ban.reason, proof.undecided) == ("majority", 5, "gradient", False)
    judges = tuple(each for each in map(change, evidence.judges) if each is not None)
    with pytest.raises(UnprovenError, match=problem):
        Verifier(stage.ground()).check(encode(put(evidence, judges=judges)))


# --- the final state ------------------------------------------------------------------------------------------------


def finished() -> tuple[Verifier, bytes, torch.Tensor]:
    stage, found, certificate = filed(CHECKSUM)
    verifier = Verifier(stage.ground())
    for item in found:
        verifier.check(item.ban.evidence)
    verifier.settle([files.decode(item.ban.evidence).ban for item in found])
    return verifier, certificate, stage.simulation.nodes[0].peer.state.parameters_D


def test_the_last_certificate_covers_the_parameters() -> None:
    verifier, certificate, parameters_D = finished()
    verifier.check_final(certificate, parameters_D)


def test_other_parameters_are_not_certified() -> None:
    verifier, certificate, parameters_D = finished()
    with pytest.raises(UnprovenError, match="not certified"):
        verifier.check_final(certificate, parameters_D + 1e-3)


def test_a_ban_that_was_left_out_is_missed() -> None:
    stage, _, certificate = filed(CHECKSUM)
    with pytest.raises(UnprovenError):
        Verifier(stage.ground()).check_final(certificate, stage.simulation.nodes[0].peer.state.parameters_D)


def test_no_byte_of_a_certificate_can_be_changed() -> None:
    verifier, certificate, parameters_D = finished()
    for place in range(0, len(certificate), 17):
        changed = bytearray(certificate)
        changed[place] ^= 1
        with pytest.raises(UnprovenError):
            verifier.check_final(bytes(changed), parameters_D)


def without_evidence() -> tuple[Verifier, bytes, torch.Tensor, tuple[Ban, ...]]:
    """A third party that knows nothing but the certified end of a run, and what that says of bans."""
    verifier, data, parameters_D = finished()
    return Verifier(verifier.ground), data, parameters_D, tuple(verifier.proven)


def test_what_happened_while_a_peer_was_away_is_believed_to_more_than_f_signatures() -> None:
    verifier, data, parameters_D, bans = without_evidence()
    assert verifier.take_word(data) == (bans, ()) and len(bans) == 2
    assert verifier.take_word(data) == ((), ()), "nothing is new"
    verifier.check_final(data, parameters_D)
    verifier, data, parameters_D, bans = without_evidence()
    verifier.settle(bans[1:])
    assert verifier.take_word(data) == (bans[:1], ()) and verifier.proven == list(bans)
    _, data, step = let_back((4, 0))
    assert without_evidence()[0].take_word(data) == (bans, ((4, step),))


def test_a_word_is_not_taken_from_a_few_nor_against_what_is_proven() -> None:
    verifier, data, _, bans = without_evidence()
    other = put(bans[0], step=0, peer=next(each for each in range(6) if each not in {ban.peer for ban in bans}))
    verifier.settle([other])
    with pytest.raises(UnprovenError, match="lacks what is proven here"):
        verifier.take_word(data)
    assert verifier.proven == [other]
    for place in range(0, len(data), 17):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(UnprovenError):
            without_evidence()[0].take_word(bytes(changed))
    # The two that may be faulty say that all others are banned: a certificate of their whole roster, and no word.
    verifier, data, _, _ = without_evidence()
    summary, closes = msgspec.msgpack.decode(data, type=tuple[Summary, tuple[Signed, ...]])
    few = tuple(decode_body(each.body).slot.sender for each in closes[:2])
    out = tuple(Ban(0, 0, peer, "silent", None, removed=True) for peer in range(6) if peer not in few)
    summary = put(summary, bans=out, active=few, returned=())
    roster = Roster(verifier.ground.keys, few).digest
    signed = [resigned(each, 2, value=summary.digest) for each in closes[:2]]
    signed = [resigned(each, 2, slot=put(decode_body(each.body).slot, roster=roster)) for each in signed]
    with pytest.raises(UnprovenError, match="only 2 members signed it, and 2 may be faulty"):
        verifier.take_word(encode((summary, tuple(signed))))
    assert verifier.proven == []


def let_back(*returned: tuple[int, int]) -> tuple[Verifier, bytes, int]:
    """A third party that knows the bans, a certified state by which these peers are back, and its step."""
    verifier, data, _ = finished()
    summary, closes = msgspec.msgpack.decode(data, type=tuple[Summary, tuple[Signed, ...]])
    summary = put(summary, returned=tuple((peer, summary.step + since) for peer, since in returned))
    return verifier, encode((summary, tuple(resigned(each, 2, value=summary.digest) for each in closes))), summary.step


def test_a_peer_is_back_once_a_certified_state_says_so() -> None:
    verifier, data, step = let_back((4, 0))
    assert verifier.readmit(data) == ((4, step),) and verifier.returned == [(4, step)]
    assert verifier.readmit(data) == (), "it is known already"
    for later, problem in (
        (let_back()[1], "forgets a peer"),
        (let_back((4, 0), (5, -1))[1], "let back before, without"),
        (data[:-1], "damaged"),
    ):
        with pytest.raises(UnprovenError, match=problem):
            verifier.readmit(later)
    summary, closes = msgspec.msgpack.decode(data, type=tuple[Summary, tuple[Signed, ...]])
    with pytest.raises(UnprovenError, match="covers another state"):
        verifier.readmit(encode((put(summary, returned=((4, step), (5, step))), closes)))
    assert verifier.readmit(let_back((4, 0), (5, 0))[1]) == ((5, step),)


def test_a_run_ends_with_its_last_step_and_with_nothing_left_to_undo() -> None:
    verifier, certificate, parameters_D = finished()
    final = verifier.check_final(certificate, parameters_D)
    verifier.check_last(final)
    for changes in ({"step": final.summary.step - 1}, {"undo": (Contribution(0, 0, 4),)}):
        with pytest.raises(UnprovenError, match="the run's last is step 3"):
            verifier.check_last(replace(final, summary=put(final.summary, **changes)))


# --- what each kind of charge rests on --------------------------------------------------------------------------------


def of_one(reason: str, attack: Plugin) -> tuple[Verifier, Evidence]:
    """A third party and the only evidence of a run that one attack in step 3 ends for peer 5."""
    run = configuration()
    story = attacked([attack], run=run)
    ((key, found),) = story.evidence.items()
    assert key == (START, 0, 5) and story.bans[key] == {(reason, True)}
    return Verifier(set_up(run).ground()), files.decode(min(found))


def unpublished() -> tuple[Verifier, Evidence]:
    """The evidence of a peer that does not publish the gradient by which it is judged across environments."""
    run = RunConfig(
        peers=6, task=Plugin("quadratic", {"dimension": 19}), steps=9, batch_size=2, recompute_tolerance=1e-4
    )
    stage = set_up(run, {5: Role((Plugin("sign_flip"),), Schedule(start=0), (5,))}, protocol_seed=3)

    def silent(output: Output) -> list[Output]:
        published = isinstance(output, SendBulk) and output.key.kind is BulkKind.PUBLICATION
        return [] if published else [output]

    interpose(stage, 5, silent)
    ban = next(seen.output for seen in play(stage, ()) if seen.node == 0 and isinstance(seen.output, Banned))
    return Verifier(stage.ground()), files.decode(ban.evidence)


WITHHELD: dict[str, tuple[Callable[[], tuple[Verifier, Evidence]], Phase]] = {
    "part": (lambda: of_one("withheld", Plugin("withhold_part", {"again": True})), Phase.HELD),
    "aggregate": (lambda: of_one("withheld", Plugin("withhold_aggregate")), Phase.REVEAL),
    "publication": (unpublished, Phase.HAVE),
}


@pytest.mark.parametrize("stage", WITHHELD)
def test_who_held_what_was_withheld_is_shown_by_the_bits_and_never_by_their_absence(stage: str) -> None:
    """Cut before them, a transcript has nobody who says that it holds anything, and would convict anyone."""
    made, phase = WITHHELD[stage]
    verifier, evidence = made()
    assert isinstance(evidence.charge, Withheld) and evidence.charge.stage == stage
    proof = verifier.check(encode(evidence))
    assert (proof.kind, proof.ban.peer, proof.ban.reason, proof.undecided) == ("transcript", 5, "withheld", False)
    before = tuple(each for each in evidence.trial.messages if decode_body(each.body).slot.phase.value < phase.value)
    with pytest.raises(UnprovenError, match="lacks what the charge rests on"):
        verifier.check(encode(put(evidence, trial=put(evidence.trial, messages=before))))


def test_two_messages_of_one_slot_are_a_proof_by_themselves() -> None:
    verifier, evidence = of_one("equivocation", Plugin("equivocate"))
    proof = verifier.check(encode(evidence))
    assert (proof.kind, proof.ban.peer, proof.ban.reason) == ("equivocation", 5, "equivocation")
    charge = evidence.charge
    assert isinstance(charge, Equivocation)
    for wrong in (
        put(charge, second=charge.first),
        put(charge, accused=4),
        put(charge, second=put(charge.second, body=bytes(32))),
    ):
        with pytest.raises(UnprovenError, match="proves nothing"):
            verifier.check(encode(put(evidence, charge=wrong)))


def test_a_gradient_of_the_first_step_is_computed_at_the_parameters_of_the_genesis() -> None:
    """Peer 1 is drawn to examine peer 3 in step 1."""
    run = RunConfig(peers=6, task=Plugin("quadratic", {"dimension": 19}), steps=2, batch_size=2)
    stage = set_up(run, {3: Role((Plugin("sign_flip"),), Schedule(start=0), (3,))})
    ban = next(seen.output for seen in play(stage, ()) if seen.node == 0 and isinstance(seen.output, Banned))
    evidence = files.decode(ban.evidence)
    assert (ban.step, ban.peer) == (1, 3) and evidence.past is not None and evidence.past.before is None
    assert Verifier(stage.ground()).check(ban.evidence).kind == "recomputation"
    other = bytes(len(evidence.parameters))
    with pytest.raises(UnprovenError, match="not the genesis ones"):
        Verifier(stage.ground()).check(encode(put(evidence, parameters=other)))


def test_a_state_that_the_closes_do_not_cover_is_none() -> None:
    evidence, verifier = first(GRADIENT)
    assert evidence.summary is not None
    with pytest.raises(UnprovenError, match="the CLOSEs cover another state"):
        verifier.check(encode(put(evidence, summary=put(evidence.summary, r=bytes(32)))))


@pytest.mark.parametrize("fields", [{"peer": 4}, {"reason": "gradient"}], ids=["another peer's", "another reason's"])
def test_one_peers_probation_proves_no_other_ban_of_the_same_state(fields: dict[str, object]) -> None:
    run = configuration(steps=20, probation=2)
    story = attacked([Plugin("rejoin", {"then": "gradient"})], schedule=Schedule(start=START), run=run)
    silent, probation = (min(story.evidence[key]) for key in sorted(story.evidence))
    verifier = Verifier(set_up(run).ground())
    verifier.settle([verifier.check(silent).ban])
    evidence = files.decode(probation)
    assert evidence.summary is not None
    other = put(evidence.ban, **fields)
    summary = put(evidence.summary, bans=(*evidence.summary.bans, other))
    closes = tuple(resigned(each, 0, value=summary.digest) for each in evidence.certificate)
    both = put(evidence, summary=summary, certificate=closes)
    assert verifier.check(encode(both)).ban == evidence.ban
    with pytest.raises(UnprovenError, match="it is another's ban"):
        verifier.check(encode(put(both, ban=other)))
