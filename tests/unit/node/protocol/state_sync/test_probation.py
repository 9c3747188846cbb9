"""Who may come back, whom a peer that comes back believes, and what active peers do for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import msgspec
import pytest
import torch

from btard.node.build import Node
from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.protocol.adjudication.charges import Equivocation, FalseProbation
from btard.node.protocol.api import (
    BulkRequested,
    ComputeGradient,
    Dropped,
    GradientReady,
    MessageArrived,
    Output,
    PhaseEntered,
    Purpose,
    RequestBulk,
    Say,
    SendBulk,
    SendSnapshot,
    TranscriptRequested,
)
from btard.node.protocol.roster import Roster
from btard.node.protocol.settings import Settings
from btard.node.protocol.state.state import Ban, State
from btard.node.protocol.state_sync import client as rejoining
from btard.node.protocol.state_sync.client import StateSyncClient
from btard.node.protocol.state_sync.messages import Certified, Snapshot, certified, snapshot_of
from btard.node.protocol.state_sync.probation import (
    Review,
    candidates,
    gradient_digest,
    join_slot,
    joins_fit,
    review,
    wanted,
)
from btard.node.protocol.wire.encoding import decode_body, encode_body, signing_bytes
from btard.node.protocol.wire.messages import Body, BulkKey, BulkKind, Close, Join, Outcome, Phase, Report, Signed
from tests.protocol_attempts import changed, complete, state_with
from tests.simulation.stage import Stage, run_until, set_up

GONE, OTHER = 5, 4
RUN = RunConfig(peers=6, task=Plugin("quadratic", {"dimension": 13}), steps=8, batch_size=1, probation=2)


@cache
def stage_and_state() -> tuple[Stage, State]:
    """A run in which peer 5 died in step 1, at the beginning of step 3; and that step's agreed state."""
    stage = set_up(RUN, {GONE: Role((Plugin("crash"),), Schedule(start=1))})
    run_until(stage, 0, 3, "COMMIT")
    return stage, stage.simulation.nodes[0].peer.state


@pytest.fixture
def peer() -> tuple[Node, list[Output]]:
    stage = set_up(RUN, {GONE: Role((Plugin("crash"),), Schedule(start=1))})
    run_until(stage, 0, 3, "COMMIT")
    return stage.simulation.nodes[0], []


def settings() -> Settings:
    return stage_and_state()[0].ground().settings


def ban(peer: int, reason: str, step: int = 3, removed: bool = True) -> Ban:
    return Ban(step, 0, peer, reason, None, removed)


@pytest.mark.parametrize(
    ("bans", "returned", "changes", "wanted"),
    [
        ((ban(1, "silent"),), (), {}, (1,)),
        ((ban(1, "silent"), ban(2, "silent")), (), {}, (1, 2)),
        ((ban(1, "gradient"),), (), {}, ()),
        ((ban(1, "eliminated"), ban(2, "eliminated")), (), {}, ()),
        ((ban(1, "edges"),), (), {}, (1,)),
        ((ban(1, "withheld"),), (), {}, (1,)),
        ((ban(1, "silent"), ban(1, "gradient", 4)), (), {}, ()),
        ((ban(1, "gradient", 2, removed=False), ban(1, "silent")), (), {}, ()),
        ((ban(1, "silent"), ban(1, "probation", 6)), (), {}, ()),
        ((ban(1, "silent"), ban(1, "silent", 9)), ((1, 7),), {}, ()),
        ((ban(1, "silent"),), (), {"probation": 0}, ()),
        ((ban(1, "silent"),), (), {"recompute_tolerance": 1e-6}, ()),
        ((ban(1, "silent"),), (), {"undo": 5}, ()),
    ],
    ids=["gone", "two", "banned", "eliminated", "edges", "withheld", "guilty later", "reformed", "failed", "twice",
         "off", "mixed environments", "undo"],
)  # fmt: skip
def test_who_may_come_back(
    bans: tuple[Ban, ...], returned: tuple[tuple[int, int], ...], changes: dict[str, int], wanted: tuple[int, ...]
) -> None:
    out = {each.peer for each in bans if each.removed}
    active = [each for each in range(6) if each not in out]
    assert candidates(replace(settings(), **changes), bans, returned, active) == wanted  # type: ignore[arg-type]


def test_a_roster_grows_by_returns_and_shrinks_by_what_came_after_them() -> None:
    bans = (ban(1, "silent", 3), ban(2, "silent", 4), ban(1, "silent", 9))
    genesis, returned = Roster.genesis(stage_and_state()[1].roster.keys), ((1, 7),)
    at = {step: genesis.at(bans, returned, step, 0).active for step in (3, 4, 6, 7, 9, 10)}
    assert at == {3: (0, 1, 2, 3, 4, 5), 4: (0, 2, 3, 4, 5), 6: (0, 3, 4, 5), 7: (0, 1, 3, 4, 5), 9: (0, 1, 3, 4, 5),
                  10: (0, 3, 4, 5)}  # fmt: skip
    assert state_with(stage_and_state()[1], bans=bans, returned=()).removed_faults == 3
    assert state_with(stage_and_state()[1], bans=bans[:2], returned=returned).removed_faults == 1


# --- whom to believe ----------------------------------------------------------------------------------------------


def waiting(out: list[Output]) -> StateSyncClient:
    """Peer 5, which knows the genesis roster and nothing else."""
    stage, _ = stage_and_state()
    inner = set_up(RUN).simulation.nodes[GONE].peer
    return StateSyncClient(stage.ground().settings, inner.shared.tools, GONE, b"seed", inner.state, out)


def signed_by(stage: Stage, peer: int, body: Body) -> Signed:
    """A message under a node's key, past the memory of what it has said."""
    data = encode_body(body)
    return Signed(data, stage.simulation.nodes[peer].signer.sign(signing_bytes(body, data)))


def lie(signers: tuple[int, ...]) -> Snapshot:
    """Another state than the agreed one, in a certificate of those who sign it."""
    stage, state = stage_and_state()
    false = msgspec.structs.replace(state.summary, parameters=bytes(32))
    signed = []
    for old in state.certificate:
        body = decode_body(old.body)
        assert isinstance(body, Close | Outcome)
        changed = msgspec.structs.replace(body, value=false.digest)
        made = signed_by(stage, body.slot.sender, changed)
        signed.append(made if body.slot.sender in signers else Signed(made.body, old.signature))
    return Snapshot(Certified(false, tuple(signed)))


def test_a_state_counts_when_more_than_f_tell_it() -> None:
    out: list[Output] = []
    candidate, truth = waiting(out), snapshot_of(stage_and_state()[1], None)
    candidate.learn(0, truth)
    candidate.learn(0, truth)
    candidate.learn(3, truth)
    assert not candidate.convinced
    assert not [each for each in out if isinstance(each, RequestBulk)]
    candidate.learn(2, truth)
    assert candidate.convinced
    assert {each.to for each in out if isinstance(each, RequestBulk)} == {0}


def test_a_quorum_of_liars_feeds_nobody_a_false_state() -> None:
    """Two liars of six are no quorum; were they more, the certificate would give them away."""
    out: list[Output] = []
    candidate, false = waiting(out), lie((3, 4))
    for via in (3, 4):
        candidate.learn(via, false)
    assert not candidate.convinced and not out
    candidate.learn(2, false)
    assert not candidate.convinced
    assert out == [Dropped(2, "uncertified_lesson")]


def test_mutations_without_the_quorum_and_the_certificate_the_false_state_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    false = lie((3, 4))
    monkeypatch.setattr(Roster, "faults", property(lambda _: 1))
    out: list[Output] = []
    candidate = waiting(out)
    for via in (3, 4):
        candidate.learn(via, false)
    assert not candidate.convinced, "the certificate alone still refuses it"
    monkeypatch.setattr(rejoining, "certified", lambda *_: True)
    candidate = waiting(out)
    for via in (3, 4):
        candidate.learn(via, false)
    assert candidate.convinced and candidate.step == false.now.summary.step


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        (lambda told: told, True),
        (lambda told: Certified(told.summary, told.certificate[:2]), False),
        (lambda told: Certified(told.summary, ()), False),
        (lambda told: Certified(told.summary, (*told.certificate[:-1], told.certificate[0])), False),
        (lambda told: Certified(msgspec.structs.replace(told.summary, r=bytes(32)), told.certificate), False),
        (lambda told: Certified(msgspec.structs.replace(told.summary, step=0), told.certificate), False),
        (lambda told: Certified(told.summary, (Signed(b"?", bytes(64)), *told.certificate[1:])), False),
        (lambda told: Certified(told.summary, (Signed(told.certificate[0].body, bytes(64)), *told.certificate[1:])),
         False),
    ],
    ids=["whole", "two of five", "empty", "one twice", "another state", "step 0", "no message", "bad signature"],
)  # fmt: skip
def test_what_a_certificate_must_hold(change: Callable[[Certified], Certified], holds: bool) -> None:
    stage, state = stage_and_state()
    told, known = snapshot_of(state, None).now, Roster.genesis(state.roster.keys)
    verify = stage.simulation.nodes[0].peer.shared.tools.verify
    assert certified(change(told), known, settings(), verify) is holds
    stranger = replace(known, active=(5,))
    assert not certified(told, stranger, settings(), verify), "none of its signers is known"


def test_vectors_are_taken_by_their_digests_and_the_gradient_is_signed() -> None:
    stage, state = stage_and_state()
    out: list[Output] = []
    candidate, truth = waiting(out), snapshot_of(state, None)
    for via in (0, 1, 2):
        candidate.learn(via, truth)
    asked = [each for each in out if isinstance(each, RequestBulk)]
    assert [(each.to, each.key.part) for each in asked] == [(0, 0), (0, 1)]
    first, second = (each.key for each in asked)
    assert not candidate.expects(1, first, 13) and not candidate.expects(0, first, 12)
    candidate.take(0, first, torch.zeros(13))
    assert out[-2] == Dropped(0, "bulk_digest") and out[-1] == RequestBulk(1, first)
    candidate.take(1, first, state.parameters_D)
    candidate.take(0, second, state.optimiser_D)
    assert PhaseEntered(3, 0, "JOIN") in out and candidate.state.summary == state.summary
    (wanted,) = [each for each in out if isinstance(each, ComputeGradient)]
    gradient_D, loss = stage.task.gradient(wanted.parameters_D, wanted.seed)
    candidate.computed(GradientReady(Purpose.OWN, 2, GONE, gradient_D, loss))
    assert out[-1] == Dropped(None, "unwanted_gradient")
    candidate.computed(GradientReady(Purpose.OWN, 3, GONE, gradient_D, loss))
    digest = gradient_digest(settings(), 3, GONE, gradient_D)
    assert out[-1] == Say(state.roster.active, Join(join_slot(settings(), state.roster, 3, GONE), (), digest))


# --- what active peers do -----------------------------------------------------------------------------------------


def join(node: Node, step: int, gradient: bytes = bytes(32), sender: int = GONE) -> Signed:
    """A JOIN of peer 5, which signs in `stage_and_state`'s run."""
    body = Join(join_slot(node.peer.shared.settings, node.peer.state.roster, step, sender), (), gradient)
    return signed_by(stage_and_state()[0], GONE, body)


def test_who_is_gone_is_told_and_served_once_for_each(peer: tuple[Node, list[Output]]) -> None:
    machine = peer[0].peer
    (taught,) = machine.handle(TranscriptRequested(GONE, 1, 0))
    assert taught == SendSnapshot((GONE,), snapshot_of(machine.state, None))
    assert machine.handle(TranscriptRequested(GONE, 3, 0)) == [], "there is nothing newer yet"
    key = BulkKey(3, 0, BulkKind.STATE, 0, 1)
    (sent,) = machine.handle(BulkRequested(GONE, key))
    assert isinstance(sent, SendBulk) and torch.equal(sent.values_P, machine.state.optimiser_D)
    assert machine.handle(BulkRequested(GONE, key)) == [Dropped(GONE, "unserved_request")]
    assert machine.handle(BulkRequested(GONE, BulkKey(9, 0, BulkKind.STATE, 0, 0))) == [
        Dropped(GONE, "unserved_request")
    ]
    assert machine.handle(BulkRequested(OTHER, BulkKey(3, 0, BulkKind.STATE, 0, 0))) == [
        Dropped(OTHER, "unserved_request")
    ]


def test_questions_are_counted(peer: tuple[Node, list[Output]]) -> None:
    machine = peer[0].peer
    answers = [machine.handle(TranscriptRequested(GONE, 0, 0)) for _ in range(40)]
    assert sum(isinstance(each[0], SendSnapshot) for each in answers) == 8 * (RUN.probation + 1)
    assert answers[-1] == [Dropped(GONE, "asked_too_often")]


def test_who_is_banned_is_not_listened_to(peer: tuple[Node, list[Output]]) -> None:
    node, _ = peer
    machine = node.peer
    machine.shared.state = replace(machine.state, bans=(*machine.state.bans, ban(GONE, "gradient")))
    hello = machine.greeting.hello(GONE)
    signed = signed_by(stage_and_state()[0], GONE, hello)
    for asked in (TranscriptRequested(GONE, 1, 0), MessageArrived(GONE, join(node, 3)), MessageArrived(GONE, signed)):
        assert machine.handle(asked) == [Dropped(GONE, "removed_line")]


def test_joins_of_this_step_and_the_last_are_kept_two_at_most(peer: tuple[Node, list[Output]]) -> None:
    node, _ = peer
    machine = node.peer
    assert machine.handle(MessageArrived(GONE, join(node, 2))) == []
    assert machine.handle(MessageArrived(GONE, join(node, 2))) == [Dropped(GONE, "duplicate")]
    assert machine.handle(MessageArrived(GONE, join(node, 2, b"1" * 32))) == []
    assert machine.handle(MessageArrived(GONE, join(node, 2, b"2" * 32))) == [Dropped(GONE, "duplicate")]
    forged = Signed(join(node, 3).body, bytes(64))
    assert machine.handle(MessageArrived(GONE, forged)) == [Dropped(GONE, "bad_signature")]
    for wrong in (join(node, 1), join(node, 4), join(node, 3, sender=OTHER)):
        assert machine.handle(MessageArrived(GONE, wrong)) == [Dropped(GONE, "wrong_slot")]
    attempt = machine.attempt
    assert attempt is not None
    held = machine.sync_server.joins(attempt)
    assert len(held) == 2 and joins_fit(held, attempt, attempt.me)


def test_what_a_report_may_carry(peer: tuple[Node, list[Output]]) -> None:
    node, _ = peer
    attempt = node.peer.attempt
    assert attempt is not None
    fine = msgspec.msgpack.encode(join(node, 2))
    others = [msgspec.msgpack.encode(join(node, 2, bytes([value]) * 32)) for value in (1, 2)]
    assert joins_fit((), attempt, attempt.me) and joins_fit((fine,), attempt, attempt.me)
    assert joins_fit((fine, others[0]), attempt, attempt.me)
    assert not joins_fit((fine, fine), attempt, attempt.me)
    assert not joins_fit((fine, *others), attempt, attempt.me)
    for wrong in (join(node, 3), join(node, 2, b"short"), join(node, 2, sender=OTHER), Signed(join(node, 2).body, b"")):
        assert not joins_fit((msgspec.msgpack.encode(wrong),), attempt, attempt.me)
    assert not joins_fit((b"?",), attempt, attempt.me)
    assert attempt.step == 3 and Phase.JOIN.value > Phase.OUTCOME.value


# --- what REPORTs come to -----------------------------------------------------------------------------------------


def test_correct_gradients_are_counted_until_they_are_enough() -> None:
    _, state = stage_and_state()
    out = state.roster.without((GONE, OTHER))
    bans = (ban(GONE, "silent"), ban(OTHER, "silent"), ban(OTHER, "gradient"))
    state = state_with(state, bans=bans, roster=out, admissions=((OTHER, 2), (GONE, 1)))
    once = Review((), (OTHER, GONE)).applied(state, 4, 3)
    assert (once.summary.probation, once.summary.returned, once.roster.active) == (((GONE, 2),), (), (0, 1, 2, 3)), (
        "one is guilty since"
    )
    idle = Review().applied(once, 5, 3)
    assert (idle.summary.probation, idle.summary.returned, idle.roster.active) == (((GONE, 2),), (), (0, 1, 2, 3))
    back = Review((), (GONE,)).applied(idle, 6, 3)
    assert (back.summary.probation, back.summary.returned, back.roster.active) == ((), ((GONE, 6),), (0, 1, 2, 3, GONE))


def test_a_review_waits_for_what_it_compares_with() -> None:
    round_ = complete()
    attempt, past = round_.attempt, round_.past
    assert past is not None
    gradient_D = torch.arange(19.0)

    def join_of(peer: int, digest: bytes) -> bytes:
        slot = join_slot(attempt.settings, attempt.roster, past.step, peer)
        return msgspec.msgpack.encode(Signed(encode_body(Join(slot, (), digest)), bytes(64)))

    assert review(attempt, past, {}) == Review()
    right = join_of(GONE, gradient_digest(attempt.settings, past.step, GONE, gradient_D))
    two = (join_of(OTHER, b"1" * 32), join_of(OTHER, b"2" * 32))
    changed(attempt, Report, 0, joins=(right, two[0]))
    changed(attempt, Report, 1, joins=(right, two[1]))
    assert wanted(attempt) == (GONE,), "two different ones convict without"
    assert review(attempt, None, {}) == Review(), "in step 0 there is nothing to have computed"
    assert review(attempt, past, {OTHER: gradient_D}) is None
    found = review(attempt, past, {GONE: gradient_D})
    assert found is not None and found.correct == (GONE,)
    (guilt,) = found.guilts
    assert (guilt.peer, guilt.reason) == (OTHER, "equivocation") and isinstance(guilt.charge, Equivocation)
    found = review(attempt, past, {GONE: gradient_D + 1})
    assert found is not None and found.correct == ()
    assert [(guilt.peer, guilt.reason, guilt.charge) for guilt in found.guilts] == [
        (OTHER, "equivocation", guilt.charge), (GONE, "probation", FalseProbation(GONE, right)),
    ]  # fmt: skip
