"""A Byzantine node: an honest Peer between two filters, with a replaceable batch, gradient and aggregate.

Nothing in honest code knows of it. node/build.py wires it so:

    adversary = Adversary(role, me, ...)
    peer = Peer(..., rule=adversary.wrap_rule(rule))
    node = adversary.around(peer)

and the driver asks `node.transform(step)` before it computes an OWN gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias, get_args

import torch
from torch import Tensor

from btard.node.adversary.attacks.false_rule import FalseRule
from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.memory import Memory
from btard.node.adversary.registry import BoundAttack, bind_role
from btard.node.adversary.timing import conditions, pays
from btard.node.adversary.view import Span, View, generator
from btard.node.config import Role
from btard.node.errors import ConfigError, LocalProtocolError, PluginError
from btard.node.protocol.api import (
    Banned,
    DeadlinePassed,
    GradientReady,
    Input,
    MessageArrived,
    Output,
    PhaseEntered,
    Purpose,
    Say,
    TimePassed,
)
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.rule import Aggregated, Rule
from btard.node.protocol.wire.messages import Body

BatchTransform: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


_OWN_TIMER = "attack "
_BODIES, _OUTPUTS = get_args(Body), get_args(Output)


class Machine(Protocol):
    """The surface of a Peer."""

    comes_back: bool
    """Removed as gone, it asks to be let in again."""

    @property
    def attempt(self) -> Attempt | None:
        """The attempt under way."""

    def handle(self, event: Input, /) -> list[Output]:
        """Outputs that answer an input."""


class Adversary:
    """The filters around one honest peer.

    Args:
        role: attacks, schedule and accomplices.
        me: genesis id of this node.
        layout, dimension, classes: of the task (node/training/task.py).
        recompute: returns a peer's honest gradient of the current step; None: this attacker cannot.
        combine: what the rule makes of contributions `[N, D]` in the current attempt; None: this attacker cannot.

    Raises:
        ConfigError: an unknown attack, parameter or condition, an attack on labels where the task has none, or one that
            remembers more than a node should hold.
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
        combine: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.attacked: list[int] = []
        """Steps at which an attack of the schedule changed something, ascending; for the launcher's score only."""
        self._role = role
        self._attacks = bind_role(role)
        for attack in self._attacks:
            if attack.needs_classes and classes < 2:
                raise ConfigError(f"attack {attack.name!r} needs a task with labels; use --task mnist_cnn")
        self._me = me
        base = View(
            step=0,
            me=me,
            accomplices=role.accomplices or (me,),
            layout=tuple(layout),
            dimension=dimension,
            classes=classes,
            attack_seed=role.attack_seed,
            recompute=recompute,
            combine=combine,
        )
        self._memory = Memory(base, 1 + max(attack.memory for attack in self._attacks))
        self._peer: Machine | None = None
        self._honest = False
        self._step = self._altered = -1
        self._conditions = conditions(role.schedule.when)
        self._paying: dict[int, bool] = {}
        self._behaviours: list[Behaviour] = [attack.function() for attack in self._of("node")]
        for place, behaviour in enumerate(self._behaviours):
            behaviour.label = f"{_OWN_TIMER}{place} "

    # --- wiring -----------------------------------------------------------------------------------------------

    def wrap_rule(self, rule: Rule) -> Rule:
        """The rule to give to the peer: the same, but for the aggregates of scheduled steps."""
        return FalseRule(rule, self.aggregate) if self._of("aggregate") or self._behaviours else rule

    def around(self, peer: Machine) -> Adversary:
        """This adversary around `peer`, with the surface of a peer."""
        self._peer = peer
        if any(behaviour.comes_back for behaviour in self._behaviours):
            peer.comes_back = True
        return self

    # --- the surface ------------------------------------------------------------------------------------------

    def handle(self, event: Input) -> list[Output]:
        """Outputs that answer an input, as the attacker wants them.

        Raises:
            LocalProtocolError: no peer has been put inside.
        """
        if self._peer is None:
            raise LocalProtocolError("an Adversary handles nothing before around(peer)")
        if isinstance(event, TimePassed):
            return self._peer.handle(event)
        if isinstance(event, DeadlinePassed) and event.name.startswith(_OWN_TIMER):
            return self._ring(event.name)
        outputs: list[Output] = []
        for output in self._peer.handle(self._filter_input(event)):
            outputs += self._filter_output(output)
        for behaviour in self._behaviours:
            said = behaviour.heard(event, self.view(self._step))
            outputs += self._own(_outputs(type(behaviour).__name__, said))
        return outputs

    def transform(self, step: int) -> BatchTransform | None:
        """What this attacker does to the batch of its own gradient at `step`; None: nothing.

        It may be called in another thread: what it knows is what this attacker knows now."""
        attacks = self._firing("data", step)
        if not attacks:
            return None
        self._altered, view = step, self.view(step)

        def transformed(inputs_B: Tensor, targets_B: Tensor) -> tuple[Tensor, Tensor]:
            for attack in attacks:
                inputs_B, targets_B = _batch(attack, inputs_B, targets_B, view)
            return inputs_B, targets_B

        return transformed

    def attacks_at(self, step: int) -> bool:
        """True if the schedule fires at `step`; one draw and one judgement per step, the same whenever it is asked."""
        schedule = self._role.schedule
        if self._honest or not schedule.scheduled(step):
            return False
        if schedule.probability < 1.0:
            coin = generator(self._role.attack_seed, "schedule", self._me, step)
            if float(torch.rand((), dtype=torch.float64, generator=coin)) >= schedule.probability:
                return False
        return not self._conditions or self._pays(step)

    def _pays(self, step: int) -> bool:
        """Judged once, in the step itself: a gradient outlasts the attempt that it was computed in."""
        attempt = self._peer.attempt if self._peer is not None else None
        if step not in self._paying and attempt is not None and attempt.step == step:
            self._paying[step] = pays(self._conditions, self.view(step), attempt, self.attacked)
        return self._paying.get(step, False)

    def view(self, step: int) -> View:
        """What this attacker knows at `step`."""
        return self._memory.view(step, self._peer.attempt if self._peer is not None else None)

    def aggregate(self, honest: Aggregated) -> Aggregated:
        """What the peer is told that its rule found for its own part of the current step."""
        self._memory.aggregated(self._step, honest.value_P)
        view, value_P = self.view(self._step), honest.value_P
        for attack in self._firing("aggregate", self._step):
            value_P = _vector(attack.name, attack.function, value_P, view)
        for behaviour in self._acting(self._step):
            value_P = _vector(type(behaviour).__name__, behaviour.aggregated, value_P, view)
        if value_P is honest.value_P:
            return honest
        self._mark(self._step)
        return replace(honest, value_P=_sendable(value_P))

    # --- filters ----------------------------------------------------------------------------------------------

    def _filter_input(self, event: Input) -> Input:
        match event:
            case MessageArrived():
                self._memory.hear(event)
            case GradientReady(purpose=Purpose.OWN):
                if event.step == self._altered:
                    self._mark(event.step)
                self._memory.computed(event.step, event.gradient_D)
                return self._contribution(event)
        return event

    def _contribution(self, event: GradientReady) -> GradientReady:
        view, gradient_D = self.view(event.step), event.gradient_D
        attacks = self._firing("gradient", event.step)
        for attack in attacks:
            gradient_D = _sendable(_vector(attack.name, attack.function, gradient_D, view))
        for behaviour in self._acting(event.step):
            changed_D = _vector(type(behaviour).__name__, behaviour.contributed, gradient_D, view)
            gradient_D = gradient_D if changed_D is gradient_D else _sendable(changed_D)
        if gradient_D is event.gradient_D:
            return event
        self._mark(event.step)
        return replace(event, gradient_D=gradient_D)

    def _filter_output(self, output: Output) -> Sequence[Output]:
        match output:
            case PhaseEntered():
                self._step = output.step
            case Banned() if output.peer == self._me and not output.removed:
                # The report's rule 2: a banned worker that stays behaves from now on.
                self._honest = True
            case Say():
                body = self._rewrite(output.body)
                if body is not output.body:
                    output = replace(output, body=body)
        outputs: Sequence[Output] = (output,)
        filters: list[tuple[str, Callable[[Output, View], Sequence[Output]]]] = [
            *((attack.name, attack.function) for attack in self._firing("outputs", self._step)),
            *((type(behaviour).__name__, behaviour.said) for behaviour in self._acting(self._step)),
        ]
        for name, change in filters:
            view = self.view(self._step)
            changed = [new for old in outputs for new in _outputs(name, change(old, view))]
            if len(changed) != len(outputs) or any(new is not old for new, old in zip(changed, outputs, strict=True)):
                self._mark(self._step)
                outputs = changed
        return outputs

    def _rewrite(self, body: Body) -> Body:
        step = body.slot.step
        for attack in self._firing("messages", step):
            changed = attack.function(body, self.view(step))
            if not isinstance(changed, _BODIES):
                raise PluginError(
                    f"attack {attack.name!r} returned {_shown(changed)} for a message; return a message's body, or the "
                    "one it was given to leave it alone"
                )
            if changed is not body and not attack.always:
                self._mark(step)
            body = changed
        return body

    def _ring(self, name: str) -> list[Output]:
        """A timer of the attacker's own: the peer inside never hears of it."""
        outputs: list[Output] = []
        for behaviour in self._behaviours:
            if name.startswith(behaviour.label):
                said = behaviour.rang(name.removeprefix(behaviour.label), self.view(self._step))
                outputs += self._own(_outputs(type(behaviour).__name__, said))
        return outputs

    def _own(self, outputs: Sequence[Output]) -> Sequence[Output]:
        """What a behaviour says of its own accord; it is not filtered again."""
        if outputs:
            self._mark(self._step)
        return outputs

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

    def _acting(self, step: int) -> list[Behaviour]:
        """Attacks with a memory that act at `step`, in the role's order."""
        scheduled = bool(self._behaviours) and self.attacks_at(step)
        return [behaviour for behaviour in self._behaviours if scheduled or behaviour.lasting]

    def _mark(self, step: int) -> None:
        if not self.attacked or self.attacked[-1] != step:
            self.attacked.append(step)


def _sendable(values: Tensor) -> Tensor:
    """A contiguous float32 tensor of its own, without negative zeros: the form in which every tensor travels."""
    return values.to(torch.float32).contiguous() + 0.0


# --- what attacks return: a mistake of their author must not end as misconduct of their node -------------------------


def _vector(name: str, function: Callable[[Tensor, View], Tensor], given_D: Tensor, view: View) -> Tensor:
    """What an attack makes of a vector.

    Raises:
        PluginError: it is no vector of the same length, or the one handed in was changed.
    """
    version = given_D._version
    changed_D: object = function(given_D, view)
    if not isinstance(changed_D, Tensor) or changed_D.shape != given_D.shape or changed_D.is_complex():
        raise PluginError(
            f"attack {name!r} returned {_shown(changed_D)}; return a float32 tensor of shape "
            f"{tuple(given_D.shape)}, as it was given"
        )
    _untouched(name, given_D, version)
    return changed_D


def _batch(attack: BoundAttack, inputs_B: Tensor, targets_B: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """What an attack makes of a batch.

    Raises:
        PluginError: it is no pair of tensors of the same shapes, or the batch handed in was changed.
    """
    versions = inputs_B._version, targets_B._version
    changed = attack.function(inputs_B, targets_B, view)
    shapes = [inputs_B.shape, targets_B.shape]
    if not isinstance(changed, tuple) or [getattr(each, "shape", None) for each in changed] != shapes:
        raise PluginError(
            f"attack {attack.name!r} returned {_shown(changed)}; return a pair (inputs, targets) of tensors of shapes "
            f"{tuple(inputs_B.shape)} and {tuple(targets_B.shape)}, as it was given"
        )
    for given, version in zip((inputs_B, targets_B), versions, strict=True):
        _untouched(attack.name, given, version)
    new_inputs_B, new_targets_B = changed
    return new_inputs_B, new_targets_B


def _untouched(name: str, given: Tensor, version: int) -> None:
    if given._version != version:
        raise PluginError(
            f"attack {name!r} changed the tensor that it was given, which belongs to the peer; return a new one "
            "(`x * 2`, not `x *= 2`; `x.clone()` first)"
        )


def _outputs(name: str, outputs: Sequence[Output]) -> Sequence[Output]:
    """What an attack does, if it is a list of what a peer can do.

    Raises:
        PluginError: it is something else.
    """
    if not isinstance(outputs, list | tuple) or not all(isinstance(each, _OUTPUTS) for each in outputs):
        raise PluginError(
            f"attack {name!r} returned {_shown(outputs)}; return a sequence of outputs, `(output,)` to leave one alone"
        )
    return outputs


def _shown(value: object) -> str:
    """A value that an attack returned, in few words."""
    match value:
        case Tensor():
            return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
        case None:
            return "None"
        case tuple() | list():
            return f"a {type(value).__name__} of {', '.join(_shown(each) for each in value[:3]) or 'nothing'}"
    return f"a {type(value).__name__}"
