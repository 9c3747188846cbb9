"""A Byzantine node: an honest Peer between two filters, with a replaceable batch, gradient and aggregate.

Nothing in honest code knows of it. node/build.py wires it so:

    adversary = Adversary(role, me, ...)
    peer = Peer(..., rule=adversary.wrap_rule(rule))
    node = adversary.around(peer)

and the driver asks `node.transform(step)` before it computes an OWN gradient.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from node.attacks.registry import BoundAttack, bind_role
from node.attacks.view import Span, View, generator
from node.config import Role
from node.errors import ConfigError, LocalProtocolError, WireError
from node.protocol.events import Banned, GradientReady, Input, MessageArrived, Output, PhaseEntered, Purpose, Say
from node.protocol.messages import Body, Commit, decode_body
from node.protocol.rule import Aggregated, Rule

BatchTransform: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Machine(Protocol):
    """The surface of a Peer."""

    def handle(self, event: Input, /) -> list[Output]:
        """Outputs that answer an input."""


class Adversary:
    """The filters around one honest peer.

    Args:
        role: attacks, schedule and accomplices.
        me: genesis id of this node.
        layout, dimension, classes: of the task (node/training/task.py).
        recompute: returns a peer's honest gradient of the current step; None: this attacker cannot.

    Raises:
        ConfigError: an unknown attack or parameter, or an attack on labels where the task has none.
    """

    def __init__(
        self,
        role: Role,
        me: int,
        *,
        layout: Sequence[Span] = (),
        dimension: int = 0,
        classes: int = 0,
        recompute: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.attacked: list[int] = []
        """Steps at which an attack of the schedule changed something, ascending; for the launcher's score only."""
        self._role = role
        self._attacks = bind_role(role)
        for attack in self._attacks:
            if attack.needs_classes and classes < 2:
                raise ConfigError(f"attack {attack.name!r} needs a task with labels; use --task mnist_cnn")
        self._base = View(
            step=0,
            me=me,
            accomplices=role.accomplices or (me,),
            layout=tuple(layout),
            dimension=dimension,
            classes=classes,
            attack_seed=role.attack_seed,
            recompute=recompute,
        )
        self._peer: Machine | None = None
        self._honest = False
        self._step = -1
        self._commits = _Commits()
        self._history: deque[tuple[int, Tensor]] = deque(maxlen=1 + max(attack.memory for attack in self._attacks))

    # --- wiring -----------------------------------------------------------------------------------------------

    def wrap_rule(self, rule: Rule) -> Rule:
        """The rule to give to the peer: the same, but for the aggregates of scheduled steps."""
        return _FalseRule(rule, self) if self._of("aggregate") else rule

    def around(self, peer: Machine) -> Adversary:
        """This adversary around `peer`, with the surface of a peer."""
        self._peer = peer
        return self

    # --- the surface ------------------------------------------------------------------------------------------

    def handle(self, event: Input) -> list[Output]:
        """Outputs that answer an input, as the attacker wants them.

        Raises:
            LocalProtocolError: no peer has been put inside.
        """
        if self._peer is None:
            raise LocalProtocolError("an Adversary handles nothing before around(peer)")
        outputs: list[Output] = []
        for output in self._peer.handle(self._filter_input(event)):
            outputs += self._filter_output(output)
        return outputs

    def transform(self, step: int) -> BatchTransform | None:
        """What this attacker does to the batch of its own gradient at `step`; None: nothing."""
        attacks = self._firing("data", step)
        if not attacks:
            return None

        def transformed(inputs_B: Tensor, targets_B: Tensor) -> tuple[Tensor, Tensor]:
            self._mark(step)
            for attack in attacks:
                inputs_B, targets_B = attack.function(inputs_B, targets_B, self.view(step))
            return inputs_B, targets_B

        return transformed

    def attacks_at(self, step: int) -> bool:
        """True if the schedule fires at `step`; one draw per step, the same whenever it is asked."""
        schedule = self._role.schedule
        if self._honest or not schedule.scheduled(step):
            return False
        if schedule.probability >= 1.0:
            return True
        coin = generator(self._base.attack_seed, "schedule", self._base.me, step)
        return float(torch.rand((), dtype=torch.float64, generator=coin)) < schedule.probability

    def view(self, step: int) -> View:
        """What this attacker knows at `step`."""
        active, contributors = self._commits.heard(step)
        history = MappingProxyType(dict(self._history))
        return replace(self._base, step=step, active=active, contributors=contributors, history=history)

    def aggregate(self, honest: Aggregated) -> Aggregated:
        """What the peer is told that its rule found for its own part of the current step."""
        attacks = self._firing("aggregate", self._step)
        if not attacks:
            return honest
        value_P = honest.value_P
        for attack in attacks:
            value_P = _sendable(attack.function(value_P, self.view(self._step)))
        self._mark(self._step)
        return replace(honest, value_P=value_P)

    # --- filters ----------------------------------------------------------------------------------------------

    def _filter_input(self, event: Input) -> Input:
        match event:
            case MessageArrived():
                self._commits.listen(event)
            case GradientReady(purpose=Purpose.OWN):
                self._history.append((event.step, event.gradient_D))
                attacks = self._firing("gradient", event.step)
                if attacks:
                    gradient_D = event.gradient_D
                    for attack in attacks:
                        gradient_D = _sendable(attack.function(gradient_D, self.view(event.step)))
                    self._mark(event.step)
                    return replace(event, gradient_D=gradient_D)
        return event

    def _filter_output(self, output: Output) -> Sequence[Output]:
        match output:
            case PhaseEntered():
                self._step = output.step
            case Banned() if output.peer == self._base.me and not output.removed:
                # The report's rule 2: a banned worker that stays behaves from now on.
                self._honest = True
            case Say():
                body = self._rewrite(output.body)
                if body is not output.body:
                    output = replace(output, body=body)
        outputs: Sequence[Output] = (output,)
        for attack in self._firing("outputs", self._step):
            view = self.view(self._step)
            changed = [new for old in outputs for new in attack.function(old, view)]
            if len(changed) != len(outputs) or any(new is not old for new, old in zip(changed, outputs, strict=True)):
                self._mark(self._step)
                outputs = changed
        return outputs

    def _rewrite(self, body: Body) -> Body:
        step = body.slot.step
        for attack in self._firing("messages", step):
            changed: Body = attack.function(body, self.view(step))
            if changed is not body and not attack.always:
                self._mark(step)
            body = changed
        return body

    # --- helpers ----------------------------------------------------------------------------------------------

    def _of(self, acts_on: str) -> list[BoundAttack]:
        return [attack for attack in self._attacks if attack.acts_on == acts_on]

    def _firing(self, acts_on: str, step: int) -> list[BoundAttack]:
        """Attacks of a kind that act at `step`, in the role's order."""
        attacks = [] if self._honest else self._of(acts_on)
        if not attacks:
            return attacks
        scheduled = self.attacks_at(step)
        return [attack for attack in attacks if scheduled or attack.always]

    def _mark(self, step: int) -> None:
        if not self.attacked or self.attacked[-1] != step:
            self.attacked.append(step)


class _Commits:
    """Who takes part in the latest attempt, from the COMMITs that this node heard."""

    def __init__(self) -> None:
        self._at = (-1, -1)
        self._contributes: dict[int, bool] = {}

    def listen(self, event: MessageArrived) -> None:
        """Note a COMMIT; the honest peer inside decides for itself whether it is valid."""
        try:
            body = decode_body(event.signed.body)
        except WireError:
            return
        if not isinstance(body, Commit):
            return
        at = (body.slot.step, body.slot.attempt)
        if at > self._at:
            self._at, self._contributes = at, {}
        if at == self._at:
            self._contributes[body.slot.sender] = bool(body.parts)

    def heard(self, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(active, contributors) of the latest attempt at `step`, ascending; empty if none of it was heard."""
        if step != self._at[0]:
            return (), ()
        senders = sorted(self._contributes)
        return tuple(senders), tuple(peer for peer in senders if self._contributes[peer])


class _FalseRule:
    """A rule that tells the truth about everything but its own node's aggregates at scheduled steps."""

    def __init__(self, rule: Rule, adversary: Adversary) -> None:
        self._rule = rule
        self._adversary = adversary

    @property
    def audited(self) -> bool:
        return self._rule.audited

    def aggregate(self, inputs_NP: Tensor, radius: float) -> Aggregated:
        return self._adversary.aggregate(self._rule.aggregate(inputs_NP, radius))

    def clip_radius(self, radius: float) -> float:
        return self._rule.clip_radius(radius)

    def slack(self, norms: Sequence[float], radius: float) -> float:
        return self._rule.slack(norms, radius)

    def accepts(self, inputs_NP: Tensor, value_P: Tensor, radius: float) -> bool:
        return self._rule.accepts(inputs_NP, value_P, radius)


def _sendable(values: Tensor) -> Tensor:
    """A contiguous float32 tensor of its own, without negative zeros: the form in which every tensor travels."""
    return values.to(torch.float32).contiguous() + 0.0
