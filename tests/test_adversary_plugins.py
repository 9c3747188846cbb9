"""Attacks to come, one file each: what the filters around a peer give to a newcomer's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from btard.node.adversary.registry import attack
from btard.node.adversary.view import View
from btard.node.config import Schedule
from btard.node.protocol.api import GradientReady, Output, PhaseEntered, Purpose, Say
from btard.node.protocol.wire.messages import Body, Checksums
from tests.unit.node.adversary.test_adversary import ME, passed, plugin, sums, surrounded


@pytest.fixture
def registered(scratch: None) -> None:
    """Two attacks as a newcomer would add them."""

    @attack("test_delayed", acts_on="gradient", source="test", remembers="delay")
    def delayed(gradient_D: Tensor, view: View, *, delay: int = 2) -> Tensor:
        return view.history.get(view.step - delay, gradient_D)

    @attack("test_equivocate", acts_on="outputs", source="test")
    def equivocate(output: Output, view: View) -> Sequence[Output]:
        if not isinstance(output, Say):
            return (output,)
        return (Say(output.to[:1], output.body), Say(output.to[1:], other_body(output.body)))


def other_body(body: Body) -> Body:
    assert isinstance(body, Checksums)
    return Checksums(body.slot, body.prefix, body.s[::-1], body.norms)


@pytest.mark.usefixtures("registered")
def test_an_attack_may_look_back() -> None:
    adversary, script = surrounded(plugin("test_delayed", delay=1), schedule=Schedule(start=0))
    for step in range(4):
        adversary.handle(GradientReady(Purpose.OWN, step, ME, torch.full((4,), float(step)), 0.0))
    sent = [float(event.gradient_D[0]) for event in script.heard if isinstance(event, GradientReady)]
    assert sent == [0.0, 0.0, 1.0, 2.0]
    assert sorted(adversary.view(3).history) == [2, 3]


@pytest.mark.usefixtures("registered")
def test_an_attack_may_split_outputs() -> None:
    adversary, script = surrounded(plugin("test_equivocate"))
    assert passed(adversary, script, PhaseEntered(2, 0, "CHECKSUMS"), sums(2))[1:] == [sums(2)]
    entered, first, second = passed(adversary, script, PhaseEntered(3, 0, "CHECKSUMS"), sums(3))
    assert entered == PhaseEntered(3, 0, "CHECKSUMS")
    assert isinstance(first, Say) and isinstance(second, Say)
    assert (first.to, second.to) == ((0,), (1, 2))
    assert first.body != second.body
    assert adversary.attacked == [3]
