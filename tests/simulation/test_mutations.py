"""What each check is for: take it away, and some run breaks a promise that it keeps with the check in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from btard.node.build import Machine
from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.drivers.simulator import Observed
from btard.node.protocol.adjudication import judging
from btard.node.protocol.api import Banned, Finished, Input, MessageArrived, Output, Say
from btard.node.protocol.attempt import attempt
from btard.node.protocol.attempt.verification import Draw
from btard.node.protocol.state import transition
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Checksums, Report
from tests.simulation.checkers import PROMISES, Accuracy, Agreement, Liveness
from tests.simulation.stage import Stage, play, set_up


@dataclass(frozen=True, slots=True)
class AllCaught:
    """Accountability of a run whose attackers are bound to be caught: none of them is active at its end."""

    stage: Stage
    banned: set[int] = field(default_factory=set)

    def see(self, seen: Observed) -> None:
        if seen.node == self.stage.witness and isinstance(seen.output, Banned):
            self.banned.add(seen.output.peer)

    def end(self) -> None:
        assert self.banned == set(self.stage.roles), f"banned: {self.banned} of {set(self.stage.roles)}"


def quadratic(peers: int, steps: int, **more: object) -> RunConfig:
    return RunConfig(peers=peers, task=Plugin("quadratic"), steps=steps, batch_size=1, **more)  # type: ignore[arg-type]


# --- the attacks ----------------------------------------------------------------------------------------------------


class Covering:
    """An attacker that shifts the aggregate of its own part and hides it from V2 by its own s.

    It waits for everyone's checksums and announces what makes the sum vanish; as the aggregator of that part it
    reports its own lie as true (V1). Its peer applies the shift (`shift_aggregate` in its role).
    """

    def __init__(self, inner: Machine, me: int, start: int, contributors: int) -> None:
        self._inner, self._me, self._start, self._wanted = inner, me, start, contributors
        self._column: dict[tuple[int, int], dict[int, float]] = {}
        self._kept: dict[tuple[int, int], Say] = {}

    def handle(self, event: Input, /) -> list[Output]:
        if isinstance(event, MessageArrived):
            body = decode_body(event.signed.body)
            if isinstance(body, Checksums) and body.s:
                at = body.slot.step, body.slot.attempt
                self._column.setdefault(at, {})[body.slot.sender] = body.s[self._me]
        outputs: list[Output] = []
        for output in self._inner.handle(event):
            match output:
                case Say(body=Checksums() as own) if own.s and own.slot.step >= self._start:
                    self._kept[own.slot.step, own.slot.attempt] = output
                case Say(body=Report() as report):
                    body = msgspec.structs.replace(report, checks=(True,) * len(report.checks))
                    outputs.append(replace(output, body=body))
                case _:
                    outputs.append(output)
        return outputs + list(self._release())

    def _release(self) -> Iterator[Say]:
        for at, say in list(self._kept.items()):
            others = self._column.get(at, {})
            if len(others) == self._wanted - 1:
                del self._kept[at]
                assert isinstance(say.body, Checksums)
                s = list(say.body.s)
                s[self._me] = -math.fsum(others.values())
                yield replace(say, body=msgspec.structs.replace(say.body, s=tuple(s)))


def covered_shift(peers: int, start: int, steps: int, scale: float, tau: float) -> Stage:
    """Peer `peers - 1` covers a shift of its aggregate from step `start` on; nobody validates."""
    me = peers - 1
    attack = Plugin("shift_aggregate", {"scale": scale, "relative": False})
    stage = set_up(quadratic(peers, steps, tau=tau, validators=0), {me: Role((attack,), Schedule(start), (me,))})
    node = stage.simulation.nodes[me]
    stage.simulation.nodes[me] = replace(node, machine=Covering(node.machine, me, start, peers))
    return stage


def two_attackers(*attacks: Plugin, steps: int = 4, validators: int = 0, seed: int = 0) -> Stage:
    """Peers 4 and 5 of six attack from step 1 on, each by one of the attacks."""
    roles = {4 + place: Role((attack,), Schedule(start=1), (4, 5), seed) for place, attack in enumerate(attacks)}
    return set_up(quadratic(6, steps, validators=validators), roles, seed)


def lies_that_cancel() -> Stage:
    lies = [Plugin("lie_checksum", {"variant": "offset", "part": 0, "amount": amount}) for amount in (0.5, -0.5)]
    return two_attackers(*lies)


# --- the mutations --------------------------------------------------------------------------------------------------


def yes(*_: object, **__: object) -> bool:
    return True


def no(*_: object, **__: object) -> bool:
    return False


def all_checks_pass(self: attempt.Attempt) -> tuple[bool, ...]:
    return (True,) * len(self.contributors)


def nobody_validates(*_: object) -> Draw:
    return Draw()


@dataclass(frozen=True, slots=True)
class Mutation:
    """A check, what replaces it, and a run that needs it."""

    name: str
    where: object
    attribute: str
    replacement: Callable[..., object]
    stage: Callable[[], Stage]


MUTATIONS: Sequence[Mutation] = (
    Mutation("V0", judging, "plausible", yes,
             lambda: covered_shift(24, start=0, steps=1, scale=100.0, tau=0.1)),
    Mutation("V1", attempt.Attempt, "checks", all_checks_pass, lies_that_cancel),
    Mutation("V2", judging, "sums_to_zero", yes, lambda: two_attackers(*2 * [Plugin("shift_aggregate")])),
    Mutation("V3", judging, "too_many_far", no,
             lambda: covered_shift(5, start=11, steps=12, scale=200.0, tau=5.0)),
    Mutation("validators", transition, "draw", nobody_validates,
             lambda: two_attackers(*2 * [Plugin("sign_flip")], steps=40, validators=1)),
)  # fmt: skip
every_mutation = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)


@pytest.mark.slow
@every_mutation
def test_with_the_check_every_promise_holds(mutation: Mutation) -> None:
    play(mutation.stage(), (AllCaught, *PROMISES))


@pytest.mark.slow
@every_mutation
def test_without_the_check_the_attackers_stay(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other promises hold as before: what is lost is that the attack is noticed."""
    monkeypatch.setattr(mutation.where, mutation.attribute, mutation.replacement)
    stage = mutation.stage()
    with pytest.raises(AssertionError, match="banned: set"):
        play(stage, (AllCaught, Agreement, Accuracy, Liveness))


def test_a_shift_without_v2_reaches_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = {found.node: found.output for found in play(two_attackers(), ()) if isinstance(found.output, Finished)}
    monkeypatch.setattr(judging, "sums_to_zero", yes)
    stage = two_attackers(*2 * [Plugin("shift_aggregate")])
    shifted = {found.node: found.output for found in play(stage, ()) if isinstance(found.output, Finished)}
    assert float((honest[0].parameters_D - shifted[0].parameters_D).norm()) > 0.1
