"""When it pays to attack: conditions of an attacker's schedule, on what it knows as it commits to its gradient.

What that is. Whose gradients of the step before are recomputed now, and by whom: r of that step drew it. So an attacker
knows which attackers contribute to this step, and whether it is convicted at its end. Whether an honest peer will
recompute the gradient that it is about to commit to, it cannot know: r of this step does not exist before every peer
has committed, to its gradient and to its share of r (PROTOCOL section 3). All that is left is to buy another draw by
withholding a REVEAL (`withhold_reveal`), or to choose steps by the odds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from btard.node.errors import ConfigError
from btard.node.nearest import suggestion

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.attempt.attempt import Attempt

Condition: TypeAlias = Callable[["View", "Attempt", Sequence[int]], bool]
"""(what the attacker knows, the attempt under way, the steps that it has attacked, ascending) -> does it pay?"""

ALWAYS = "always"


def together(view: View, attempt: Attempt, attacked: Sequence[int]) -> bool:
    """Every attacker that is left contributes: none of them is kept from it by validating."""
    reformed = {ban.peer for ban in attempt.state.bans if not ban.removed}
    left = set(attempt.roster.active) & set(view.accomplices) - reformed
    return left <= set(attempt.contributors)


def beyond_undo(view: View, attempt: Attempt, attacked: Sequence[int]) -> bool:
    """A conviction for this step would take back no other step that it has attacked.

    It acts a step later, when the window of W steps holds this step, that one and the W - 2 before. (One more, where
    that step undoes what an accomplice did: then the window has not moved on.)
    """
    window = attempt.state.window.layers
    reach = window[max(0, len(window) + 2 - attempt.settings.undo) :]
    return not {layer.step for layer in reach}.intersection(attacked)


CONDITIONS: Mapping[str, Condition] = {"together": together, "beyond_undo": beyond_undo}


def conditions(when: str) -> tuple[Condition, ...]:
    """The conditions that a schedule names, joined by `&`; none for `always`.

    Raises:
        ConfigError: there is no such condition.
    """
    if when == ALWAYS:
        return ()
    for name in when.split("&"):
        if name not in CONDITIONS:
            raise ConfigError(f"unknown condition {name!r}; {suggestion(name, (ALWAYS, *CONDITIONS))}")
    return tuple(CONDITIONS[name] for name in when.split("&"))


def pays(needed: Sequence[Condition], view: View, attempt: Attempt, attacked: Sequence[int]) -> bool:
    """True if all conditions hold, or if it has nothing to lose any more.

    Args:
        needed: conditions.
        view: what the attacker knows.
        attempt: the one under way.
        attacked: steps that it has attacked, ascending.
    """
    return all(holds(view, attempt, attacked) for holds in needed) or _convicted(view, attempt, attacked)


def _convicted(view: View, attempt: Attempt, attacked: Sequence[int]) -> bool:
    """An honest peer recomputes the false gradient that it contributed to the step before."""
    watched = any(target == view.me and validator not in view.accomplices for validator, target in attempt.pairs)
    return watched and attempt.step - 1 in attacked
