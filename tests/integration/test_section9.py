"""The table of PROTOCOL section 9 between real processes over real sockets: who is removed, for what and when.

Several rows share a cluster, each with an attacker and a step of its own, and several clusters run at a time: most of
the time they wait for deadlines. Every cluster is held to all promises (`keeps_the_promises`), evidence included.
"""

from __future__ import annotations

import msgspec
import pytest

from btard.node.config import Plugin, RunConfig
from tests.integration.clusters import (
    RUN,
    Aftermath,
    Attacker,
    Plan,
    agree_step_by_step,
    keeps_the_promises,
    run_all,
)
from tests.integration.partition import Partition, between

pytestmark = pytest.mark.sockets
AT_ONCE = 4
CUT_BYTES = 300_000
"""Beyond the greetings and the first steps of a partitioned cluster."""


def attacker(
    start: int, name: str, *more: Plugin, stop: int | None = None, alone: bool = False, **parameters: object
) -> Attacker:
    return Attacker((Plugin(name, parameters), *more), start, stop, alone)


def run(peers: int = 6, steps: int = 4) -> RunConfig:
    return msgspec.structs.replace(RUN, peers=peers, steps=steps)


PLANS = {
    "silence": Plan({
        4: attacker(3, "last_instant", phase="COMMIT", alone=True),
        5: attacker(2, "stall", phase="REVEAL", to="two", stop=3, alone=True),
        6: attacker(1, "stall", phase="AGG", alone=True),
    }, run(7)),
    "a partition 3/3": Plan(relay=Partition(between((0, 1, 2), (3, 4, 5)), CUT_BYTES), run=run(steps=10_000)),
    "a partition 4/2": Plan(relay=Partition(between((0, 1, 2, 3), (4, 5)), CUT_BYTES), run=run(steps=60)),
    "a partition one way": Plan(
        relay=Partition(tuple((deaf, peer) for deaf in (4, 5) for peer in range(4)), CUT_BYTES // 2), run=run(steps=60),
    ),
    "validators": Plan({
        4: attacker(1, "silent_validator", how="report"),
        5: attacker(1, "silent_validator"),
    }, run(steps=6)),
    "reveals": Plan({
        4: attacker(2, "withhold_reveal", biased=True, alone=True),
        5: attacker(1, "withhold_reveal", alone=True),
    }, run(steps=10)),
    "a wrong gradient on probation": Plan({3: attacker(1, "rejoin")}, run(peers=4, steps=100)),
    "crashes": Plan({5: attacker(1, "crash", phase="AGG")}, run(steps=5), kill=4),
    "equivocation": Plan({
        4: attacker(3, "equivocate", phase="COMMIT", to="@0@1"),
        5: attacker(2, "equivocate", phase="CHECKSUMS"),
        6: attacker(1, "equivocate", phase="AGG", to="one"),
    }, run(7)),
    "last words": Plan({
        4: attacker(3, "false_prefix"),
        5: attacker(1, "equivocate", phase="CLOSE", stop=2),
    }),
    "the certificate": Plan({
        4: attacker(2, "equivocate", phase="COMMIT"),
        5: attacker(1, "close_to_one", stop=3),
    }),
    "two camps": Plan(dict.fromkeys((4, 5), attacker(1, "two_camps", stop=2)), run(steps=5)),
    "late views": Plan({
        4: attacker(1, "equivocate", Plugin("late_view"), phase="CHECKSUMS"),
        5: attacker(1, "false_prefix", Plugin("late_view", {"to": "half"}), phase="REPORT"),
    }),
    "parts": Plan({
        4: attacker(3, "wrong_part", to="one", stop=4),
        5: attacker(4, "withhold_part", to="one", again=True, published_to="one", stop=5),
        6: attacker(1, "withhold_part", to="all", again=True),
    }, run(7, 5)),
    "aggregates": Plan({
        4: attacker(3, "withhold_aggregate"),
        5: attacker(2, "split_aggregate", stop=3),
        6: attacker(1, "shift_aggregate"),
    }, run(7)),
    "impossible checksums": Plan({
        4: attacker(3, "lie_checksum", variant="infinite"),
        5: attacker(2, "lie_checksum", variant="nan"),
        6: attacker(1, "lie_checksum", variant="minus_huge"),
    }, run(7, 6)),
    "a large shift, covered": Plan(
        dict.fromkeys((4, 5), attacker(12, "cancelling_shift", scale=30.0, relative=False, cover="accomplice")),
        run(steps=13),
    ),
    "a small shift, covered": Plan(
        dict.fromkeys((4, 5), attacker(1, "cancelling_shift", scale=0.05, relative=False)), run(steps=16),
    ),
    "accusations": Plan({
        4: attacker(3, "complain", about="all"),
        5: attacker(2, "false_accuse", how="aggregate"),
        6: attacker(1, "false_accuse", how="bit"),
    }, run(7, 5)),
    "complaints": Plan({5: attacker(1, "complain")}, run(steps=6)),
    "an accomplice": Plan(dict.fromkeys((4, 5), attacker(1, "zero")), run(steps=16)),
    "judged by what never comes": Plan(
        dict.fromkeys((4, 5), attacker(1, "zero", Plugin("withhold_part", {"to": "nobody", "again": True}))),
        msgspec.structs.replace(run(steps=16), recompute_tolerance=1e-4),
    ),
    "copies": Plan({
        3: attacker(4, "copy_commitment", what="parts"),
        4: attacker(1, "replay", Plugin("replay", {"what": "others"}), what="run", stop=4),
        5: attacker(1, "replay", Plugin("replay", {"what": "spoof"}), what="step", stop=4),
        6: attacker(1, "copy_commitment"),
    }, run(9, 5)),
    "impossible messages": Plan({
        4: attacker(3, "infinite"),
        5: attacker(1, "malformed", Plugin("malformed", {"how": "oversized", "instead": False}),
                    how="foreign", instead=False, stop=3),
        6: attacker(2, "malformed"),
    }, run(7)),
}  # fmt: skip
"""The longest first."""


@pytest.fixture(scope="module")
def ends(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Aftermath]:
    """Of the clusters that the chosen tests judge: `-k` with one name starts one."""
    asked = {item.callspec.params["end"] for item in request.session.items
             if isinstance(item, pytest.Function) and item.path == request.path}  # fmt: skip
    chosen = {name: plan for name, plan in PLANS.items() if name in asked}
    return run_all(tmp_path_factory.mktemp("section9"), chosen, AT_ONCE)


@pytest.fixture
def end(request: pytest.FixtureRequest, ends: dict[str, Aftermath]) -> Aftermath:
    return ends[request.param]


def judges(plan: str) -> pytest.MarkDecorator:
    """A test of one of the clusters."""
    return pytest.mark.parametrize("end", [plan], indirect=True)


def kept(end: Aftermath, removed: list[tuple[int, int, str]], lost: int = 0) -> None:
    """Every promise, exactly these removals, and every attacker has attacked."""
    keeps_the_promises(end, lost)
    assert end.removed == removed, end.log
    assert all(end.struck(peer) for peer in end.plan.attackers), end.log
    return end


@judges("equivocation")
def test_two_messages_for_one_slot_ban_their_signer(end: Aftermath) -> None:
    """AGGs, CHECKSUMS, and the randomness commitment shown differently to two peers."""
    kept(end, [(1, 6, "equivocation"), (2, 5, "equivocation"), (3, 4, "equivocation")])
    assert end.steps("disputed") == end.steps("voided") == {1, 2, 3}


@judges("last words")
def test_two_closes_and_a_false_prefix_ban_their_signer(end: Aftermath) -> None:
    """Someone holds a certificate of step 1: it wins, and the evidence waits for the next REPORT."""
    kept(end, [(2, 5, "equivocation"), (3, 4, "prefix")])
    assert end.steps("voided") == {3}


@judges("parts")
def test_a_part_is_published_or_its_sender_removed(end: Aftermath) -> None:
    """Never published: removed. Wrong, then published; or published to one, and pulled from there: an edge."""
    kept(end, [(1, 6, "withheld")])
    asked = {record["step"] for record in end.said(end.witness, "committed") if "HELD" in record["phases"]}
    assert asked == {1, 3, 4}
    assert not end.steps("disputed")


@judges("aggregates")
def test_a_wrong_aggregate_falls_in_its_step_and_a_missing_one_is_pulled_or_removed(end: Aftermath) -> None:
    kept(end, [(1, 6, "aggregate"), (3, 4, "withheld")])
    assert end.dropped["bulk_digest"] > 0, "only the committed bytes count"
    assert end.steps("voided") == {1, 3}


@judges("impossible checksums")
def test_impossible_checksums_fall_to_v0(end: Aftermath) -> None:
    """Peer 4 validates in step 3; with seven peers it has checksums to lie about all the same."""
    kept(end, [(1, 6, "bounds"), (2, 5, "bounds"), (3, 4, "bounds")])
    assert not end.steps("voided")


@judges("a large shift, covered")
def test_a_large_covered_shift_falls_to_v3(end: Aftermath) -> None:
    kept(end, [(12, 4, "aggregate"), (12, 5, "aggregate")])
    assert {record["kind"] for record in end.said(end.witness, "accused")} == {"averaging:V3"}


@judges("a small shift, covered")
def test_a_small_covered_shift_falls_to_a_validator(end: Aftermath) -> None:
    kept(end, [(4, 4, "checksum"), (6, 5, "checksum")])
    assert {record["kind"] for record in end.said(end.witness, "accused")} == {"gradient"}


@judges("reveals")
def test_a_reveal_withheld_costs_an_attacker_each(end: Aftermath) -> None:
    """Peer 4 goes on as if it had opened its randomness: others notice that, or its silence, whichever comes first."""
    keeps_the_promises(end)
    assert [row[:2] for row in end.removed] == [(1, 5), (7, 4)]
    assert {reason for _, _, reason in end.removed} <= {"silent", "incomplete"}
    assert end.steps("voided") == {1, 7}


@judges("silence")
def test_silence_is_gone_and_silence_toward_some_is_healed(end: Aftermath) -> None:
    """Peer 5 is silent toward two peers in step 2: others forward what they missed. Peer 4 speaks at the last instant,
    to one peer alone."""
    kept(end, [(1, 6, "silent"), (3, 4, "silent")])
    assert end.steps("disputed") == {1, 3}
    assert {record["peer"] for record in end.said(end.witness, "banned") if record["standing"] == "gone"} == {4, 6}


@judges("the certificate")
def test_a_certificate_that_one_peer_alone_holds_wins(end: Aftermath) -> None:
    kept(end, [(2, 4, "equivocation")])


@judges("two camps")
def test_two_camps_end_the_step_alike(end: Aftermath) -> None:
    """Each half has a dispute of its own, of two steps, and the attackers' signatures for what it decides."""
    keeps_the_promises(end)
    assert {peer for _, peer, _ in end.removed} == {4, 5}, end.log


@judges("late views")
def test_views_at_the_last_instant_of_their_round_make_equal_unions(end: Aftermath) -> None:
    kept(end, [(1, 4, "equivocation"), (1, 5, "prefix")])


@judges("accusations")
def test_false_accusers_are_banned_and_causeless_complaints_cut_off(end: Aftermath) -> None:
    kept(end, [(1, 6, "false_accusation"), (2, 5, "false_accusation"), (4, 4, "edges")])


@judges("complaints")
def test_the_fourth_complaint_of_a_pair_costs_one_honest_peer_at_most(end: Aftermath) -> None:
    kept(end, [(5, 2, "eliminated"), (5, 5, "eliminated")], lost=1)


@judges("validators")
def test_silent_validators_go_at_their_first_turn(end: Aftermath) -> None:
    """One leaves its verdict out, the other says nothing; the next in the permutation steps in."""
    kept(end, [(2, 5, "malformed"), (3, 4, "silent")])


@judges("an accomplice")
def test_a_validator_that_spares_its_accomplice_only_delays(end: Aftermath) -> None:
    kept(end, [(4, 4, "gradient"), (6, 5, "gradient")])


@judges("judged by what never comes")
def test_who_withholds_the_gradient_that_it_is_judged_by_is_removed(end: Aftermath) -> None:
    kept(end, [(4, 4, "withheld"), (6, 5, "withheld")])


@judges("copies")
def test_copies_and_replays_are_useless(end: Aftermath) -> None:
    kept(end, [(1, 6, "malformed"), (4, 3, "withheld")])
    assert all(end.dropped.get(reason) for reason in ("foreign_run", "late", "too_early", "bulk_unexpected")), end.log


@judges("impossible messages")
def test_what_no_honest_peer_sends_is_evidence_or_dropped(end: Aftermath) -> None:
    kept(end, [(2, 6, "malformed"), (3, 4, "unusable")])
    assert all(end.dropped.get(reason) for reason in ("bad_signature", "oversized")), end.log


@judges("crashes")
def test_a_crashed_and_a_killed_process_are_gone(end: Aftermath) -> None:
    """Peer 4 is killed in the middle of the dispute about peer 5."""
    kept(end, [(1, 4, "silent"), (1, 5, "silent")])
    assert end.codes[4] == -9


@judges("a wrong gradient on probation")
def test_whoever_comes_back_with_a_wrong_gradient_is_banned(end: Aftermath) -> None:
    keeps_the_promises(end)
    silent, (step, peer, reason) = end.removed
    assert silent == (1, 3, "silent")
    assert (peer, reason) == (3, "probation") and step > 1
    assert not end.said(end.witness, "returned")


@judges("a partition 3/3")
def test_a_partition_into_halves_halts_both_sides(end: Aftermath) -> None:
    agree_step_by_step(end, end.honest)
    assert all(end.codes[peer] == 1 and end.said(peer, "halted") for peer in end.honest), end.log
    assert not any(end.said(peer, "banned") for peer in end.honest), end.log


@judges("a partition 4/2")
def test_a_partition_four_to_two_goes_on_without_the_two(end: Aftermath) -> None:
    agree_step_by_step(end, end.honest)
    assert all(end.said(peer, "finished") for peer in range(4)), end.log
    assert all(end.said(peer, "halted") and not end.said(peer, "banned") for peer in (4, 5)), end.log
    assert [row[1:] for row in end.removed] == [(4, "silent"), (5, "silent")]


@judges("a partition one way")
def test_peers_that_nobody_hears_are_gone(end: Aftermath) -> None:
    agree_step_by_step(end, end.honest)
    assert all(end.said(peer, "finished") for peer in range(4)), end.log
    assert [row[1:] for row in end.removed] == [(4, "silent"), (5, "silent")]
