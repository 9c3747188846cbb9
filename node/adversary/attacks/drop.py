"""A gradient with holes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack("drop", acts_on="gradient", source="this project (partial)", examples=({}, {"share": 0.01}))
def drop(gradient_D: Tensor, view: View, *, share: float = 0.5) -> Tensor:
    """Entries of the gradient are left out.

    Args:
        gradient_D: own honest gradient, float32.
        share: probability of each entry to become zero; one entry at least does.

    Source: this project; the digests are those of another vector, so the validator's recomputation finds it.
    """
    own = view.random("drop")
    lots_D = gradient_D.new_empty(gradient_D.shape).uniform_(generator=own)
    dropped = lots_D < share
    dropped[int(gradient_D.abs().argmax())] = True
    return gradient_D.masked_fill(dropped, 0.0)
