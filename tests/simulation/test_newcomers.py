"""Newcomers: who comes, who is kept out, and what members that bring them in by the wrong way get for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import pytest
from msgspec.structs import replace

from btard.node.adversary.attacks.equivocate import other_version
from btard.node.build import Node
from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.drivers.simulator import Observed
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import (
    Banned,
    Committed,
    DeadlinePassed,
    Endorse,
    Entered,
    Expelled,
    Finished,
    Forward,
    Halted,
    Input,
    Lapsed,
    Output,
    PhaseEntered,
    Probed,
    Returned,
    Say,
    SetTimer,
    Suspected,
)
from btard.node.protocol.evidence.verifier import UnprovenError, Verifier
from btard.node.protocol.state.state import Register, Summary
from btard.node.protocol.state_sync.admission import PATIENCE
from btard.node.protocol.wire.messages import Body, Close, Commit, Outcome, Phase, Signed, Suspect, View
from tests.simulation.checkers import PROMISES, Agreement, EvidenceHolds, Liveness
from tests.simulation.newcomers import Newcomers, compose
from tests.simulation.stage import Stage, play, set_up

NEW, OTHER = 6, 7
RUN = RunConfig(
    peers=6,
    task=Plugin("quadratic", {"dimension": 24}),
    steps=20,
    batch_size=1,
    probation=2,
    roster="sponsored",
    members=8,
    admit_every=4,
    delivery_bound_s=0.5,
    gradient_bound_s=1.0,
)
LINKS = LinkModel(delay_s=0.01, jitter_s=0.01)
ALONE = {NEW: 1}


def played(
    newcomers: Mapping[int, int] = ALONE, roles: Mapping[int, Role] | None = None, **options: object
) -> tuple[Stage, list[Observed]]:
    """A run that is held to every promise, and what its nodes reported."""
    stage = set_up(replace(RUN, **options), roles, 0, LINKS, newcomers=newcomers)
    return stage, play(stage, (*PROMISES, Newcomers))


def told(seen: list[Observed], kind: type, node: int = 0) -> list[object]:
    return [each.output for each in seen if each.node == node and isinstance(each.output, kind)]


def hostile(then: str) -> dict[int, Role]:
    return {NEW: Role((Plugin("rejoin", {"then": then}),), Schedule(start=0), (NEW,))}


# --- who comes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("roster", ["sponsored", "open"])
def test_two_newcomers_serve_probation_one_after_the_other_and_contribute(roster: str) -> None:
    stage, seen = played({NEW: 1, OTHER: 1}, roster=roster)
    (first, second), (one, two) = told(seen, Entered), told(seen, Returned)
    assert isinstance(first, Entered) and isinstance(second, Entered)
    assert isinstance(one, Returned) and isinstance(two, Returned)
    assert {one.peer, two.peer} == {NEW, OTHER} and (one.peer, two.peer) == (first.peer, second.peer)
    assert first.step < one.step < second.step < two.step and second.step >= first.step + RUN.admit_every
    assert [each.sponsor for each in (first, second)] == [
        None if roster == "open" else each.peer % 6 for each in (first, second)
    ]
    last = [each for each in told(seen, Committed) if isinstance(each, Committed) and each.contributors][-1]
    assert last.active == last.contributors == tuple(range(8)), "everyone contributes where newcomers come"
    roster_now = stage.simulation.nodes[0].peer.state.roster
    assert (roster_now.faults, roster_now.genesis_faults) == (3, 3), "f follows the roster"
    assert {each.node for each in seen if isinstance(each.output, Finished)} == set(range(8))
    counted = [each.correct for each in told(seen, Probed) if isinstance(each, Probed) and each.peer == one.peer]
    assert counted == [1, 2]


def test_a_run_with_room_is_the_same_in_every_bit_until_somebody_comes() -> None:
    """But for its name, which every signature covers: the genesis says that there is room."""
    closed = set_up(replace(RUN, roster="closed", members=0, validators_contribute="on"), None, 0, LINKS)
    plain = [each.parameter_digest for each in told(play(closed, PROMISES), Committed) if isinstance(each, Committed)]
    _, seen = played({})
    assert [each.parameter_digest for each in told(seen, Committed) if isinstance(each, Committed)] == plain


def test_nobody_comes_to_a_full_roster() -> None:
    _, seen = played({NEW: 1, OTHER: 3}, members=8, admit_every=12, steps=12)
    assert len(told(seen, Entered)) == 1, "the second was too soon after the first"


# --- who is kept out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("then", "lapsed", "back", "banned", "end"),
    [
        ("gradient", ["probation"], 0, [], "probation"),
        ("equivocate", ["probation"], 0, [], "probation"),
        ("flood", [], 1, [], None),
        ("later", [], 1, ["gradient"], "gradient"),
        ("silence", [], 1, ["silent"], "silent"),
        ("nothing", [], 1, [], None),
    ],
)
def test_a_hostile_newcomer(then: str, lapsed: list[str], back: int, banned: list[str], end: str | None) -> None:
    """Wrong on probation it is never a member and its key is barred; later it is banned as any member is."""
    stage, seen = played(roles=hostile(then))
    assert [each.reason for each in told(seen, Lapsed) if isinstance(each, Lapsed)] == lapsed
    assert len(told(seen, Returned)) == back
    assert [each.reason for each in told(seen, Banned) if isinstance(each, Banned)] == banned
    assert [each.reason for each in told(seen, Expelled, NEW) if isinstance(each, Expelled)] == [end] * bool(end)
    out = stage.simulation.nodes[0].peer.state.summary.register.out
    assert [(key, least) for key, _, least in out] == [(stage.keys[NEW], None)] * bool(lapsed)


def test_a_newcomer_that_never_computes_makes_room_again() -> None:
    """Its application is still here, and lets it in no more; another one's turn comes."""
    stage = set_up(replace(RUN, steps=40, admit_every=1), None, 0, LINKS, newcomers={NEW: 0, OTHER: 6})
    stage.simulation.stop(NEW)
    seen = play(stage, (*PROMISES, Newcomers))
    lapses = [each for each in told(seen, Lapsed) if isinstance(each, Lapsed)]
    assert [(each.peer, each.reason) for each in lapses] == [(NEW, "silent")]
    entries = [each.step for each in told(seen, Entered) if isinstance(each, Entered) and each.peer == NEW]
    assert entries == [lapses[0].step - PATIENCE - 1]
    assert {each.peer for each in told(seen, Returned) if isinstance(each, Returned)} == {OTHER}


# --- members that bring somebody in by the wrong way ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "reasons"),
    [
        ("undrawn", {"malformed"}),
        ("forged", {"malformed"}),
        ("twice", {"malformed"}),
        ("differently", {"equivocation"}),
    ],
)
def test_a_member_that_introduces_by_the_wrong_way_is_banned(what: str, reasons: set[str]) -> None:
    """And the newcomer comes all the same, where every peer can see it."""
    attackers = (1, 4)
    plugin = (Plugin("introduce", {"what": what}),)
    roles = {peer: Role(plugin, Schedule(start=1), attackers) for peer in attackers}
    for seed in range(8):
        stage = set_up(replace(RUN, data_seed=seed), roles, seed, LINKS, newcomers={NEW: 1})
        seen = play(stage, (*PROMISES, Newcomers))
        bans = [each for each in told(seen, Banned) if isinstance(each, Banned)]
        assert {each.reason for each in bans} <= reasons and {each.peer for each in bans} <= set(attackers)
        assert len(told(seen, Returned)) == 1
        if bans:
            return
    raise AssertionError("no attacker was ever drawn")


def test_a_founder_that_is_banned_in_the_very_step_brings_nobody_in() -> None:
    """The newcomer's sponsor is found out in every step from 1 on: whatever step introduces it, it vouches no more."""
    sponsor = NEW % RUN.peers
    roles = {sponsor: Role((Plugin("malformed", {"phase": "REPORT"}),), Schedule(start=1), (sponsor,))}
    _, seen = played({NEW: 0}, roles)
    assert [each.peer for each in told(seen, Banned) if isinstance(each, Banned)] == [sponsor]
    assert not told(seen, Returned)


@pytest.mark.parametrize("phase", ["REPORT", "CLOSE"])
def test_a_member_dies_in_the_very_step_that_lets_a_newcomer_in(phase: str) -> None:
    """A dispute of the step before its first: the newcomer has no part in it, and all go on from one state."""
    _, calm = played()
    (back,) = {each.step for each in told(calm, Returned) if isinstance(each, Returned)}
    roles = {4: Role((Plugin("crash", {"phase": phase}),), Schedule(start=back), (4,))}
    _, seen = played(roles=roles)
    assert [(each.peer, each.reason) for each in told(seen, Banned) if isinstance(each, Banned)] == [(4, "silent")]
    assert len(told(seen, Returned)) == 1
    assert {each.node for each in seen if isinstance(each.output, Finished)} == {0, 1, 2, 3, 5, NEW}


# --- liars around a newcomer's first step --------------------------------------------------------------------------

LIARS, STUCK, FIRST = (3, 4), 2, 5
"""Of five founders, the one that ends the step before last, and the newcomer: an honest majority of one."""
FIVE = replace(RUN, peers=5, roster="open", members=7, steps=14, gradient_bound_s=0.1)


@dataclass(frozen=True, slots=True)
class Scheme:
    """What both liars do; they sign no OUTCOME, pass nothing on, and say nothing more once the newcomer is in.

    Args:
        keep: the first of them has kept its CLOSE of the step before from one peer, and tells that one another COMMIT
            of that step; else it says its COMMIT in this step, and another one.
        trip_d: when it tells the other one, in delivery bounds.
        suspect, suspect_d: whom both suspect in COMMIT, and when.
    """

    keep: bool
    trip_d: float
    suspect: int | None = None
    suspect_d: float = 7.0


class Liar:
    """A machine between two filters, with a clock."""

    def __init__(self, node: Node, first: int, scheme: Scheme) -> None:
        self._inner, self._peer, self._first, self._scheme = node.machine, node.peer, first, scheme
        self._there, self._commits = False, dict[int, Body]()

    def handle(self, event: Input, /) -> list[Output]:
        """See Machine."""
        honest, scheme = (0, 1, STUCK, FIRST), self._scheme
        match event:
            case DeadlinePassed(name="trip"):  # of the step before, or of this one
                other = other_version(self._commits[self._first - scheme.keep])
                assert other is not None
                return [Say((STUCK,) if scheme.keep else honest, other)]
            case DeadlinePassed(name="suspect") if self._peer.attempt is not None and scheme.suspect is not None:
                return [Say(honest, Suspect(self._peer.attempt.slot(Phase.SUSPECT), (), Phase.COMMIT, scheme.suspect))]
        return [each for output in self._inner.handle(event) for each in self._filtered(output)]

    def _filtered(self, output: Output) -> Iterator[Output]:
        scheme, leads = self._scheme, self._peer.me == min(LIARS)
        match output:
            case PhaseEntered(step=self._first, attempt=0, phase="COMMIT"):
                self._there = True
                if leads:
                    yield SetTimer("trip", FIVE.delivery_bound_s * scheme.trip_d)
                yield SetTimer("suspect", FIVE.delivery_bound_s * scheme.suspect_d)
            case Say(to=to, body=Close() as body) if leads and scheme.keep and body.slot.step == self._first - 1:
                yield Say(tuple(peer for peer in to if peer != STUCK), body)
                return
            case Say(body=Outcome() | View()) | Forward() | Endorse() if self._there:
                return
            case Say(body=body) if (body.slot.step, body.slot.attempt) == (self._first, 0):
                if scheme.keep or not (leads and isinstance(body, Commit)):
                    output = Say((self._peer.me,), body)
        if isinstance(output, Say) and isinstance(output.body, Commit):
            self._commits[output.body.slot.step] = output.body
        yield output


@pytest.mark.parametrize(
    "scheme",
    [
        pytest.param(Scheme(False, 0.1), id="the others begin a dispute long after it"),
        pytest.param(Scheme(True, 1.9, STUCK, 7.5), id="one is held up in the step before"),
        pytest.param(Scheme(True, 0.5, FIRST), id="one does not know it yet when it speaks"),
    ],
)
def test_liars_make_nothing_of_a_newcomers_first_step(scheme: Scheme) -> None:
    """Four of six are honest, the newcomer among them: nobody halts, and nobody but the liars is removed."""
    calm = play(set_up(FIVE, None, 0, LINKS, newcomers={FIRST: 1}), ())
    (back,) = [each for each in told(calm, Returned) if isinstance(each, Returned)]
    roles = dict.fromkeys(LIARS, Role((Plugin("crash"),), Schedule(start=1000), LIARS))
    stage = set_up(FIVE, roles, 0, LINKS, newcomers={FIRST: 1})
    for liar in LIARS:
        node = stage.simulation.nodes[liar]
        stage.simulation.nodes[liar] = dataclasses.replace(node, machine=Liar(node, back.step + 1, scheme))
    seen = play(stage, (Agreement, Newcomers))
    blamed = {
        each.output.peer for each in seen if each.node not in LIARS and isinstance(each.output, Suspected | Banned)
    }
    assert blamed <= set(LIARS)
    assert {each.node for each in seen if isinstance(each.output, Finished)} == {0, 1, STUCK, FIRST}


# --- from the genesis on, by certificates --------------------------------------------------------------------------


def test_a_third_party_follows_an_admission_by_its_certificate() -> None:
    stage, seen = played(roles=hostile("later"))
    (back,), (ban,), last = told(seen, Returned), told(seen, Banned), told(seen, Committed)[-1]
    assert isinstance(back, Returned) and isinstance(ban, Banned) and isinstance(last, Committed)
    verifier = Verifier(stage.ground())
    with pytest.raises(UnprovenError):
        verifier.check(ban.evidence)  # the roster of that attempt is not known yet
    assert verifier.readmit(back.evidence) == ((NEW, back.step + 1),)
    verifier.settle([verifier.check(ban.evidence).ban])
    assert verifier.check_final(last.certificate, last.parameters_D).roster == tuple(range(6))


def test_a_light_client_believes_no_newcomers_of_a_states_own() -> None:
    """A state may name newcomers as it likes: their signatures do not count towards the majority of those known."""
    stage, seen = played()
    (back,), last = told(seen, Returned), told(seen, Committed)[-1]
    assert isinstance(back, Returned) and isinstance(last, Committed)
    verifier = Verifier(stage.ground())
    assert verifier.take_word(last.certificate)[1] == ((NEW, back.step + 1),)
    summary, _ = msgspec.msgpack.decode(last.certificate, type=tuple[Summary, tuple[Signed, ...]])
    assert isinstance(summary.admissions, Register)
    other = replace(summary.admissions.newcomers[0], key=stage.keys[0])
    forged = replace(summary, admissions=replace(summary.admissions, newcomers=(other,)))
    for data in (msgspec.msgpack.encode((forged, ())), msgspec.msgpack.encode((forged, _))):
        with pytest.raises(UnprovenError):
            Verifier(stage.ground()).take_word(data)


# --- whatever else goes on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_promises_hold_among_newcomers(seed: int) -> None:
    play(stage := compose(seed), (*PROMISES, Newcomers))
    assert stage.run.roster != "closed"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 60))
def test_promises_hold_among_newcomers_in_more_runs(seed: int) -> None:
    play(compose(seed), (*PROMISES, Newcomers))


def test_the_checker_of_newcomers_can_fail() -> None:
    """Two worlds that are no run's: it is the checkers that say so."""
    stage, seen = played(roles=hostile("later"))
    blind = Stage(stage.run, {}, stage.protocol_seed, stage.task, stage.simulation)
    with pytest.raises(AssertionError, match="honest newcomer 6"):
        for each in seen:
            Newcomers(blind).see(each)
    assert not any(isinstance(each.output, Suspected | Halted) for each in seen)
    assert {Agreement, EvidenceHolds, Liveness} <= set(PROMISES)
