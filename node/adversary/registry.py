"""The registry of attacks: a newcomer adds one file to this folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.targets import permitted
from btard.node.adversary.timing import ALWAYS
from btard.node.config import Plugin, Role
from btard.node.errors import ConfigError
from btard.node.nearest import nearest
from btard.node.plugins.registry import Registry

ActsOn: TypeAlias = Literal["gradient", "data", "aggregate", "messages", "outputs", "node"]
"""Where an attack acts, and with it the shape of its function (`view` is a btard.node.adversary.view.View):

- gradient: `f(gradient_D, view, *, ...) -> Tensor[D]`, the contribution that replaces the honest one;
- data: `f(inputs_B, targets_B, view, *, ...) -> (inputs_B, targets_B)`, the batch it is computed on;
- aggregate: `f(value_P, view, *, ...) -> Tensor[P]`, what the node commits to as aggregator;
- messages: `f(body, view, *, ...) -> Body`, a message before it is signed (the same object: left alone);
- outputs: `f(output, view, *, ...) -> Sequence[Output]`, any output of the peer: split, withheld, sent twice;
- node: a btard.node.adversary.behaviour.Behaviour, built as `f(*, ...)`: an attack with a memory, with timers of its
own.
"""

AttackFunction: TypeAlias = Callable[..., Any]

_TAKES: dict[str, tuple[str, ...]] = {
    "gradient": ("gradient_D", "view"),
    "data": ("inputs_B", "targets_B", "view"),
    "aggregate": ("value_P", "view"),
    "messages": ("body", "view"),
    "outputs": ("output", "view"),
    "node": (),
}
assert set(_TAKES) == set(get_args(ActsOn))


class AttackRegistry(Registry[AttackFunction]):
    """Attacks also name the choices of their text parameters, so that a wrong one is refused before the run."""

    def check(self, name: str, parameters: Mapping[str, object]) -> None:
        """Refuse unknown parameters, wrong types, and values that are none of a parameter's choices.

        Raises:
            ConfigError: unknown name, unknown parameter, wrong type or value.
        """
        super().check(name, parameters)
        choices = self.get(name).facts["choices"]
        assert isinstance(choices, Mapping)
        for key, value in parameters.items():
            allowed = choices.get(key)
            if allowed is not None and not permitted(value, allowed):
                raise ConfigError(f"attack {name!r}: {key}={value!r} must be one of {', '.join(allowed)}")


ATTACKS = AttackRegistry("attack", "btard.node.adversary.attacks")


def attack(
    name: str,
    *,
    acts_on: ActsOn,
    source: str,
    examples: tuple[Mapping[str, object], ...] = (),
    choices: Mapping[str, tuple[str, ...]] | None = None,
    always: bool = False,
    needs_classes: bool = False,
    remembers: str | None = None,
) -> Callable[[AttackFunction], AttackFunction]:
    """Decorator that registers an attack under `name`.

    Args:
        acts_on: what it replaces.
        source: paper and section.
        examples: parameter sets that the shared test table runs.
        choices: allowed values of text parameters.
        always: it acts at every step, whatever the schedule says.
        needs_classes: it only makes sense for a task whose targets are labels.
        remembers: the parameter that says how many earlier steps `View.history` must hold.

    Raises:
        ConfigError: the name is taken, `acts_on` is no such place, or the function cannot be called as that place does.
    """
    if acts_on not in _TAKES:
        raise ConfigError(
            f"attack {name!r}: acts_on={acts_on!r} is none of {', '.join(_TAKES)}; did you mean "
            f"{nearest(str(acts_on), _TAKES)!r}?"
        )
    return ATTACKS.register(
        name, source=source, takes=_TAKES[acts_on], needs=(*(choices or {}), *((remembers,) if remembers else ())),
        examples=examples, acts_on=acts_on, choices=choices or {}, always=always, needs_classes=needs_classes,
        remembers=remembers,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class BoundAttack:
    """An attack with its parameters filled in, ready to call.

    Args:
        memory: earlier steps of its own gradients that it looks back on.
    """

    name: str
    acts_on: str
    always: bool
    needs_classes: bool
    memory: int
    function: AttackFunction


def bind(plugin: Plugin) -> BoundAttack:
    """The attack that `plugin` names.

    Raises:
        ConfigError: unknown name or parameter, wrong type or value.
    """
    ATTACKS.check(plugin.name, plugin.parameters)
    entry = ATTACKS.get(plugin.name)
    values = {**entry.parameters, **plugin.parameters}
    remembers = entry.facts["remembers"]
    return BoundAttack(
        name=entry.name,
        acts_on=str(entry.facts["acts_on"]),
        always=bool(entry.facts["always"]),
        needs_classes=bool(entry.facts["needs_classes"]),
        memory=int(values[str(remembers)]) if remembers is not None else 0,
        function=partial(entry.target, **plugin.parameters),
    )


def check_topology(role: Role, topology: str) -> None:
    """Refuse what comparison topologies do not have: there are gradients and data to attack, and no validators.

    Raises:
        ConfigError: an attack on aggregates, messages or the node, or a condition on who validates.
    """
    if topology != "butterfly" and role.schedule.when != ALWAYS:
        raise ConfigError(
            f"--attack-when {role.schedule.when} asks who validates, and --topology {topology} has no validators; "
            f"use --attack-when {ALWAYS}"
        )
    for plugin in role.attacks:
        entry = ATTACKS.get(plugin.name)
        acts_on = entry.facts["acts_on"]
        contributes = getattr(entry.target, "contributed", None) not in (None, Behaviour.contributed)
        if acts_on not in ("gradient", "data") and not contributes and topology != "butterfly":
            raise ConfigError(
                f"attack {plugin.name!r} acts on {acts_on}, which --topology {topology} does not have; "
                "use an attack on gradients or data"
            )


def bind_role(role: Role) -> tuple[BoundAttack, ...]:
    """The attacks of a role, in the order in which they compose.

    Attackers that know each other never accuse each other (the report, section 4.1), so `lenient_validator`
    joins every role that does not set it itself.

    Raises:
        ConfigError: an unknown name or parameter.
    """
    plugins = role.attacks
    if all(plugin.name != "lenient_validator" for plugin in plugins):
        plugins = (*plugins, Plugin("lenient_validator"))
    return tuple(bind(plugin) for plugin in plugins)
