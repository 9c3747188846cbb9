"""Gaps that reviews found, closed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.protocol.api import Banned, Finished, Output, Say
from btard.node.protocol.wire.messages import Hello
from tests.simulation.hostile import interpose
from tests.simulation.stage import play, set_up

BAD = 5


@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
def test_a_peer_that_greets_with_two_fingerprints_harms_nobody(tolerance: float) -> None:
    """HELLO is in no prefix, so nothing that honest peers sign may depend on what it showed them."""
    stage = set_up(RunConfig(peers=6, task=Plugin("quadratic"), steps=2, recompute_tolerance=tolerance))

    def rewrite(output: Output) -> Iterable[Output]:
        if isinstance(output, Say) and isinstance(output.body, Hello):
            return [output, Say((0, 1), msgspec.structs.replace(output.body, fingerprint=b"another"))][::-1]
        return [output]

    interpose(stage, BAD, rewrite)
    seen = play(stage, ())
    assert {found.node for found in seen if isinstance(found.output, Finished)} >= set(range(5))
    assert not any(isinstance(found.output, Banned) and found.output.peer != BAD for found in seen)


def test_an_undefended_run_goes_on_when_the_attackers_have_destroyed_the_model() -> None:
    """The mean is run undefended. Honest gradients have a defined, finite form before they are committed to (NaN as 0,
    entries cut at 2^40), the same for contributors, validators and verifiers."""
    run = RunConfig(peers=6, task=Plugin("quadratic"), rule=Plugin("mean"), steps=25, validators=0)
    role = Role((Plugin("sign_flip"),), Schedule(start=2), (4, 5))
    seen = play(set_up(run, {4: role, 5: role}), ())
    assert {found.node for found in seen if isinstance(found.output, Finished)} >= {0, 1, 2, 3}
