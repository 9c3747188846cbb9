"""What an attacker may see: its own work, the public facts of the step, and what attackers agreed on beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from btard.node.protocol.attempt.attempt import Attempt


class Span(Protocol):
    """One tensor of the model inside the flat vector: entries `[start, stop)`."""

    @property
    def start(self) -> int:
        """First entry."""

    @property
    def stop(self) -> int:
        """One past the last entry."""


@dataclass(frozen=True, slots=True)
class View:
    """An attacker's knowledge at one step; frozen, made anew whenever an attack fires.

    Args:
        step: the step attacked.
        me: genesis id of this attacker.
        accomplices: ids of all attackers of the run, this one included.
        layout: the model's tensors in the flat vector.
        dimension: entries of the flat vector (D).
        classes: target classes of the task (0: its targets are no labels).
        active: ids in this attempt's roster, ascending; part j belongs to `active[j]`. Empty until all COMMITs
            of the attempt have been heard.
        contributors: ids that committed to a gradient in this attempt, ascending; empty as above.
        history: own honest gradients by step, as far back as one of the attacks of the role asks for.
        aggregates: own honest aggregates by step, as far back.
        attempt: all that the peer inside holds of the attempt under way; to be read, never changed.
        attack_seed: what the attackers agreed on before the run.
        recompute: returns a peer's honest gradient of this step, if the node was built with one.
        combine: what the run's rule makes of contributions `[N, D]`, part by part, if the node was built with one.
    """

    step: int
    me: int
    accomplices: tuple[int, ...] = ()
    layout: tuple[Span, ...] = ()
    dimension: int = 0
    classes: int = 0
    active: tuple[int, ...] = ()
    contributors: tuple[int, ...] = ()
    history: Mapping[int, Tensor] = field(default_factory=dict)
    aggregates: Mapping[int, Tensor] = field(default_factory=dict)
    attempt: Attempt | None = None
    attack_seed: int = 0
    recompute: Callable[[int], Tensor] | None = None
    combine: Callable[[Tensor], Tensor] | None = None

    @property
    def peers(self) -> tuple[int, ...]:
        """Ids in this attempt's roster, ascending, known from its start."""
        return self.attempt.roster.active if self.attempt is not None else self.active

    @property
    def contributing(self) -> tuple[int, ...]:
        """Ids that owe a gradient in this attempt, ascending: public before anybody has committed to one."""
        return self.attempt.contributors if self.attempt is not None else self.contributors

    @property
    def honest_contributors(self) -> tuple[int, ...]:
        """The contributors that are no attackers, ascending."""
        return tuple(peer for peer in self.contributing if peer not in self.accomplices)

    @property
    def colluders(self) -> int:
        """How many of the contributors are attackers (at least this one)."""
        return max(1, len(self.contributing) - len(self.honest_contributors))

    @property
    def part(self) -> int | None:
        """The part this attacker aggregates; None before the roster of the attempt is known."""
        return self.active.index(self.me) if self.me in self.active else None

    def random(self, purpose: str) -> Generator:
        """A generator of this attacker's own at this step, seeded by (attack seed, id, step, purpose).

        Every call starts it afresh: the same purpose gives the same numbers again.
        """
        return generator(self.attack_seed, purpose, self.me, self.step)

    def shared_random(self, purpose: str) -> Generator:
        """A generator that all attackers of the run seed alike, at every step: their common seed and `purpose`."""
        return generator(self.attack_seed, purpose)

    def pick(self, purpose: str, count: int) -> int:
        """A number below `count`, uniform, drawn from this attacker's own generator of this step and purpose."""
        import torch

        return int(torch.randint(count, (), generator=self.random(purpose)))

    def honest_gradient(self, peer: int) -> Tensor:
        """The honest gradient `[D]` of a peer at this step, recomputed from public seeds.

        Raises:
            LookupError: this attacker cannot recompute it.
        """
        if self.recompute is None:
            raise LookupError(f"attacker {self.me} has no means to recompute the gradient of peer {peer}")
        return self.recompute(peer)

    def honest_gradients(self) -> Tensor:
        """The honest gradients of this step, float32 `[H, D]`, in the order of `honest_contributors`.

        Raises:
            LookupError: this attacker cannot recompute them.
        """
        import torch

        rows = [self.honest_gradient(peer) for peer in self.honest_contributors]
        return torch.stack(rows) if rows else torch.empty(0, self.dimension)

    def aggregate_with(self, honest_HD: Tensor, crafted_D: Tensor) -> Tensor:
        """The aggregate `[D]` if every attacker among the contributors sent `crafted_D`.

        Raises:
            LookupError: this attacker does not know the rule.
        """
        import torch

        if self.combine is None:
            raise LookupError(f"attacker {self.me} has no means to compute the rule of the run")
        honest = dict(zip(self.honest_contributors, honest_HD, strict=True))
        return self.combine(torch.stack([honest.get(peer, crafted_D) for peer in self.contributing]))


def generator(attack_seed: int, purpose: str, *numbers: int) -> Generator:
    """A CPU generator seeded by a digest of its arguments, so that no two purposes share a stream."""
    # Imported here: listing the attacks must not wait for torch.
    import torch

    from btard.node.protocol.wire.encoding import digest, number

    seed = digest("attack", purpose.encode(), number(attack_seed), *(number(value) for value in numbers))
    return torch.Generator().manual_seed(int.from_bytes(seed[:8], "little"))


def direction(like: Tensor, source: Generator) -> Tensor:
    """A Gaussian vector of unit length, shaped and typed like the 1-D tensor `like`."""
    drawn = like.new_empty(like.shape).normal_(generator=source)
    norm = float(drawn.norm())
    return drawn.div_(norm) if norm > 0 else drawn
