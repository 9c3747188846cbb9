"""Which applications let a key in, whose REPORT may carry one, and what becomes of a newcomer on probation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from msgspec import structs

from btard.node.config import Endpoint, Plugin, RunConfig, Secrets
from btard.node.crypto.keys import fresh, generate
from btard.node.drivers.simulator import application as signed_application
from btard.node.genesis.application import apply, vouched
from btard.node.protocol.api import Dropped, Output, SendSnapshot, TranscriptRequested
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.state.state import Newcomer, Register, State, Summary
from btard.node.protocol.state_sync.admission import (
    MOST_OUT,
    PATIENCE,
    application_fits,
    application_of,
    candidates,
    entered,
    introduced,
    introducer,
    refused,
    registered,
    revised,
)
from btard.node.protocol.state_sync.messages import snapshot_of
from btard.node.protocol.state_sync.probation import joins_fit
from btard.node.protocol.state_sync.server import StateSyncServer
from btard.node.protocol.wire.encoding import encode
from btard.node.protocol.wire.messages import Application, Report
from tests.protocol_attempts import changed
from tests.simulation.stage import RUN_ID, Stage, run_until, set_up

NEW, OTHER = 6, 7
RUN = RunConfig(
    peers=6,
    task=Plugin("quadratic", {"dimension": 13}),
    steps=8,
    batch_size=1,
    roster="sponsored",
    members=8,
    admit_every=4,
)
OPEN = structs.replace(RUN, roster="open")


def played(run: RunConfig = RUN) -> tuple[Stage, Attempt]:
    """A run in its third step, before any REPORT, and what peer 0 holds of it."""
    stage = set_up(run)
    return stage, run_until(stage, 0, 2, "REPORT").attempt


@cache
def attempt_of(roster: str = "sponsored") -> Attempt:
    return played(structs.replace(RUN, roster=roster))[1]


def identities() -> tuple[Secrets, ...]:
    return generate(0, RUN.members)[1]


def sound(peer: int = NEW, run: RunConfig = RUN) -> Application:
    members, secrets = generate(0, run.members)
    return signed_application(RUN_ID, run, members[: run.peers], secrets, peer)


def because(application: Application, attempt: Attempt, register: Register | None = None, **more: object) -> str | None:
    settings, summary = attempt.settings, attempt.state.summary
    if register is not None:
        summary = structs.replace(summary, admissions=register)
    roster = summary.roster(attempt.roster, attempt.roster.active)
    roster = replace(roster, **more)  # type: ignore[arg-type]
    return refused(application, settings, roster, summary, attempt.tools.verify)


def newcomer(application: Application, heard: int = 2) -> Newcomer:
    return Newcomer(
        application.peer,
        application.number,
        application.key,
        application.transport,
        application.control,
        application.bulk,
        application.sponsor,
        heard,
    )


# --- which applications let a key in ------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [RUN, OPEN], ids=["sponsored", "open"])
def test_a_sound_application_is_taken(run: RunConfig) -> None:
    assert because(sound(run=run), attempt_of(run.roster)) is None
    assert because(sound(OTHER, run), attempt_of(run.roster)) is None


def signed(change: Callable[[Application], Application], peer: int = NEW) -> Application:
    """A changed application, signed again by its key; what a founder added to it is as it was."""
    plain = change(sound(peer))
    where = Endpoint(plain.control, plain.bulk)
    again = apply(attempt_of().settings.run, plain.peer, identities()[peer], where, plain.number)
    return structs.replace(again, sponsor=plain.sponsor, sponsorship=plain.sponsorship)


def by(founder: int, run: bytes, candidate: int = NEW) -> Application:
    """The newcomer's, with one founder's word for a key."""
    word = vouched(run, founder, identities()[founder], sound(candidate))
    return structs.replace(sound(), sponsor=founder, sponsorship=word.sponsorship)


def test_what_lets_nobody_in() -> None:
    """Each with the one thing that is wrong with it."""
    attempt, plain = attempt_of(), sound()
    run = attempt.settings.run
    found = {
        "another's signature": because(structs.replace(plain, signature=bytes(64)), attempt),
        "changed on its way": because(structs.replace(plain, control="tcp://127.0.0.1:9"), attempt),
        "vouched for in another run": because(by(1, b"r" * 32), attempt),
        "applied to another run": because(
            vouched(run, 1, identities()[1], apply(b"r" * 32, NEW, identities()[NEW], Endpoint("a", "b"))), attempt
        ),
        "an id of a founder": because(signed(lambda each: structs.replace(each, peer=3)), attempt),
        "an id beyond the last": because(signed(lambda each: structs.replace(each, peer=8)), attempt),
        "nobody vouches": because(signed(lambda each: structs.replace(each, sponsor=None)), attempt),
        "a newcomer vouches": because(by(OTHER, run), attempt),
        "for another key": because(by(1, run, candidate=OTHER), attempt),
        "a long address": because(structs.replace(plain, control="x" * 271), attempt),
        "a short key": because(structs.replace(plain, key=b"k"), attempt),
    }
    assert found == {
        "another's signature": "bad_signature",
        "changed on its way": "bad_signature",
        "vouched for in another run": "bad_signature",
        "applied to another run": "bad_signature",
        "an id of a founder": "taken_id",
        "an id beyond the last": "taken_id",
        "nobody vouches": "no_sponsor",
        "a newcomer vouches": "no_sponsor",
        "for another key": "bad_signature",
        "a long address": "malformed",
        "a short key": "malformed",
    }


def test_a_founders_key_is_known() -> None:
    secret, run = identities()[2], attempt_of("open").settings.run
    assert because(apply(run, NEW, secret, Endpoint("a", "b")), attempt_of("open")) == "known_key"


def test_where_the_roster_is_open_nobody_vouches() -> None:
    attempt = attempt_of("open")
    assert because(by(1, attempt.settings.run), attempt) == "no_sponsor"


def test_a_founder_that_is_out_vouches_for_nobody() -> None:
    attempt = attempt_of()
    assert because(by(1, attempt.settings.run), attempt) is None
    assert because(by(1, attempt.settings.run), attempt, active=(0, 2, 3, 4, 5)) == "no_sponsor"


def test_a_closed_roster_takes_nobody() -> None:
    attempt, summary = attempt_of(), attempt_of().state.summary
    closed = replace(attempt.settings, roster="closed")
    assert refused(sound(), closed, attempt.roster, summary, attempt.tools.verify) == "closed_roster"
    assert introducer(closed, attempt.roster, summary) is None


def test_who_has_been_here_is_known_and_who_was_wrong_is_barred() -> None:
    attempt, plain = attempt_of(), sound()
    here = Register((), (newcomer(plain),))
    assert because(plain, attempt, here) == "known_key"
    elsewhere = structs.replace(sound(OTHER), transport=plain.transport)
    assert because(elsewhere, attempt, here) == "known_key", "a line is of one peer"
    assert because(sound(OTHER), attempt, here) is None
    taken = signed(lambda each: structs.replace(each, peer=NEW), OTHER)
    assert because(taken, attempt, here) == "taken_id"
    stranger = apply(attempt.settings.run, OTHER, fresh(), Endpoint("a", "b"))
    assert because(stranger, attempt, Register((), (newcomer(plain), newcomer(sound(OTHER))))) == "full"
    assert because(plain, attempt, Register((), (), ((plain.key, plain.sponsor, None),))) == "barred_key"


def test_an_application_lets_in_once_and_a_key_applies_so_often() -> None:
    """Else whoever holds it could shut the door with it again and again."""
    attempt, plain = attempt_of(), sound()

    def after(lapses: int, number: int) -> str | None:
        again = signed(lambda each: structs.replace(each, number=number))
        return because(again, attempt, Register((), (), ((plain.key, plain.sponsor, lapses),)))

    assert after(1, 0) == "barred_key" and after(1, 1) is None and after(1, 2) is None
    assert after(2, 2) is None and after(3, 3) == "barred_key" and after(1, -1) == "barred_key"
    assert because(signed(lambda each: each), attempt) is None


def test_a_founder_vouches_once() -> None:
    """Whatever becomes of the key."""
    attempt, secrets = attempt_of(), identities()
    second = vouched(attempt.settings.run, NEW % 6, secrets[NEW % 6], sound(OTHER))
    assert because(second, attempt) is None
    assert because(second, attempt, Register((), (newcomer(sound()),))) == "spent_sponsor"
    assert because(second, attempt, Register((), (), ((sound().key, sound().sponsor, None),))) == "spent_sponsor"
    assert because(second, attempt, Register((), (), ((sound().key, sound().sponsor, 1),))) == "spent_sponsor"


@pytest.mark.parametrize(
    "data",
    [b"", b"?", encode(sound()) + b"x", encode(structs.replace(sound(), bulk="x" * 1000))],
    ids=["empty", "junk", "more behind it", "too long"],
)
def test_what_is_no_application(data: bytes) -> None:
    assert application_of(data) is None
    assert application_of(encode(sound())) == sound()


# --- whose REPORT may carry one -----------------------------------------------------------------------------------


def test_one_member_may_introduce_while_the_door_is_open() -> None:
    attempt = attempt_of()
    settings, roster, summary = attempt.settings, attempt.roster, attempt.state.summary
    drawn = introducer(settings, roster, summary)
    assert drawn in roster.active
    fits = {peer: application_fits(sound(), attempt, peer) for peer in roster.active}
    assert fits == {peer: peer == drawn for peer in roster.active}
    assert all(joins_fit((encode(sound()),), attempt, peer) == fits[peer] for peer in roster.active)
    assert drawn is not None
    assert not joins_fit((encode(sound()), encode(sound())), attempt, drawn), "one at a time"
    spoilt = structs.replace(sound(), signature=bytes(64))
    assert not joins_fit((encode(spoilt),), attempt, drawn)


def test_every_member_has_its_turn() -> None:
    attempt = attempt_of()
    drawn = {
        introducer(attempt.settings, attempt.roster, structs.replace(attempt.state.summary, r=bytes([value]) * 32))
        for value in range(64)
    }
    assert drawn == set(attempt.roster.active)


def test_when_the_door_is_shut() -> None:
    attempt, one = attempt_of(), newcomer(sound())

    def drawn(register: Register, **facts: object) -> int | None:
        summary: Summary = structs.replace(attempt.state.summary, admissions=register, **facts)
        return introducer(attempt.settings, summary.roster(attempt.roster, attempt.roster.active), summary)

    step = attempt.step
    assert drawn(Register(opens=step)) is not None
    assert drawn(Register(opens=step + 1)) is None, "too soon after the last one"
    assert drawn(Register((), (one,))) is None, "somebody is on probation"
    assert drawn(Register((), (one,)), returned=((NEW, 1),)) is not None, "a member is not"
    both = Register((), (one, newcomer(sound(OTHER))))
    assert drawn(both, returned=((NEW, 1), (OTHER, 2))) is None, "no id is free"
    barred = tuple((bytes([0, place // 256, place % 256]), None, None) for place in range(MOST_OUT))
    assert drawn(Register((), (), barred)) is None and drawn(Register((), (), barred[1:])) is not None


# --- what becomes of it -------------------------------------------------------------------------------------------


def carrying(carrier: int) -> tuple[Attempt, State]:
    """An attempt in which one member's REPORT brings the newcomer."""
    stage = set_up(RUN)
    attempt = run_until(stage, 0, 2, "CLOSE").attempt
    changed(attempt, Report, carrier, joins=(encode(sound()),))
    return attempt, attempt.state


def test_it_enters_with_its_id_and_key_and_the_door_shuts() -> None:
    attempt, state = carrying(2)
    assert introduced(attempt) == (2, sound())
    after = entered(attempt, state, 3)
    assert after.summary.register == Register((), (newcomer(sound(), 3),), (), opens=7)
    assert candidates(after.summary) == (NEW,)
    assert after.roster.keys[NEW] == sound().key and after.roster.keys[OTHER] == b""
    assert (after.roster.active, after.roster.digest) == (state.roster.active, state.roster.digest), "not yet a member"


def test_who_had_the_id_before_has_not_used_up_what_a_newcomer_is_told() -> None:
    attempt, state = carrying(2)
    after, out = entered(attempt, state, 3).with_facts(step=3), list[Output]()
    server, asks = StateSyncServer(attempt.settings, attempt.tools, out), TranscriptRequested(NEW, 0, 0)
    while Dropped(NEW, "asked_too_often") not in out:
        assert server.hears(asks, after, attempt)
    out.clear()
    server.teach(after, attempt)
    server.hears(asks, after, attempt)
    assert out == [SendSnapshot((NEW,), snapshot_of(after, None))] * 2


@pytest.mark.parametrize("out", [2, NEW % 6], ids=["who carries it", "who vouches for it"])
def test_a_member_that_this_step_bans_brings_nobody_in(out: int) -> None:
    attempt, state = carrying(2)
    without = replace(state, roster=state.roster.without((out,)))
    assert entered(attempt, without, 3) is without
    assert entered(attempt_of(), state, 3) is state, "nobody is introduced"


@pytest.mark.parametrize(
    ("correct", "wrong", "members", "step", "kept", "out"),
    [
        ((), (), (), 5 + PATIENCE, [5], []),
        ((), (), (), 6 + PATIENCE, [], [1]),
        ((NEW,), (), (), 6 + PATIENCE, [6 + PATIENCE], []),
        ((), (NEW,), (), 6, [], [None]),
        ((), (), (NEW,), 99, [5], []),
    ],
    ids=["patience", "silent for too long", "correct", "wrong", "a member"],
)
def test_a_probation_goes_on_or_ends(
    correct: tuple[int, ...],
    wrong: tuple[int, ...],
    members: tuple[int, ...],
    step: int,
    kept: list[int],
    out: list[int | None],
) -> None:
    one = newcomer(sound(), 5)
    before = Register(((3, 1), (NEW, 1)), (one,), (), 9)
    after = revised(before, step, correct, wrong, members)
    assert [each.heard for each in after.newcomers] == kept
    assert after.out == tuple((one.key, one.sponsor, least) for least in out)
    assert after.probation == (((3, 1), (NEW, 1)) if kept else ((3, 1),)) and after.opens == 9


def test_the_bytes_stay_those_of_a_closed_roster_until_somebody_enters() -> None:
    state = attempt_of().state
    counted = registered(state, Register(((5, 2),)))
    assert counted.summary.admissions == ((5, 2),)
    assert encode(counted.summary) == encode(structs.replace(state.summary, admissions=((5, 2),)))
    assert isinstance(registered(state, Register((), (newcomer(sound()),))).summary.admissions, Register)
