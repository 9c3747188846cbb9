"""The table of PROTOCOL section 9, row by row, on the simulator: who is removed, for what and when; `play` holds every
run to the promises: equal states after every step, no honest peer removed, the run finishes, evidence verifies."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from btard.node.config import Plugin, Schedule
from tests.simulation.attacked import START, Story, configuration, play

BOTH = (4, 5)
ALWAYS = Schedule(start=START)


def plugin(name: str, **parameters: object) -> Plugin:
    return Plugin(name, parameters)


def of(reason: str, step: int = START, peers: tuple[int, ...] = (5,)) -> list[tuple[int, int, str]]:
    return [(step, peer, reason) for peer in peers]


def in_one_dispute(story: Story, step: int = START) -> bool:
    return story.disputes == story.voided == {(step, 0)}


# --- two messages for one slot; a false prefix --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("to", ["one", "half"])
@pytest.mark.parametrize("phase", ["COMMIT", "AGG", "REVEAL", "CHECKSUMS", "REPORT"])
def test_two_messages_of_a_phase_are_proof(phase: str, to: str) -> None:
    story = play([plugin("equivocate", phase=phase, to=to)])
    assert story.removed == of("equivocation")
    assert in_one_dispute(story)


@pytest.mark.parametrize("to", ["one", "half"])
def test_two_closes_are_proof_in_the_next_report(to: str) -> None:
    """Some hold a certificate: it wins, and the evidence waits one step."""
    story = play([plugin("equivocate", phase="CLOSE", to=to)])
    assert story.removed == of("equivocation", START + 1)
    assert story.disputes == {(START, 0)}
    assert not story.voided


@pytest.mark.slow
@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("what", ["report", "fat", "close", "history", "strayed_history"])
def test_whoever_says_something_else_about_a_step_that_is_over_does_it_once(what: str, hold: bool) -> None:
    """The certificate wins the dispute; the two signatures that started it fit into any REPORT, however large their
    messages are, and act at the end of the step whose REPORTs carry them."""
    story = play([plugin("afterthought", what=what, hold=hold)], schedule=ALWAYS, run=configuration(steps=12))
    (ban,) = story.removed
    assert ban in [(step, 5, "equivocation") for step in (START + 1, START + 2)]
    assert len(story.disputes) <= 2
    assert not story.voided


def test_a_message_of_a_phase_that_a_step_did_not_have_is_nobodys_business() -> None:
    story = play([plugin("afterthought", what="stray", hold=False)], schedule=ALWAYS, run=configuration(steps=8))
    assert not story.removed
    assert not story.disputes
    assert not story.suspected


OPTIONAL = [("HELD", "withhold_part"), ("AGG2", "complain"), ("HAVE", "lie_checksum")]


@pytest.mark.parametrize(("phase", "opener"), OPTIONAL, ids=[row[0] for row in OPTIONAL])
def test_two_messages_of_an_optional_phase_are_proof(phase: str, opener: str) -> None:
    """Peer 4 makes the phase happen; the one that equivocates is banned, 4's own fault is judged in the retry."""
    attacks = {4: [plugin(opener)], 5: [plugin("equivocate", phase=phase)]}
    if phase == "AGG2":
        attacks = {5: [plugin(opener), *attacks[5]]}
    story = play(attacks, tuple(attacks))
    assert (START, 5, "equivocation") in story.removed
    assert (START, 0) in story.disputes


@pytest.mark.parametrize("phase", ["COMMIT", "AGG", "REVEAL", "CHECKSUMS", "REPORT", "CLOSE"])
def test_a_false_prefix_to_all_is_banned(phase: str) -> None:
    story = play([plugin("false_prefix", phase=phase)])
    assert story.removed == of("prefix")
    assert in_one_dispute(story)


@pytest.mark.parametrize(("phase", "step"), [("AGG", START), ("CHECKSUMS", START), ("CLOSE", START + 1)])
def test_a_false_prefix_to_some_is_an_equivocation(phase: str, step: int) -> None:
    assert play([plugin("false_prefix", phase=phase, to="half")]).removed == of("equivocation", step)


def test_randomness_shown_differently_is_disputed_before_anyone_judges() -> None:
    story = play([plugin("equivocate", phase="COMMIT", to="@0@1")])
    assert story.removed == of("equivocation")
    reached = {phase for step, attempt, phase in story.phases if (step, attempt) == (START, 0)}
    assert reached <= {"COMMIT", "AGG", "REVEAL"}


# --- parts --------------------------------------------------------------------------------------------------------

PARTS = [
    ("to one aggregator, then published", {"to": "one"}, []),
    ("to all, then published", {"to": "all"}, []),
    ("to one, never published", {"to": "one", "again": True}, of("withheld")),
    ("to all, never published", {"to": "all", "again": True}, of("withheld")),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wrong_part", "withhold_part"])
@pytest.mark.parametrize(("parameters", "removed"), [row[1:] for row in PARTS], ids=[row[0] for row in PARTS])
def test_a_wrong_or_missing_part_is_published_or_its_sender_removed(
    name: str, parameters: Mapping[str, object], removed: list[tuple[int, int, str]]
) -> None:
    story = play([plugin(name, **parameters)])
    assert story.removed == removed
    assert (START, 0, "HELD") in story.phases
    assert bool(story.voided) == bool(parameters.get("again"))
    assert not story.disputes


@pytest.mark.parametrize("name", ["wrong_part", "withhold_part"])
def test_parts_kept_from_all_in_a_second_step_cost_their_sender_its_place(name: str) -> None:
    story = play([plugin(name, to="all")], schedule=Schedule(start=START, stop=START + 2))
    assert story.removed == of("edges", START + 1)


@pytest.mark.parametrize(("to", "removed"), [("one", []), ("all_but_one", of("withheld"))])
def test_a_part_published_to_some(to: str, removed: list[tuple[int, int, str]]) -> None:
    """f + 1 HAVE bits decide: the others pull it, or its sender is removed."""
    assert play([plugin("withhold_part", to="one", again=True, published_to=to)]).removed == removed


def test_the_fourth_complaint_about_a_part_costs_both_sides() -> None:
    story = play([plugin("withhold_part", to="@0")], schedule=ALWAYS, run=configuration(steps=10), honest_lost=1)
    assert [row[1:] for row in story.removed] == [(0, "eliminated"), (5, "eliminated")]


# --- aggregates ---------------------------------------------------------------------------------------------------

AGGREGATES = [("shift_aggregate", {}), ("shift_aggregate", {"scale": 1e-3}), ("stale_aggregate", {})]


@pytest.mark.parametrize(("name", "parameters"), AGGREGATES, ids=[f"{row[0]}-{row[1]}" for row in AGGREGATES])
def test_a_wrong_aggregate_to_all_falls_to_v2_in_its_step(name: str, parameters: dict[str, object]) -> None:
    story = play([plugin(name, **parameters)])
    assert story.removed == of("aggregate")
    assert story.voided == {(START, 0)}
    assert (START, "averaging:V2") in story.charges


COVERED = [("own", {"checksum"}), ("accomplice", {"checksum", "false_report"})]


@pytest.mark.parametrize(("cover", "reasons"), COVERED, ids=[row[0] for row in COVERED])
def test_a_small_shift_covered_by_lies_falls_to_a_validator(cover: str, reasons: set[str]) -> None:
    attacks = [plugin("cancelling_shift", scale=0.05, relative=False, cover=cover)]
    story = play(attacks, BOTH, schedule=Schedule(start=1), run=configuration(steps=16))
    assert {peer for _, peer, _ in story.removed} == set(BOTH)
    assert {reason for _, _, reason in story.removed} == reasons
    assert not any(kind.startswith("averaging") for _, kind in story.charges), "V2 and V3 saw nothing"


def test_a_large_shift_covered_by_lies_falls_to_v3() -> None:
    late = Schedule(start=12, stop=13)
    attacks = [plugin("cancelling_shift", scale=30.0, relative=False, cover="accomplice")]
    story = play(attacks, BOTH, schedule=late, run=configuration(steps=14))
    assert story.removed == of("aggregate", 12, BOTH)
    assert (12, "averaging:V3") in story.charges


@pytest.mark.parametrize("variant", ["huge", "minus_huge", "nan", "infinite", "minus_infinite"])
def test_an_impossible_checksum_falls_to_v0(variant: str) -> None:
    story = play([plugin("lie_checksum", variant=variant)])
    assert story.removed == of("bounds")
    assert not story.voided


HELD_BACK = [("all", of("withheld")), ("all_but_one", of("withheld")), ("half", []), ("one", [])]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["withhold_aggregate", "split_aggregate"])
@pytest.mark.parametrize(("to", "removed"), HELD_BACK, ids=[row[0] for row in HELD_BACK])
def test_an_aggregate_is_pulled_or_its_aggregator_removed(
    name: str, to: str, removed: list[tuple[int, int, str]]
) -> None:
    """Once is no edge: a network may have been cut."""
    story = play([plugin(name, to=to)])
    assert story.removed == removed
    assert bool(story.voided) == (removed == of("withheld"))


def test_accomplices_that_claim_an_aggregate_make_nobody_believe_them() -> None:
    """f accomplices and one honest claimer: f + 1 HAVE bits, and the honest one serves everybody. The other three
    honest peers each have an edge to both the second time."""
    story = play([plugin("withhold_aggregate", to="all_but_one")], BOTH)
    assert story.removed == []
    story = play([plugin("withhold_aggregate", to="all_but_one")], BOTH, schedule=Schedule(start=START, stop=START + 2))
    assert story.removed == of("edges", START + 1, BOTH)
    assert not story.voided


@pytest.mark.parametrize("name", ["withhold_aggregate", "split_aggregate"])
def test_the_fourth_aggregate_that_one_peer_lacks_costs_both_sides(name: str) -> None:
    story = play([plugin(name, to="@0")], schedule=ALWAYS, run=configuration(steps=14), honest_lost=1)
    assert story.removed == [(START + 3, 0, "eliminated"), (START + 3, 5, "eliminated")]


@pytest.mark.parametrize("name", ["withhold_aggregate", "split_aggregate"])
def test_an_aggregate_kept_from_half_of_the_peers_is_an_edge_to_each_the_second_time(name: str) -> None:
    story = play([plugin(name, to="half")], schedule=Schedule(start=START, stop=START + 2))
    assert story.removed == of("edges", START + 1)


# --- reveals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attackers", [(5,), BOTH], ids=["one", "two"])
def test_a_reveal_withheld_ends_in_removal_and_a_new_attempt(attackers: tuple[int, ...]) -> None:
    story = play([plugin("withhold_reveal")], attackers)
    assert story.removed == of("silent", START, attackers)
    assert in_one_dispute(story)


def test_biased_retries_cost_an_attacker_each() -> None:
    story = play([plugin("withhold_reveal", biased=True)], BOTH, schedule=Schedule(), run=configuration(steps=4))
    assert not story.removed, "the schedule starts at step 100"
    story = play([plugin("withhold_reveal", biased=True)], BOTH, schedule=Schedule(start=1),
                 run=configuration(steps=16))  # fmt: skip
    assert {reason for _, _, reason in story.removed} == {"silent"}
    assert len(story.voided) == len(story.removed) == 2, "one attempt each"


# --- silence and the last instant ---------------------------------------------------------------------------------

PHASES = ["COMMIT", "AGG", "REVEAL", "CHECKSUMS", "REPORT"]


@pytest.mark.parametrize("phase", PHASES)
def test_silence_toward_all_is_removed_as_gone(phase: str) -> None:
    story = play([plugin("stall", phase=phase)])
    assert story.removed == of("silent")
    assert in_one_dispute(story)


def test_a_close_kept_from_all_leaves_the_value_standing() -> None:
    story = play([plugin("stall", phase="CLOSE"), plugin("stall", phase="VIEW")], schedule=ALWAYS)
    assert story.removed == of("silent")
    assert not story.voided


def test_a_close_kept_from_all_is_silence_and_the_value_stands() -> None:
    """Whoever alone has the certificate joins the dispute by a view that others have signed too, and shows it: it wins,
    and hides no silence."""
    story = play([plugin("stall", phase="CLOSE")], schedule=ALWAYS)
    assert story.removed == of("silent", START + 1)
    assert story.disputes == {(START, 0)}
    assert not story.voided


@pytest.mark.parametrize("phase", [*PHASES, "CLOSE"])
def test_silence_toward_f_peers_is_healed_by_forwarding(phase: str) -> None:
    story = play([plugin("stall", phase=phase, to="two")])
    assert story.removed == []
    assert not story.disputes


@pytest.mark.slow
@pytest.mark.parametrize("before_s", [0.01, 0.1])
@pytest.mark.parametrize("phase", PHASES)
def test_a_message_at_the_last_instant_to_one_splits_nobody(phase: str, before_s: float) -> None:
    story = play([plugin("last_instant", phase=phase, before_s=before_s)])
    assert story.removed == of("silent")


@pytest.mark.parametrize("phase", ["AGG", "CHECKSUMS"])
def test_two_attackers_that_take_different_favourites_split_nobody(phase: str) -> None:
    story = play([plugin("last_instant", phase=phase, apart=True)], BOTH)
    assert story.removed == of("silent", START, BOTH)


# --- the certificate wins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["one", "two"])
@pytest.mark.parametrize("attackers", [(5,), BOTH], ids=["one attacker", "two attackers"])
def test_a_close_to_few_commits_everywhere(attackers: tuple[int, ...], to: str) -> None:
    story = play([plugin("close_to_one", to=to)], attackers, schedule=ALWAYS)
    assert story.removed == []
    assert not story.voided


TRIGGERS = [plugin("equivocate", phase="COMMIT"), plugin("equivocate", phase="CHECKSUMS"), plugin("malformed"),
            plugin("false_prefix"), plugin("stall", phase="COMMIT"), plugin("stall", phase="REPORT")]  # fmt: skip


@pytest.mark.parametrize("trigger", TRIGGERS, ids=[f"{row.name}-{row.parameters}" for row in TRIGGERS])
def test_a_close_to_one_and_then_a_trigger(trigger: Plugin) -> None:
    """Peer 5 favours one peer with its CLOSE; in the next step peer 4 starts a dispute."""
    after = {4: Schedule(start=START + 1, stop=START + 2), 5: Schedule(start=START, stop=START + 2)}
    story = play({4: [trigger], 5: [plugin("close_to_one")]}, BOTH, schedule=after)
    assert {(step, peer) for step, peer, _ in story.removed} == {(START + 1, 4)}
    assert story.voided == {(START + 1, 0)}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["suspect", "view", "two_views", "outcome"])
@pytest.mark.parametrize("phase", ["COMMIT", "CLOSE"])
def test_spurious_disputes_come_to_nothing(phase: str, how: str) -> None:
    attacks = [plugin("close_to_one"), plugin("spurious_dispute", how=how, phase=phase)]
    story = play(attacks, BOTH, schedule=ALWAYS)
    assert story.removed == []
    assert not story.disputes
