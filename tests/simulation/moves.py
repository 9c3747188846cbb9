"""The moves of tests/adversary for the random composer: attackers that hold messages back, say others, and act just
before and after the deadlines and rounds of honest peers.

They stand beside the attacks of the registry, on the whole simulation: one mind for all attackers, which knows what
everybody has heard. What it says is made by tests/adversary/craft.py.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from random import Random

from msgspec.structs import replace as changed

from btard.node.protocol.api import MessageArrived, Output, Say, ViewArrived
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.wire.messages import Body, Endorsed, Outcome, Phase, Signed, View
from tests.adversary import craft
from tests.adversary.moves import CONTENTS, REASONS
from tests.simulation.hooked import AFTERWARDS_S, Hooked
from tests.simulation.hostile import interpose
from tests.simulation.stage import Stage

Where = tuple[bytes, bytes, int, int]

TREATMENTS = ("hold", "twin", "both", "bad", "odd")
"""What becomes of an own message; see tests/adversary/moves.py."""
ACTS = ("give", "trip", "trip-", "susp", "view", "view-", "fate", "fate-")
"""What is done at an instant; `-`: in the attempt before."""
SIDES = ("before", "after")
TIMERS = ("deadline", "window", "round")
"""Kinds of timers: of a phase, of the time in which the attempt before can be disputed, of a dispute."""
MOVES = (
    *(f"message: {verb}" for verb in TREATMENTS),
    *(f"act: {act}" for act in ACTS),
    *(f"instant: {side} a {kind}" for side in SIDES for kind in TIMERS),
    *(f"view: {content}" for content in CONTENTS),
    "outcome: completed",
)
"""As they are counted."""

_NEAR_S = (1e-6, 1e-3)
"""How close to an instant."""


@dataclass(slots=True)
class _Held:
    """A message that some have not been given."""

    sender: int
    signed: Signed
    body: Body
    waiting: tuple[int, ...]


def kind_of(timer: str) -> str:
    """Which of TIMERS a timer is, by its name; empty for others."""
    if timer in ("messages", "bulk", "stall", "laggards"):
        return "deadline"
    if timer in ("before", "forward"):
        return "window"
    return "round" if timer.startswith(("dispute ", "outcome ")) else ""


class Mind:
    """What the attackers of a run do beside their registered attacks.

    Args:
        stage: of the run, whose simulation is a Hooked one.
        dice: draws all of it.
        first, last: steps at which messages are treated.
        share: of the attackers' messages that are.
        most: acts at instants.
    """

    def __init__(self, stage: Stage, dice: Random, first: int, last: int, share: float, most: int) -> None:
        assert isinstance(stage.simulation, Hooked)
        self._stage, self._dice, self._simulation = stage, dice, stage.simulation
        self._first, self._last, self._share, self._left = first, last, share, most
        self._held: list[_Held] = []
        self._completed: set[tuple[Where, int]] = set()
        self._simulation.on_timer = self._timer
        self._simulation.on_say = self._heard
        self._completes = dice.choice((0.0, 0.5, 1.0))
        for puppet in stage.roles:
            interpose(stage, puppet, lambda output, puppet=puppet: self._said(puppet, output))  # type: ignore[misc]

    # --- what the attackers' own peers say ------------------------------------------------------------------------

    def _said(self, puppet: int, output: Output) -> Iterable[Output]:
        if not isinstance(output, Say) or not self._first <= output.body.slot.step <= self._last:
            return (output,)
        honest = tuple(peer for peer in output.to if peer in self._stage.honest)
        late = isinstance(output.body, View | Outcome)
        if not honest or self._dice.random() >= self._share * (2.0 if late else 1.0):
            return (output,)
        verb = self._dice.choice(TREATMENTS)
        targets = self._some(honest)
        other = craft.crafted("twin" if verb == "both" else verb, output.body) if verb != "hold" else None
        if verb != "hold" and other is None:
            return (output,)
        self._note(puppet, output.body.slot.step, verb)
        rest = replace(output, to=tuple(peer for peer in output.to if peer not in targets))
        signed = self._simulation.nodes[puppet].sign(output.body)
        if verb == "hold":
            self._held.append(_Held(puppet, signed, output.body, targets))
            return (rest,) if rest.to else ()
        assert other is not None
        if verb == "both":
            return (output, Say(targets, other))
        self._held.append(_Held(puppet, signed, output.body, targets))
        return (*((rest,) if rest.to else ()), Say(targets, other))

    def _heard(self, node: int, body: Body) -> None:
        """An honest peer signs an OUTCOME: the attackers may complete a majority of it, for some."""
        if not isinstance(body, Outcome) or node in self._stage.roles or self._dice.random() >= self._completes:
            return
        where, honest = body.slot.where, tuple(peer for peer in self._stage.honest if self._simulation.running(peer))
        if (where, node) in self._completed or not honest:
            return
        self._completed.add((where, node))
        targets = self._some(honest)
        for puppet in self._stage.roles:
            signed = self._simulation.nodes[puppet].sign(changed(body, slot=changed(body.slot, sender=puppet)))
            self._hand(targets, MessageArrived(puppet, signed))
            self._mark(puppet, where[2])
        self._simulation.moves["outcome: completed"] += 1

    # --- at instants -----------------------------------------------------------------------------------------------

    def _timer(self, node: int, name: str, number: int, at_s: float) -> None:
        kind = kind_of(name)
        if not kind or node not in self._stage.honest or self._left <= 0:
            return
        if self._dice.random() < (0.6 if kind == "round" else 0.3):
            near_s = self._dice.choice(_NEAR_S)
            side = self._dice.choice(SIDES)
            self._simulation.at(
                at_s - self._simulation.now_s - near_s, lambda: self._near(node, name, number, side, near_s)
            )

    def _near(self, node: int, name: str, number: int, side: str, near_s: float) -> None:
        """A timer that still runs is about to run out."""
        if not self._simulation.pending(node, name, number) or self._left <= 0:
            return
        after_s = 0.0 if side == "before" else 2.0 * near_s + AFTERWARDS_S
        self._simulation.at(after_s, lambda: self._act(node, f"{side} a {kind_of(name)}"))

    def _act(self, node: int, instant: str) -> None:
        """Toward the peer whose instant it is, or others too, one or two acts."""
        for _ in range(self._dice.choice((1, 1, 2))):
            waiting = [held for held in self._held if held.waiting]
            act = "give" if waiting and self._dice.random() < 0.4 else self._dice.choice(ACTS[1:])
            if act == "give":
                done = self._give(self._dice.choice(waiting))
            else:
                attempt = self._attempt(node, act.endswith("-"))
                done = attempt is not None and self._toward(act.rstrip("-"), attempt)
            if done:
                self._left -= 1
                self._simulation.moves[f"instant: {instant}"] += 1
                self._simulation.moves[f"act: {act}"] += 1

    def _give(self, held: _Held) -> bool:
        targets = self._some(held.waiting)
        held.waiting = tuple(peer for peer in held.waiting if peer not in targets)
        self._hand(targets, MessageArrived(held.sender, held.signed))
        self._mark(held.sender, held.body.slot.step)
        return True

    def _toward(self, act: str, attempt: Attempt) -> bool:
        honest = tuple(peer for peer in attempt.roster.active if peer in self._stage.honest)
        puppets = [peer for peer in attempt.roster.active if peer in self._stage.roles]
        if not honest or not puppets:
            return False
        where, targets, puppet = attempt.slot(Phase.COMMIT).where, self._some(honest), self._dice.choice(puppets)
        match act:
            case "trip":
                said = [(puppet, body) for body in craft.equivocation(where, puppet)]
            case "susp":
                peer = self._dice.choice(attempt.roster.active)
                phase = self._dice.choice(
                    [phase for phase in Phase if Phase.COMMIT.value <= phase.value <= Phase.CLOSE.value]
                )
                said = [(each, craft.suspicion(where, each, phase, peer)) for each in puppets if each != peer]
            case "fate":
                peer, reason = self._dice.choice(attempt.roster.active), self._dice.choice(REASONS)
                said = [(each, craft.fate(where, each, peer, reason)) for each in puppets]
            case _:
                return self._view(where, puppet, puppets, targets)
        for each, body in said:
            self._hand(targets, MessageArrived(each, self._simulation.nodes[each].sign(body)))
            self._mark(each, where[2])
        return bool(said)

    def _view(self, where: Where, puppet: int, puppets: list[int], targets: tuple[int, ...]) -> bool:
        """A view of an attempt with a chain as long as one likes, so that it comes in time for a later round."""
        content = self._dice.choice(CONTENTS)
        sign = self._simulation.nodes[puppet].sign
        two = tuple(sign(body) for body in craft.equivocation(where, puppet))
        known = () if content == "trip" else tuple(self._known(where))
        extra = two if content == "trip" else two[:1] if content == "second" else ()
        endorsed = Endorsed(sign(craft.view(where, puppet, known, extra, content != "bare")), ())
        others = [peer for peer in puppets if peer != puppet]
        for other in others[: self._dice.randint(0, len(others))]:
            endorsed = self._simulation.nodes[other].endorse(endorsed)
        self._hand(
            targets, ViewArrived(puppet, endorsed) if endorsed.endorsements else MessageArrived(puppet, endorsed.view)
        )
        self._simulation.moves[f"view: {content}"] += 1
        self._mark(puppet, where[2])
        return True

    # --- what it knows --------------------------------------------------------------------------------------------

    def _attempts(self) -> Iterator[Attempt]:
        for node in self._simulation.nodes.values():
            peer = node.peer
            rounds = (peer.router.previous.round, peer.shared.round)
            yield from (each for each in (peer.past, *(round_ and round_.attempt for round_ in rounds)) if each)

    def _known(self, where: Where) -> dict[Signed, None]:
        """All that anybody holds of an attempt, and what is held back."""
        found: dict[Signed, None] = {}
        for attempt in self._attempts():
            if attempt.slot(Phase.COMMIT).where == where:
                found |= dict.fromkeys(attempt.transcript.everything())
        return found | {held.signed: None for held in self._held if held.body.slot.where == where}

    def _attempt(self, node: int, back: bool) -> Attempt | None:
        peer = self._simulation.nodes[node].peer
        if not back:
            return peer.attempt
        previous = peer.router.previous.round
        return previous.attempt if previous is not None else peer.past

    def _some(self, peers: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(self._dice.sample(peers, self._dice.randint(1, len(peers)))))

    def _hand(self, targets: tuple[int, ...], event: MessageArrived | ViewArrived) -> None:
        for peer in targets:
            if self._simulation.running(peer):
                self._simulation.hand(peer, event)

    def _note(self, puppet: int, step: int, move: str) -> None:
        self._simulation.moves[f"message: {move}"] += 1
        self._mark(puppet, step)

    def _mark(self, puppet: int, step: int) -> None:
        """The truth about who attacked at which step, for the checkers."""
        attacked = self._stage.adversary(puppet).attacked
        if step not in attacked:
            insort(attacked, step)
