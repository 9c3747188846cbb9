"""Undo under every kind of liar: removed peers leave no trace within the window, whoever lies about them follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from msgspec import structs

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.drivers.simulator import Observed
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import (
    Banned,
    Committed,
    ComputeGradient,
    Finished,
    Input,
    MessageArrived,
    Output,
    Purpose,
    Resolved,
    Suspected,
    Undone,
)
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.state import transition
from btard.node.protocol.state.state import State, parameters_digest
from btard.node.protocol.state.transition import moved_on
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Phase
from tests.simulation.checkers import PROMISES, Accuracy, Agreement, Liveness
from tests.simulation.checkers.undo import Undoing
from tests.simulation.stage import Stage, play, set_up

TWO = (4, 5)
LINKS = LinkModel(delay_s=0.01, jitter_s=0.02)
Attacks = Sequence[Plugin]


def stage_of(attacks: Attacks | Mapping[int, Attacks], seed: int, *, window: int = 8, steps: int = 16, stop: int | None
             = None, start: int = 3, **more: object) -> Stage:  # fmt: skip
    run = RunConfig(peers=6, task=Plugin("quadratic", {"dimension": 19}), steps=steps, batch_size=1, undo=window,
                    delivery_bound_s=0.5, gradient_bound_s=1.0, **more)  # type: ignore[arg-type]  # fmt: skip
    each = attacks if isinstance(attacks, Mapping) else dict.fromkeys(TWO, attacks)
    roles = {peer: Role(tuple(own), Schedule(start, 1, stop), tuple(each), seed) for peer, own in each.items()}
    return set_up(run, roles, seed, LINKS)


def told(seen: Sequence[Observed], kind: type[Output], node: int = 0) -> list[Output]:
    """What one honest peer reported of a kind."""
    return [each.output for each in seen if each.node == node and isinstance(each.output, kind)]


def undone(seen: Sequence[Observed]) -> list[Undone]:
    return [each for each in told(seen, Undone) if isinstance(each, Undone)]


def bans(seen: Sequence[Observed]) -> list[tuple[int, int, str]]:
    return [(ban.step, ban.peer, ban.reason) for ban in told(seen, Banned) if isinstance(ban, Banned)]


def steps(seen: Sequence[Observed]) -> list[int]:
    return [done.step for done in told(seen, Committed) if isinstance(done, Committed)]


KINDS = [
    pytest.param([Plugin("sign_flip")], id="sign_flip"),
    pytest.param([Plugin("noise", {"variant": "small"})], id="noise"),
    pytest.param([Plugin("constant_direction")], id="constant_direction"),
    pytest.param([Plugin("cancelling_shift", {"scale": 0.05, "relative": False})], id="a covered aggregate"),
]

LIES = [("pass", "false_report"), ("disown", "false_accusation"), ("one", "false_accusation")]


@pytest.mark.slow
@pytest.mark.parametrize("attacks", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_a_banned_attacker_leaves_no_trace(attacks: Attacks, seed: int) -> None:
    """The checkers recompute every contribution in question, and compare parameters before and after."""
    seen = play(stage_of(attacks, seed), PROMISES)
    restored = [each for each in undone(seen) if each.to_step is not None]
    assert restored
    for each in restored:
        assert each.to_step == each.lies[0][0]
        assert each.lost >= 1
        assert not each.older


def test_steps_go_on_and_what_is_lost_is_told() -> None:
    """Peer 4 lies in steps 3 and 4 and is banned in 4, peer 5 in 6 and 7: two steps of two gradients each are lost."""
    seen = play(stage_of([Plugin("sign_flip")], 0), PROMISES)
    assert bans(seen) == [(4, 4, "gradient"), (7, 5, "gradient")]
    assert undone(seen) == [
        Undone(5, 0, (4,), ((3, 4), (4, 4)), 3, 2, older=False),
        Undone(8, 0, (5,), ((6, 5), (7, 5)), 6, 2, older=False),
    ]
    assert steps(seen) == list(range(17))


@pytest.mark.slow
@pytest.mark.parametrize(("how", "reason"), LIES, ids=[how for how, _ in LIES])
def test_whoever_lies_about_a_recomputation_follows(how: str, reason: str) -> None:
    """Passing an accomplice's poison, or disowning what is true: both are judged by everyone, and undo stays right."""
    attacks = {4: [Plugin("sign_flip")], 5: [Plugin("false_recheck", {"how": how})]}
    seen = play(stage_of(attacks, 0), PROMISES)
    assert bans(seen) == [(4, 4, "gradient"), (5, 5, reason)]
    assert [(each.step, each.to_step) for each in undone(seen)] == [(5, 3), (6, None)]


def test_an_attacker_that_disowns_what_is_true_costs_no_step_but_its_own_examination() -> None:
    attacks = {4: [Plugin("equivocate", {"phase": "CHECKSUMS", "to": "one"})],
               5: [Plugin("false_recheck", {"how": "disown"})]}  # fmt: skip
    seen = play(stage_of(attacks, 0, steps=7), PROMISES)
    assert [reason for _, _, reason in bans(seen)] == ["equivocation", "false_accusation"]
    assert [(each.suspects, each.lost) for each in undone(seen)] == [((4,), 0), ((5,), 0)]


def test_a_ban_during_an_undo_step_is_followed_by_another() -> None:
    """The verdict on step 13 falls in the undo step 14, and the run goes on beyond its last step to examine it."""
    seen = play(stage_of([Plugin("sign_flip")], 0, start=12, steps=14), PROMISES)
    assert bans(seen) == [(13, 4, "gradient"), (14, 5, "gradient")]
    assert [(each.step, each.suspects, each.to_step) for each in undone(seen)] == [(14, (4,), 12), (15, (5,), None)]
    assert steps(seen)[-1] == 15


def test_a_void_attempt_of_an_undo_step_leaves_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients take all of T_g, one after the other, and another attempt wants others of a peer than the first did:
    had they to wait for what is not wanted any more, honest peers would suspect each other."""
    twice = [Plugin("equivocate", {"phase": "COMMIT", "to": "one"})]
    run = structs.replace(stage_of({}, 0, window=29, steps=31).run, delivery_bound_s=0.1)
    roles = {5: Role(tuple(twice), Schedule(29), TWO), 4: Role(tuple(twice), Schedule(30), TWO)}
    stage = set_up(run, roles, 0, LINKS)
    simulation, free_s = stage.simulation, dict.fromkeys(stage.simulation.nodes, 0.0)

    def one_by_one(node: int, wanted: ComputeGradient) -> None:
        free_s[node] = max(free_s[node], simulation.now_s) + 0.999 * stage.run.gradient_bound_s
        ready = simulation.nodes[node].compute(wanted, simulation._compute)
        simulation._push(free_s[node] - simulation.now_s, node, ready)

    monkeypatch.setattr(simulation, "_gradient", one_by_one)
    seen = play(stage, (Undoing,))
    assert bans(seen) == [(29, 5, "equivocation"), (30, 4, "equivocation")]
    assert not [each for each in seen if each.node not in TWO and isinstance(each.output, Suspected)]
    assert [(each.step, each.suspects) for each in undone(seen)] == [(30, (5,)), (31, (4,))]


def test_whoever_follows_an_outcome_has_the_time_to_judge_all_that_was_disowned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Peer 4 is banned. In the undo step peer 3 disowns its whole share, gives its REPORT to peer 0 alone, just in
    time, and is suspected by peer 1, which has judged in no time, then by peer 2, which entered last: it is gone, and
    the value of two CLOSEs stands, while peer 0 has nine gradients yet to compute, each of which takes all of T_g."""
    window, step, slow, run = 20, 21, (0, 2), stage_of({}, 0).run
    run = structs.replace(run, peers=5, steps=window + 3, undo=window, delivery_bound_s=0.2)
    twice, liar = Plugin("equivocate", {"phase": "COMMIT", "to": "one"}), Plugin("false_recheck", {"how": "disown"})
    late = Plugin("last_instant", {"phase": "REPORT", "to": "@0", "before_s": 0.03})
    roles = {4: Role((twice,), Schedule(window), (3, 4)), 3: Role((liar, late), Schedule(step, 1, step + 1), (3, 4))}
    stage = set_up(run, roles, 0, LinkModel(delay_s=0.005))
    simulation, free_s, send = stage.simulation, dict.fromkeys(range(5), 0.0), stage.simulation._send

    def one_by_one(node: int, wanted: ComputeGradient) -> None:
        took_s = 0.999 * run.gradient_bound_s if node in slow and wanted.purpose is Purpose.UNDO else 0.005
        free_s[node] = max(free_s[node], simulation.now_s) + took_s
        ready = simulation.nodes[node].compute(wanted, simulation._compute)
        simulation._push(free_s[node] - simulation.now_s, node, ready)

    def later(node: int, to: int, event: Input, size_bytes: int) -> None:
        last = (node, to) == (3, 2) and isinstance(event, MessageArrived)
        slot = decode_body(event.signed.body).slot if last and isinstance(event, MessageArrived) else None
        if slot is not None and (slot.step, slot.phase) == (step, Phase.CHECKSUMS):
            return simulation._push(0.15, to, event)
        return send(node, to, event, size_bytes)

    monkeypatch.setattr(simulation, "_gradient", one_by_one)
    monkeypatch.setattr(simulation, "_send", later)
    seen = play(stage, (Agreement, Accuracy, Liveness, Undoing))
    assert [(each.peer, each.reason) for each in told(seen, Banned) if isinstance(each, Banned)] == [
        (4, "equivocation"),
        (3, "false_accusation"),
    ]
    resolved_s, done_s = (
        next(
            each.time_s
            for each in seen
            if each.node == 0 and isinstance(each.output, kind) and each.output.step == step
        )
        for kind in (Resolved, Undone)
    )
    assert done_s - resolved_s > 6 * run.delivery_bound_s + 2 * run.gradient_bound_s, (
        "it was to take longer than any OUTCOME"
    )


def test_two_bans_at_once_are_examined_together() -> None:
    attacks = [Plugin("equivocate", {"phase": "CHECKSUMS", "to": "one"})]
    seen = play(stage_of({4: [*attacks], 5: [Plugin("shift_aggregate")]}, 0, steps=7), PROMISES)
    assert sorted(peer for _, peer, _ in bans(seen)) == [4, 5]
    assert [each.suspects for each in undone(seen)] == [(4, 5)]


def test_silence_does_not_save_the_poison() -> None:
    """Peer 4 dies with its poison committed: the value stands, it is gone and not banned; the step is taken back."""
    attacks = {4: [Plugin("noise", {"variant": "small"}), Plugin("crash", {"phase": "CLOSE"})]}
    seen = play(stage_of(attacks, 0, steps=8, validators=0), PROMISES)
    assert bans(seen) == [(3, 4, "silent")]
    assert undone(seen) == [Undone(5, 0, (4,), ((3, 4),), 3, 2, older=False)]


def test_a_window_that_is_too_small_goes_back_as_far_as_it_can() -> None:
    seen = play(stage_of([Plugin("sign_flip")], 1, window=2), PROMISES)
    assert [(each.step, each.to_step, each.lost, each.older) for each in undone(seen)] == [
        (8, 6, 2, True),
        (13, 11, 2, True),
    ]


def test_a_reformed_peer_stays_and_its_lies_do_not() -> None:
    seen = play(stage_of([Plugin("sign_flip")], 0, on_ban="reform"), PROMISES)
    assert [(each.step, each.to_step) for each in undone(seen)] == [(5, 3), (8, 6)]
    assert next(done for done in reversed(told(seen, Committed)) if isinstance(done, Committed)).active == tuple(
        range(6)
    )


def test_while_nobody_attacks_nothing_changes() -> None:
    def digests(window: int) -> list[bytes]:
        seen = play(stage_of({}, 0, window=window, steps=6), PROMISES)
        assert not undone(seen)
        done = [each for each in told(seen, Committed) if isinstance(each, Committed)]
        assert isinstance(seen[-1].output, Finished)
        return [parameters_digest(each.parameters_D) for each in done]

    assert digests(0) == digests(2) == digests(128)


def test_with_one_checker_an_accomplice_keeps_the_poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation: c = 1 instead of one more than there can be liars."""

    def lonely(attempt: Attempt, after: State, lies: object) -> State:
        state = moved_on(attempt, after, lies)  # type: ignore[arg-type]
        return state.with_facts(undo_checkers=min(state.summary.undo_checkers, 1))

    monkeypatch.setattr(transition, "moved_on", lonely)
    attacks = {4: [Plugin("sign_flip")], 5: [Plugin("false_recheck")]}
    with pytest.raises(AssertionError, match=r"was not banned|did not restore"):
        for seed in range(12):
            play(stage_of(attacks, seed, steps=10), (Undoing,))
