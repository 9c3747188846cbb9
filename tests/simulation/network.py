"""Links as bad as synchrony allows: every copy of a message arrives within the delivery bound, many at its very end."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from btard.node.netem.links import Link, LinkModel


@dataclass(frozen=True, slots=True)
class Extreme(LinkModel):
    """Messages arrive at once or at the last instant, at random; what one peer hears first another hears last.

    Args:
        late: probability of the last instant.
        bound_s: the delivery bound.
    """

    late: float = 0.5
    bound_s: float = 0.5

    def deliveries(self, sender: int, receiver: int, sequence: int, size_bytes: int) -> list[float]:
        """See LinkModel."""
        draws = self._uniform(sender, receiver, sequence)
        delay_s = (0.999 if draws[0] < self.late else 0.001) * self.bound_s
        return [delay_s] if draws[2] >= self.duplicate else [delay_s, self.bound_s * draws[3]]


def network(dice: Random, peers: int, bound_s: float) -> LinkModel:
    """A random network within the bound."""
    seed = dice.getrandbits(32)
    match dice.choice(("near", "near", "spread", "extreme", "lossy", "uneven")):
        case "near":
            return LinkModel(delay_s=0.01 * bound_s, jitter_s=0.02 * bound_s, seed=seed)
        case "spread":
            return LinkModel(delay_s=0.0, jitter_s=0.999 * bound_s, duplicate=dice.choice((0.0, 0.2)), seed=seed)
        case "extreme":
            return Extreme(late=dice.choice((0.05, 0.5, 0.95)), bound_s=bound_s, duplicate=0.1, seed=seed)
        case "lossy":
            # Forty transmissions fit into the bound; 0.3^40 of all messages would be later.
            return LinkModel(delay_s=0.01 * bound_s, loss=0.3, retransmit_s=0.024 * bound_s, seed=seed)
        case _:
            slow = {(a, b): Link(delay_s=dice.choice((0.001, 0.5, 0.999)) * bound_s) for a in range(peers)
                    for b in range(peers) if a != b}  # fmt: skip
            return LinkModel(seed=seed, overrides=slow)
