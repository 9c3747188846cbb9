"""The two filters around a peer: what they change, when, and that they change nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from btard.node.adversary.adversary import Adversary
from btard.node.config import Plugin, Role, Schedule
from btard.node.errors import ConfigError, LocalProtocolError
from btard.node.protocol.api import (
    Banned,
    BulkKey,
    BulkKind,
    GradientReady,
    Input,
    MessageArrived,
    Output,
    PhaseEntered,
    Purpose,
    Say,
    SendBulk,
    Start,
)
from btard.node.protocol.rule import Aggregated, Nearest, Rule, itself
from btard.node.protocol.wire.encoding import encode_body
from btard.node.protocol.wire.messages import Checksums, Commit, Phase, Report, Signed, Slot, Verdict

ME = 2
GRADIENT = torch.tensor([1.0, 0.0, -2.0, 4.0])


class Script:
    """In the place of a Peer: keeps what it hears and says what it is told to."""

    def __init__(self) -> None:
        self.heard: list[Input] = []
        self.next: list[Output] = []

    attempt = None

    def handle(self, event: Input) -> list[Output]:
        self.heard.append(event)
        says, self.next = self.next, []
        return says


class Mean:
    """The smallest aggregation rule."""

    audited = False

    def aggregate(self, inputs_NP: Tensor, radius: float) -> Aggregated:
        return Aggregated(inputs_NP.mean(dim=0), 3)

    def clip_radius(self, radius: float) -> float:
        return 2 * radius

    def slack(self, norms: Sequence[float], radius: float) -> float:
        return 0.25

    def accepts(self, inputs_NP: Tensor, value_P: Tensor, radius: float, nearest: Nearest = itself) -> bool:
        return True


def plugin(name: str, **parameters: object) -> Plugin:
    return Plugin(name, parameters)


def surrounded(*attacks: Plugin, schedule: Schedule | None = None) -> tuple[Adversary, Script]:
    """An attacker that strikes at steps 3, 5, 7, ... and its inner peer."""
    role = Role(attacks, schedule or Schedule(start=3, every=2), accomplices=(1, ME), attack_seed=9)
    adversary = Adversary(role, ME, dimension=4, classes=10)
    script = Script()
    assert adversary.around(script) is adversary
    return adversary, script


def ready(step: int, purpose: Purpose = Purpose.OWN) -> GradientReady:
    return GradientReady(purpose, step, ME, GRADIENT, 0.5)


def slot(step: int, phase: Phase, sender: int = ME) -> Slot:
    return Slot(b"run", b"roster", step, 0, phase, sender)


def sums(step: int) -> Say:
    return Say((0, 1, 2), Checksums(slot(step, Phase.CHECKSUMS), (), (1.0, 2.0), (3.0, 4.0)))


def says_of(step: int, target: int, correct: bool) -> Say:
    return Say((0, 1, 2), Report(slot(step, Phase.REPORT), (), (True, True), (Verdict(target, correct),), ()))


def passed(adversary: Adversary, script: Script, *outputs: Output) -> list[Output]:
    """What leaves the node when its inner peer says `outputs`."""
    script.next = list(outputs)
    return adversary.handle(Start())


# --- gradients ----------------------------------------------------------------------------------------------------


def test_own_gradients_of_scheduled_steps_are_replaced_in_order() -> None:
    adversary, script = surrounded(plugin("sign_flip", scale=2.0), plugin("sign_flip", scale=3.0))
    for step in range(6):
        adversary.handle(ready(step))
    heard = [event.gradient_D for event in script.heard if isinstance(event, GradientReady)]
    assert [sent.tolist() for sent in heard] == [
        (GRADIENT * (6 if step in (3, 5) else 1)).tolist() for step in range(6)
    ]
    assert adversary.attacked == [3, 5]
    assert not any(torch.signbit(sent[1]) for sent in heard), "no negative zero leaves the node"


@pytest.mark.parametrize("event", [Start(), ready(2), ready(4), ready(3, Purpose.VALIDATE), ready(3, Purpose.JUDGE)],
                         ids=["start", "before", "between", "validating", "judging"])  # fmt: skip
def test_other_inputs_pass_as_the_same_objects(event: Input) -> None:
    adversary, script = surrounded(plugin("sign_flip"))
    adversary.handle(event)
    assert script.heard[0] is event
    assert adversary.attacked == []


def test_nothing_is_handled_before_a_peer_is_inside() -> None:
    with pytest.raises(LocalProtocolError, match="around"):
        Adversary(Role(()), ME).handle(Start())


# --- data ---------------------------------------------------------------------------------------------------------


def test_the_batch_is_transformed_at_scheduled_steps_in_order() -> None:
    adversary, _ = surrounded(plugin("label_flip"), plugin("label_shuffle"))
    assert adversary.transform(2) is None
    transform = adversary.transform(3)
    assert transform is not None
    assert adversary.attacked == [], "asked for, not yet used"
    _, targets_B = transform(torch.zeros(5, 1), torch.tensor([0, 1, 2, 3, 4]))
    assert sorted(targets_B.tolist()) == [5, 6, 7, 8, 9]
    assert adversary.attacked == [], "computed, perhaps in another thread, and not yet contributed"
    adversary.handle(GradientReady(Purpose.OWN, 3, ME, torch.zeros(4), 0.0))
    assert adversary.attacked == [3]


def test_no_data_attack_no_transform() -> None:
    assert surrounded(plugin("sign_flip"))[0].transform(3) is None


def test_label_attacks_need_labels() -> None:
    with pytest.raises(ConfigError, match="mnist_cnn"):
        Adversary(Role((plugin("label_flip"),)), ME, dimension=4, classes=0)


# --- the aggregate ------------------------------------------------------------------------------------------------


def test_the_rule_lies_about_its_own_aggregate_at_scheduled_steps() -> None:
    adversary, script = surrounded(plugin("shift_aggregate", scale=0.5))
    honest: Rule = Mean()
    rule = adversary.wrap_rule(honest)
    inputs_NP = torch.tensor([[2.0, 0.0], [4.0, 8.0]])
    distances = []
    for step in range(2, 6):
        passed(adversary, script, PhaseEntered(step, 0, "COMMIT"))
        result = rule.aggregate(inputs_NP, 1.0)
        assert result.iterations == 3
        distances.append(float((result.value_P - torch.tensor([3.0, 4.0])).norm()))
    assert distances == pytest.approx([0.0, 2.5, 0.0, 2.5], abs=1e-5)
    assert adversary.attacked == [3, 5]


def test_the_rest_of_the_rule_is_the_honest_one() -> None:
    rule = surrounded(plugin("shift_aggregate"))[0].wrap_rule(Mean())
    inputs_NP = torch.zeros(2, 2)
    assert (rule.audited, rule.clip_radius(1.5), rule.slack([1.0], 1.0)) == (False, 3.0, 0.25)
    assert rule.accepts(inputs_NP, inputs_NP[0], 1.0)


def test_without_an_aggregate_attack_the_rule_is_not_wrapped() -> None:
    rule = Mean()
    assert surrounded(plugin("noise"))[0].wrap_rule(rule) is rule


# --- messages -----------------------------------------------------------------------------------------------------


def test_messages_of_scheduled_steps_are_rewritten() -> None:
    adversary, script = surrounded(plugin("lie_checksum", amount=1.0))
    sent = passed(adversary, script, sums(2), sums(3))
    assert sent == [sums(2), Say((0, 1, 2), Checksums(slot(3, Phase.CHECKSUMS), (), (2.0, 2.0), (3.0, 4.0)))]
    assert adversary.attacked == [3]


def test_an_accomplice_is_never_accused_and_that_is_no_attack_of_the_schedule() -> None:
    adversary, script = surrounded(plugin("noise"))
    for step in (2, 3):
        assert passed(adversary, script, says_of(step, 1, False)) == [says_of(step, 1, True)]
        assert passed(adversary, script, says_of(step, 0, False)) == [says_of(step, 0, False)]
    assert adversary.attacked == []


def test_false_bits_hit_contributors_that_were_heard() -> None:
    """COMMITs of 0 (validator), 1, 2, 3, 4: bits stand for 1, 2, 3, 4, the honest ones are 3 and 4."""
    adversary, script = surrounded(plugin("false_accuse", how="bit"))
    for sender in range(5):
        body = Commit(slot(3, Phase.COMMIT, sender), (), (b"digest",) if sender else (), b"hidden")
        adversary.handle(MessageArrived(sender, Signed(encode_body(body), b"")))
    adversary.handle(MessageArrived(0, Signed(b"garbage", b"")))
    assert adversary.view(3).active == (0, 1, 2, 3, 4)
    assert adversary.view(3).contributors == (1, 2, 3, 4)
    assert adversary.view(4).contributors == ()
    (output,) = passed(adversary, script, Say((0,), Report(slot(3, Phase.REPORT), (), (True,) * 4, (), ())))
    assert isinstance(output, Say)
    assert isinstance(output.body, Report)
    assert output.body.checks in ((True, True, False, True), (True, True, True, False))


@pytest.mark.parametrize("attacks", [(), ("noise",), ("lie_checksum", "false_accuse")], ids=str)
def test_outputs_that_no_attack_changes_are_the_same_objects(attacks: tuple[str, ...]) -> None:
    adversary, script = surrounded(*(plugin(name) for name in attacks))
    bulk = SendBulk(0, BulkKey(3, 0, BulkKind.PART, ME, 0), GRADIENT)
    outputs: list[Output] = [PhaseEntered(3, 0, "COMMIT"), sums(2), says_of(3, 1, True), bulk]
    sent = passed(adversary, script, *outputs)
    assert len(sent) == len(outputs)
    assert all(new is old for new, old in zip(sent, outputs, strict=True))
    assert adversary.attacked == []


# --- reform -------------------------------------------------------------------------------------------------------


def test_a_reformed_node_is_honest_after_its_own_ban() -> None:
    adversary, script = surrounded(plugin("sign_flip"), plugin("label_flip"), plugin("lie_checksum"),
                                   plugin("shift_aggregate"))  # fmt: skip
    rule = adversary.wrap_rule(Mean())

    def ban(peer: int, removed: bool) -> Banned:
        return Banned(4, 0, peer, "gradient", 0, removed, b"")

    others = passed(adversary, script, ban(1, False), ban(ME, True))
    assert len(others) == 2
    assert adversary.attacks_at(5), "not its own reform"

    own = ban(ME, False)
    sent = passed(adversary, script, PhaseEntered(5, 0, "REPORT"), sums(5), own, sums(5), says_of(5, 1, False))
    assert sent[1] != sums(5)
    assert sent[2] is own
    assert sent[3:] == [sums(5), says_of(5, 1, False)]
    adversary.handle(ready(7))
    assert script.heard[-1] == ready(7)
    assert adversary.transform(7) is None
    assert rule.aggregate(torch.ones(2, 2), 1.0).value_P.tolist() == [1.0, 1.0]
    assert adversary.attacked == [5]


# --- schedule -----------------------------------------------------------------------------------------------------


def test_the_schedule_bounds_the_attack() -> None:
    adversary, _ = surrounded(schedule=Schedule(start=4, every=3, stop=11))
    assert [step for step in range(20) if adversary.attacks_at(step)] == [4, 7, 10]


def test_the_coin_falls_once_per_step_and_attacker() -> None:
    role = Role((), Schedule(start=0, probability=0.3), accomplices=(1, 2), attack_seed=5)
    one, again, other = (Adversary(role, me) for me in (1, 1, 2))
    drawn = [one.attacks_at(step) for step in range(4_000)]
    assert drawn == [again.attacks_at(step) for step in range(4_000)] == [one.attacks_at(step) for step in range(4_000)]
    assert drawn != [other.attacks_at(step) for step in range(4_000)]
    # 4,000 draws: a deviation of 0.03 is more than four standard deviations.
    assert sum(drawn) / 4_000 == pytest.approx(0.3, abs=0.03)
