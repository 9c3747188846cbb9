"""Sentences of the specification, each with what holds it (tables of whole behaviours: tests/simulation)."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
import torch

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.protocol.api import Banned, Committed, Output, PhaseEntered, Say, SendBulk, Voided
from btard.node.protocol.attempt.mprng import share
from btard.node.protocol.wire.messages import Close, Commit, Phase, Reveal, Void
from tests.protocol_attempts import complete, said
from tests.simulation.checkers import PROMISES
from tests.simulation.hostile import interpose
from tests.simulation.scenario import scenario
from tests.simulation.stage import Stage, play, set_up


def attacked(attack: Plugin, steps: int = 5, start: int = 1, seed: int = 2, **more: object) -> Stage:
    run = RunConfig(peers=6, task=Plugin("quadratic"), steps=steps, batch_size=2, **more)  # type: ignore[arg-type]
    role = Role((attack,), Schedule(start=start), (4, 5))
    return set_up(run, {4: role, 5: role}, protocol_seed=seed)


def test_one_message_per_phase_to_each_peer() -> None:
    """Section 3: "Each phase has exactly one mandatory signed message per active peer, sent to each peer"."""
    stage = set_up(RunConfig(peers=5, task=Plugin("quadratic"), steps=2))
    told: list[tuple[Phase, int, int]] = []

    def rewrite(output: Output) -> Iterable[Output]:
        if isinstance(output, Say):
            told.extend((output.body.slot.phase, output.body.slot.step, to) for to in output.to)
        return [output]

    interpose(stage, 2, rewrite)
    play(stage, ())
    phases = (Phase.COMMIT, Phase.AGG, Phase.REVEAL, Phase.CHECKSUMS, Phase.REPORT, Phase.CLOSE)
    steps = [(phase, step, to) for step in range(3) for phase in phases for to in range(5)]
    # With the last step a peer leaves its view and its word to those who may still have to dispute it.
    steps += [(phase, 2, to) for phase in (Phase.VIEW, Phase.OUTCOME) for to in (0, 1, 3, 4)]
    assert sorted(told, key=str) == sorted([*((Phase.HELLO, 0, to) for to in range(5)), *steps], key=str)


def test_every_message_carries_a_hash_per_finished_phase() -> None:
    """Section 3: "Each message carries prefix, a list with one hash per finished phase of the attempt"."""
    attempt = complete(step=1).attempt
    for number, phase in enumerate(attempt.transcript.finished):
        kinds = {Phase.COMMIT: Commit, Phase.REVEAL: Reveal}
        if phase in kinds:
            assert said(attempt, kinds[phase], 3).prefix == attempt.transcript.prefix[:number]


def test_parts_leave_only_after_all_commits() -> None:
    """Section 3, COMMIT: "holding all COMMITs, contributor i sends part j (bulk) to aggregator j"."""
    stage = set_up(RunConfig(peers=5, task=Plugin("quadratic"), steps=2))
    checked = []

    def listen(output: Output) -> Iterable[Output]:
        if isinstance(output, SendBulk) and output.key.kind.value == "part":
            attempt = stage.simulation.nodes[2].peer.attempt
            assert attempt is not None
            checked.append(attempt.transcript.missing(Phase.COMMIT))
        return [output]

    interpose(stage, 2, listen)
    play(stage, ())
    assert checked
    assert set(checked) == {()}


def test_r_is_fixed_after_every_gradient_and_every_aggregate() -> None:
    """Section 3, REVEAL: "r = H(all x): fixed only now, after every gradient and every aggregate"."""
    stage = set_up(RunConfig(peers=5, task=Plugin("quadratic"), steps=2))
    for seen in stage.simulation.run():
        attempt = stage.simulation.nodes[0].peer.attempt
        if attempt is not None and attempt.r:
            assert not attempt.transcript.missing(Phase.COMMIT)
            assert not attempt.transcript.missing(Phase.AGG)
            assert len(attempt.aggregates) == 5 or not attempt.contributors
        assert seen is not None


def test_a_run_with_the_same_secrets_repeats() -> None:
    """Section 3: "x and salt from a per-peer secret seed that no other peer can read: a run with the same secrets
    repeats exactly"."""
    assert share(b"seed", 1, 0) == share(b"seed", 1, 0) != share(b"seed", 1, 1)
    digests = [
        [found.output.state_digest for found in play(attacked(Plugin("noise")), ())
         if isinstance(found.output, Committed)]
        for _ in range(2)
    ]  # fmt: skip
    assert digests[0] == digests[1]


def test_void_goes_straight_to_close_and_nothing_acts_before_it() -> None:
    """Section 3: "Whatever voids an attempt ... goes straight to CLOSE with the value VOID(removals)"; section 4: "an
    attempt restarts at COMMIT with the same xi, cached gradients, a new split and fresh x"."""
    stage = attacked(Plugin("shift_aggregate"))
    values, entered, computed = [], [], []

    def listen(output: Output) -> Iterable[Output]:
        match output:
            case Say(body=Close() as body) if body.slot.step == 1:
                values.append(body.value)
            case PhaseEntered(step=1):
                entered.append((output.attempt, output.phase))
        if type(output).__name__ == "ComputeGradient" and getattr(output, "step", None) == 1:
            computed.append(output)
        return [output]

    interpose(stage, 0, listen)
    seen = play(stage, ())
    assert isinstance(values[0], Void)
    assert [removal.peer for removal in values[0].removals] == [4, 5]
    assert isinstance(values[1], bytes)
    assert entered.index((0, "CLOSE")) + 1 == entered.index((1, "COMMIT"))
    own = [wanted for wanted in computed if wanted.purpose.value == "own"]
    assert len(own) <= 1, "the gradient is reused"
    void = [found for found in seen if found.node == 0 and isinstance(found.output, Voided)]
    assert [found.output.removals for found in void] == [(4, 5)]


def test_the_last_step_carries_the_last_verdicts() -> None:
    """Section 3, Validate: "A run ends with one step without gradients that carries the last verdicts"."""
    for seed in range(40):
        stage = attacked(Plugin("sign_flip"), steps=2, start=1, seed=seed)
        seen = play(stage, PROMISES)
        last = [found.output for found in seen if isinstance(found.output, Banned) and found.node == 0]
        if last:
            assert {ban.step for ban in last} == {2}
            break
    else:
        raise AssertionError("no seed of forty drew an attacker of the last gradient")
    done = [found.output for found in seen if isinstance(found.output, Committed) and found.node == 0][-1]
    assert (done.step, done.contributors) == (2, ())


def test_validators_compute_no_gradient_and_still_aggregate() -> None:
    """Section 2: "Contributor: an active peer that computes a gradient in this step (all but this step's validators;
    validators still aggregate)"."""
    attempt = complete(step=2).attempt
    validator, target = attempt.pairs[0]
    assert validator not in attempt.contributors
    assert target in attempt.contributors
    assert validator in attempt.aggregates
    commit = said(attempt, Commit, validator)
    assert isinstance(commit, Commit)
    assert commit.parts == ()


def test_bans_act_at_the_boundary() -> None:
    """Section 2: "The roster is frozen during an attempt; bans act at the step's boundary, or open a new attempt"."""
    seen = play(attacked(Plugin("lie_checksum")), PROMISES)
    steps = {found.output.step: found.output for found in seen if found.node == 0
             and isinstance(found.output, Committed)}  # fmt: skip
    assert {4, 5} <= set(steps[1].active)
    assert steps[1].attempt == 0
    assert set(steps[2].active) == {0, 1, 2, 3}


@pytest.mark.slow
def test_the_first_attackers_ban_does_not_stop_validation() -> None:
    """Section 3, Validate: "with the bound of the whole roster instead, five peers after the first ban would stop
    validating and the second attacker would stay for ever"."""
    seen = play(attacked(Plugin("sign_flip"), steps=60), PROMISES)
    assert {found.output.peer for found in seen if isinstance(found.output, Banned) and found.node == 0} == {4, 5}


def test_nobody_but_the_launcher_knows_who_is_byzantine() -> None:
    """Specification, first page: "Ours must never know who is Byzantine: a ban needs evidence or a quorum." The same
    outputs with another label: two peers send honest gradients under a Byzantine role, and nobody is banned."""
    seen = play(attacked(Plugin("lenient_validator")), PROMISES)
    assert not any(isinstance(found.output, Banned) for found in seen)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 8, 21])
def test_the_outcome_does_not_depend_on_arrival(seed: int) -> None:
    """Section 6: "All accusations of a step are judged, in roster order, with an outcome that does not depend on
    arrival"."""
    outcomes = []
    for _ in range(2):
        stage = scenario(seed)
        if outcomes:
            dice = Random(seed)
            push = stage.simulation._push
            stage.simulation._push = lambda after_s, node, event, push=push, dice=dice: push(  # type: ignore[method-assign]
                after_s + dice.random() * (after_s > 0), node, event
            )
        outcomes.append([found.output.state_digest for found in play(stage, ())
                         if isinstance(found.output, Committed) and found.node == stage.witness])  # fmt: skip
    assert outcomes[0] == outcomes[1]


def test_committed_tensors_never_change() -> None:
    """The house: never "a tensor mutated after it was committed to"."""
    stage = attacked(Plugin("sign_flip"), steps=6)
    kept = [
        (seen.output.parameters_D, seen.output.parameters_D.clone())
        for seen in stage.simulation.run()
        if isinstance(seen.output, Committed) and seen.node == 0
    ]
    assert all(torch.equal(held_D, copy_D) for held_D, copy_D in kept)
    assert len({id(held_D) for held_D, _ in kept}) >= 6
