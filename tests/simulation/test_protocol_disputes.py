"""More rows of PROTOCOL section 9, on the simulator: lies inside disputes, false charges, validators, old and foreign
messages, and what is no message at all; tests/simulation/attacked.py checks the promises of every run."""

from __future__ import annotations

import pytest

from btard.node.adversary.registry import ATTACKS
from btard.node.config import Plugin, Schedule
from btard.node.netem.links import LinkModel
from tests.simulation.attacked import START, configuration, play

BOTH = (4, 5)
EARLY = Schedule(start=1)


def plugin(name: str, **parameters: object) -> Plugin:
    return Plugin(name, parameters)


def of(reason: str, step: int = START, peers: tuple[int, ...] = (5,)) -> list[tuple[int, int, str]]:
    return [(step, peer, reason) for peer in peers]


# --- inside a dispute ---------------------------------------------------------------------------------------------

TRIGGERS = [
    (plugin("equivocate", phase="CHECKSUMS"), {"equivocation"}),
    (plugin("false_prefix"), {"prefix"}),
    (plugin("malformed"), {"malformed"}),
    (plugin("stall", phase="REVEAL"), {"silent", "incomplete"}),
]


@pytest.mark.slow
@pytest.mark.parametrize("to", ["one", "half"])
@pytest.mark.parametrize("before_s", [0.005, 0.02, 0.1])
@pytest.mark.parametrize(("trigger", "reasons"), TRIGGERS, ids=[row[0].name for row in TRIGGERS])
def test_views_at_the_last_instant_of_their_round_make_equal_unions(
    trigger: Plugin, reasons: set[str], before_s: float, to: str
) -> None:
    story = play([trigger, plugin("late_view", to=to, before_s=before_s)], BOTH)
    assert {peer for _, peer, _ in story.removed} == set(BOTH)
    # Whose own view came too late may have gone by what it would have shown: it is gone.
    assert {reason for _, _, reason in story.removed} <= reasons | ({"silent"} if reasons == {"prefix"} else set())
    assert {step for step, _, _ in story.removed} == {START}


@pytest.mark.parametrize("before_s", [0.005, 0.02, 0.1])
def test_a_certified_attempt_is_disputed_with_late_views(before_s: float) -> None:
    """CLOSEs that differ, two steps running: the first evidence convicts in the second, disputed, step."""
    both = Schedule(start=START, stop=START + 2)
    story = play([plugin("equivocate", phase="CLOSE"), plugin("late_view", before_s=before_s)], BOTH, schedule=both)
    assert story.removed == of("equivocation", START + 1, BOTH)
    assert not story.voided


WITHIN = [
    ("equivocate", "VIEW", True),
    ("equivocate", "OUTCOME", False),
    ("stall", "VIEW", False),
    ("stall", "OUTCOME", False),
    ("last_instant", "VIEW", False),
    ("last_instant", "OUTCOME", False),
]


@pytest.mark.slow
@pytest.mark.parametrize("to", ["one", "half"])
@pytest.mark.parametrize(("name", "phase", "removed"), WITHIN, ids=[f"{row[0]}-{row[1]}" for row in WITHIN])
def test_lies_inside_a_dispute_that_an_accomplice_started(name: str, phase: str, removed: bool, to: str) -> None:
    attacks = {4: [plugin("equivocate", phase="CHECKSUMS")], 5: [plugin(name, phase=phase, to=to)]}
    story = play(attacks, BOTH)
    assert story.removed == of("equivocation", START, BOTH if removed else (4,))
    assert story.voided == {(START, 0)}


@pytest.mark.parametrize(("how", "removed"), [("suspect", (4,)), ("view", BOTH), ("two_views", BOTH),
                                              ("outcome", (4,))])  # fmt: skip
def test_a_premature_view_is_an_equivocation_once_there_is_a_dispute(how: str, removed: tuple[int, ...]) -> None:
    attacks = {4: [plugin("equivocate", phase="CHECKSUMS")], 5: [plugin("spurious_dispute", how=how, phase="COMMIT")]}
    assert play(attacks, BOTH).removed == of("equivocation", START, removed)


# --- at the end of an attempt -------------------------------------------------------------------------------------


def test_guilt_within_an_attempt_whose_close_is_silent_counts_once() -> None:
    """The value that stands bans the peer; the dispute about its CLOSE does not remove it again."""
    attacks = [plugin("nan"), plugin("stall", phase="CLOSE")]
    story = play(attacks, schedule=Schedule(start=START))
    assert story.removed == of("unusable")


def test_a_last_certificate_wins_over_a_dispute_that_others_begin() -> None:
    """One peer gets the last CLOSE of the run in time, commits and leaves; the others suspect its sender already."""
    run = configuration(peers=7, steps=3)
    attacks = [plugin("last_instant", phase="CLOSE", to="all_but_one", before_s=0.005)]
    for seed in range(12):
        links = LinkModel(delay_s=0.24, jitter_s=0.25, seed=seed)
        play(attacks, (3,), schedule=Schedule(start=3), run=run, links=links, seed=seed)


def test_an_eliminated_peer_learns_of_it_though_the_last_close_never_reached_it() -> None:
    attacks = [plugin("complain"), plugin("close_to_one", to="two")]
    for seed in range(6):
        story = play(attacks, schedule=EARLY, run=configuration(steps=9), honest_lost=1, seed=seed)
        assert {reason for _, _, reason in story.removed} == {"eliminated"}


@pytest.mark.slow
def test_an_eliminated_peer_that_alone_holds_the_certificate_passes_it_on() -> None:
    """Found by a random adversary: it committed and left, and three of six could not agree on an OUTCOME."""
    attacks = {4: [plugin("complain", apart=True)], 5: [plugin("close_to_one")]}
    for seed in range(6):
        story = play(attacks, BOTH, schedule=EARLY, run=configuration(steps=9), honest_lost=1, seed=seed)
        assert {peer for _, peer, reason in story.removed if reason == "eliminated"} == {4, *story.lost}


# --- false charges ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["bit", "aggregate", "checksum"])
def test_a_false_accusation_bans_the_accuser_in_its_step(how: str) -> None:
    story = play([plugin("false_accuse", how=how)])
    assert story.removed == of("false_accusation")
    assert not story.voided


def test_a_false_accusation_is_judged_though_its_part_is_recomputed_anyway() -> None:
    """Found by a random adversary, where the rule has its parts audited."""
    run = configuration(rule=Plugin("median"), audit_share=1.0)
    assert play([plugin("false_accuse", how="checksum")], run=run).removed == of("false_accusation")


def test_a_false_verdict_bans_the_validator() -> None:
    story = play([plugin("false_accuse", how="verdict")], schedule=EARLY, run=configuration(steps=16))
    ((step, peer, reason),) = story.removed
    assert (peer, reason) == (5, "false_accusation")
    assert story.attacked[5] == [step], "at its first turn as a validator"


COMPLAINTS = [("all", 2, [(5, "edges")]), ("another", 8, [(5, "edges")])]


@pytest.mark.parametrize(("about", "step", "removed"), COMPLAINTS, ids=[row[0] for row in COMPLAINTS])
def test_complaints_about_many_break_the_complainer_off(about: str, step: int, removed: list[tuple[int, str]]) -> None:
    story = play([plugin("complain", about=about)], schedule=EARLY, run=configuration(steps=12))
    assert [row[1:] for row in story.removed] == removed
    assert story.removed[0][0] == step


@pytest.mark.parametrize("apart", [False, True])
def test_complaints_about_one_cost_at_most_one_honest_peer_each(apart: bool) -> None:
    story = play([plugin("complain", apart=apart)], BOTH, schedule=EARLY, run=configuration(steps=14), honest_lost=2)
    assert {reason for _, _, reason in story.removed} == {"eliminated"}
    assert len(story.lost) == len(story.removed) // 2


# --- validators ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "reason"), [("verdict", "malformed"), ("report", "silent")])
def test_a_silent_validator_goes_at_its_first_turn(how: str, reason: str) -> None:
    story = play([plugin("silent_validator", how=how)], schedule=EARLY, run=configuration(steps=16))
    ((step, peer, found),) = story.removed
    assert (peer, found) == (5, reason)
    assert story.attacked[5][0] == step


def test_an_accomplice_that_looks_away_only_delays() -> None:
    """lenient_validator joins every role: 4 and 5 never accuse each other, a later draw finds both."""
    story = play([plugin("zero")], BOTH, schedule=EARLY, run=configuration(steps=40))
    assert {row[1:] for row in story.removed} == {(4, "gradient"), (5, "gradient")}


def test_the_verdict_of_a_removed_validator_passes_to_the_next() -> None:
    """r does not depend on gradients, so an honest run tells in which step 4 will validate 5."""
    for seed in range(40):
        honest = play([], (), seed=seed, run=configuration(steps=8))
        turns = [step for step, pairs in honest.validators.items() if pairs.get(4) == 5]
        if turns:
            break
    step = turns[0]
    when = {4: Schedule(start=step, stop=step + 1), 5: Schedule(start=step - 1, stop=step)}
    # Peer 5 attacks one step earlier only: in this one it would pass on what 4 tells it.
    attacks = {4: [plugin("stall", phase="COMMIT", to="@0@1@2@3@5")], 5: [plugin("zero")]}
    story = play(attacks, BOTH, seed=seed, schedule=when, run=configuration(steps=8))
    assert story.removed == [(step, 4, "silent"), (step, 5, "gradient")]
    (validator,) = story.validators[step]
    assert validator not in BOTH


# --- old, foreign and impossible messages -------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "removed"), [("randomness", of("malformed")), ("parts", of("withheld"))])
def test_a_copied_commitment_is_useless(what: str, removed: list[tuple[int, int, str]]) -> None:
    assert play([plugin("copy_commitment", what=what)]).removed == removed


REPLAYS = [("own", "late"), ("others", "late"), ("run", "foreign_run"), ("roster", "wrong_slot"), ("step", "too_early"),
           ("attempt", "too_early"), ("bulk", "unexpected_bulk"), ("spoof", "unexpected_bulk")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("what", "counted"), REPLAYS, ids=[row[0] for row in REPLAYS])
def test_replays_are_dropped_by_slot_and_counted(what: str, counted: str) -> None:
    story = play([plugin("replay", what=what)], schedule=Schedule(start=START))
    assert story.removed == []
    assert story.dropped[counted] > 0
    assert not story.disputes


HOSTILE = [("type", "malformed"), ("encoding", "malformed"), ("oversized", "oversized"), ("garbage", "malformed"),
           ("signature", "bad_signature"), ("foreign", "bad_signature")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("how", "counted"), HOSTILE, ids=[row[0] for row in HOSTILE])
@pytest.mark.parametrize("instead", [False, True])
def test_what_is_no_message_is_dropped_and_proves_nothing(how: str, counted: str, instead: bool) -> None:
    story = play([plugin("malformed", how=how, instead=instead)])
    assert story.removed == (of("silent") if instead else [])
    assert story.dropped[counted] > 0


@pytest.mark.parametrize("phase", ["COMMIT", "AGG", "REVEAL", "CHECKSUMS", "REPORT", "CLOSE"])
def test_a_signed_message_of_the_wrong_shape_is_evidence(phase: str) -> None:
    assert play([plugin("malformed", phase=phase)]).removed == of("malformed")


@pytest.mark.parametrize("attackers", [(5,), BOTH], ids=["one", "two"])
@pytest.mark.parametrize(("name", "parameters"), [("nan", {}), ("infinite", {}), ("infinite", {"value": -1e30})])
def test_entries_that_nobody_can_compute_with_are_proof_once_published(
    name: str, parameters: dict[str, object], attackers: tuple[int, ...]
) -> None:
    story = play([plugin(name, **parameters)], attackers)
    assert story.removed == of("unusable", START, attackers)
    assert not story.disputes


@pytest.mark.parametrize("phase", ["COMMIT", "AGG", "CLOSE"])
def test_a_crashed_node_is_gone(phase: str) -> None:
    story = play([plugin("crash", phase=phase)], schedule=Schedule(start=START))
    assert story.removed == of("silent")


@pytest.mark.parametrize(("phase", "to"), [("COMMIT", "one"), ("AGG", "half"), ("REPORT", "one"), ("CLOSE", "one")])
def test_a_crash_between_signing_and_sending_convicts_nobody(phase: str, to: str) -> None:
    """Who got the last message passes it on, nobody holds two of one slot, and the rest is silence."""
    story = play([plugin("crash", phase=phase, to=to)], schedule=Schedule(start=START))
    assert {row[1:] for row in story.removed} == {(5, "silent")}


# --- all of them --------------------------------------------------------------------------------------------------

EXAMPLES = [(entry.name, example) for entry in ATTACKS for example in entry.examples
            if entry.facts["acts_on"] in ("outputs", "node", "messages")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parameters"), EXAMPLES, ids=[f"{row[0]}-{row[1]}" for row in EXAMPLES])
def test_every_example_by_two_attackers_keeps_the_promises(name: str, parameters: dict[str, object]) -> None:
    play([Plugin(name, parameters)], BOTH, schedule=Schedule(start=2), run=configuration(steps=9), honest_lost=2)
