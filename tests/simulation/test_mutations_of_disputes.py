"""What each safeguard of disputes is for: take it away, and some run breaks a promise that it keeps with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.netem.links import Link, LinkModel
from btard.node.protocol.attempt.round import Ending, Round
from btard.node.protocol.disputes import dolev_strong
from btard.node.protocol.disputes.dispute import Dispute
from btard.node.protocol.disputes.resolution import ViewMerge
from btard.node.protocol.evidence.verifier import UnprovenError
from btard.node.protocol.settings import Settings
from btard.node.protocol.wire.certificate import Certificate
from btard.node.protocol.wire.messages import Phase
from tests.simulation.checkers import PROMISES
from tests.simulation.stage import Stage, play, set_up

BOUND_S = 0.5
STEP = 2
BOTH = (4, 5)
BEGIN = Dispute.begin


def attacked(seed: int, links: LinkModel, attackers: tuple[int, ...], *attacks: Plugin, peers: int = 6) -> Stage:
    """A short run in which some peers attack from step 2 on."""
    run = RunConfig(peers=peers, task=Plugin("quadratic", {"dimension": 8}), steps=3, batch_size=1,
                    delivery_bound_s=BOUND_S, gradient_bound_s=1.0)  # fmt: skip
    role = Role(attacks, Schedule(start=STEP), attackers, attack_seed=seed)
    return set_up(run, dict.fromkeys(attackers, role), seed, links)


def last_close(before_s: float, to: str = "one") -> tuple[Plugin, ...]:
    """CLOSE goes to few, so late that the others suspect its sender; who shows no certificate in the dispute."""
    instant = Plugin("last_instant", {"phase": "CLOSE", "to": to, "before_s": before_s})
    return instant, Plugin("stall", {"phase": "VIEW"})


def a_close_after_the_freeze(seed: int) -> Stage:
    """Two CLOSEs of one peer are disputed; the last CLOSE that was missing reaches half of the others meanwhile."""
    return attacked(seed, LinkModel(delay_s=0.01), BOTH, Plugin("two_camps", {"to": "half", "late_s": 2.0}))


def another_prefix(seed: int) -> Stage:
    return attacked(seed, LinkModel(), (5,), Plugin("false_prefix", {"phase": "CLOSE"}))


def slow_for_one(seed: int) -> LinkModel:
    """What peer 2 says and hears takes D."""
    slow = {pair: Link(0.999 * BOUND_S) for other in range(6) for pair in ((2, other), (other, 2)) if other != 2}
    return LinkModel(delay_s=0.001, overrides=slow, seed=seed)


def starts_far_apart(seed: int, attackers: tuple[int, ...] = (5,)) -> Stage:
    """The one peer that holds the certificate begins the dispute D after the others, and its view takes D to them."""
    return attacked(seed, slow_for_one(seed), attackers, *last_close(0.6, to="@2"))


def a_certificate_beside_a_second_close(seed: int) -> Stage:
    """The same, and the others have two CLOSEs of one peer to dispute."""
    return attacked(seed, slow_for_one(seed), BOTH, Plugin("two_camps", {"to": "@2", "before_s": 0.6}))


def two_closes_beside_a_certificate(seed: int) -> Stage:
    links = LinkModel(delay_s=0.01, jitter_s=0.02, seed=seed)
    return attacked(seed, links, BOTH, Plugin("two_camps", {"to": "one", "before_s": 0.1}))


@dataclass(frozen=True, slots=True)
class Mutation:
    """A safeguard, what replaces it, and runs that need it, by seed."""

    name: str
    where: object
    attributes: dict[str, object]
    stage: Callable[[int], Stage]


def nothing(*_: object) -> None:
    return None


def begin_without_a_freeze(self: Dispute) -> None:
    """Show the view, and listen to step messages as before."""
    BEGIN(self)
    self.round.frozen, self.round.sealed, self.round.trigger = False, False, None
    self.round._dispute = nothing  # type: ignore[method-assign]


def no(*_: object) -> bool:
    return False


def end_by_values_alone(self: Round) -> None:
    """Take n CLOSEs of one value for the end, whatever history they name."""
    assert self.verdict is not None
    closes = self.attempt.closed()
    if len({close.value for close in closes.values()}) == 1:
        messages = tuple(self.attempt.transcript.signed(Phase.CLOSE).values())
        self.ending = Ending(*self.verdict, Certificate(closes[self.attempt.me], messages))


def half_as_long(settings: Settings) -> float:
    return settings.delivery_bound_s


MUTATIONS = (
    Mutation("the freeze", Dispute, {"begin": begin_without_a_freeze}, a_close_after_the_freeze),
    Mutation(
        "the prefix check", Round, {"_compare": nothing, "_unfit": no, "_end": end_by_values_alone}, another_prefix
    ),
    Mutation("rounds of 2 D", dolev_strong, {"dispute_round_s": half_as_long}, a_certificate_beside_a_second_close),
    Mutation("the certificate's priority", ViewMerge, {"_certificate": nothing}, two_closes_beside_a_certificate),
)
every_mutation = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
SEEDS = range(6)


@pytest.mark.slow
@every_mutation
def test_with_the_safeguard_every_promise_holds(mutation: Mutation) -> None:
    for seed in SEEDS:
        play(mutation.stage(seed), PROMISES)


@every_mutation
def test_without_the_safeguard_some_seed_breaks_a_promise(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    for attribute, replacement in mutation.attributes.items():
        monkeypatch.setattr(mutation.where, attribute, replacement, raising=False)
    with pytest.raises((AssertionError, UnprovenError)):
        for seed in SEEDS:
            play(mutation.stage(seed), PROMISES)


def test_who_leaves_with_the_last_certificate_counts_in_the_majority() -> None:
    """Two silent attackers and one that is done: the other three of six are no majority without its word."""
    play(starts_far_apart(0, BOTH), PROMISES)
