"""Each gradient is asked for once, and kept until the step is committed."""

from __future__ import annotations

import torch

from btard.node.protocol.api import GradientReady, Purpose
from btard.node.protocol.attempt.gradient_requests import Gradients
from tests.protocol_attempts import complete

ROUND = complete(step=1)


def ready(purpose: Purpose, peer: int) -> GradientReady:
    return GradientReady(purpose, 1, peer, torch.ones(19), 0.5)


def test_its_own_is_asked_for_once() -> None:
    gradients = Gradients()
    (wanted,) = gradients.want_own(ROUND.attempt)
    assert (wanted.purpose, wanted.step, wanted.peer) == (Purpose.OWN, 1, 0)
    assert wanted.seed == ROUND.attempt.seed(0)
    assert wanted.parameters_D is ROUND.attempt.state.parameters_D
    assert gradients.want_own(ROUND.attempt) == []
    assert gradients.take(ready(Purpose.OWN, 0))
    assert gradients.own_D is not None


def test_what_a_validator_asked_for_serves_the_judge() -> None:
    gradients, past = Gradients(), ROUND.past
    assert past is not None
    (wanted,) = gradients.want_past(Purpose.VALIDATE, past, 3)
    assert (wanted.step, wanted.seed) == (0, past.seed(3))
    assert gradients.want_past(Purpose.JUDGE, past, 3) == []
    assert gradients.take(ready(Purpose.VALIDATE, 3))
    assert gradients.recomputed.keys() == {3}
    assert gradients.own_D is None


def test_nobody_asked() -> None:
    gradients = Gradients()
    assert not gradients.take(ready(Purpose.OWN, 0))
    assert not gradients.take(ready(Purpose.JUDGE, 2))
    assert gradients.own_D is None
    assert gradients.recomputed == {}
