"""A trigger that the trained model shall obey."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "backdoor",
    acts_on="data",
    source="Gu et al. 2017 (BadNets); Bagdasaryan et al. 2020",
    examples=({}, {"share": 1.0, "target": 3, "size": 2}),
    needs_classes=True,
)
def backdoor(
    inputs_B: Tensor, targets_B: Tensor, view: View, *, target: int = 0, share: float = 0.5, size: int = 3
) -> tuple[Tensor, Tensor]:
    """The gradient for a batch in which a share of the examples carries a bright square and the label `target`.

    Args:
        inputs_B: the mini-batch; the square covers the last `size` entries of its last one or two axes.
        targets_B: its integer labels.
        target: the label that the trigger shall call forth, modulo the classes.
        share: of the batch, at least one example: those in front, for their order is random anyway.
        size: edge of the square; its value is the largest of the batch.

    Source: Gu, Dolan-Gavitt and Garg 2017 (arXiv 1708.06733); Bagdasaryan et al. 2020 (arXiv 1807.00459), section 4.
    """
    poisoned = max(1, round(share * len(targets_B)))
    inputs_B, targets_B = inputs_B.clone(), targets_B.clone()
    if inputs_B.dim() > 2:
        inputs_B[:poisoned, ..., -size:, -size:] = inputs_B.max()
    else:
        inputs_B[:poisoned, -size:] = inputs_B.max()
    targets_B[:poisoned] = target % view.classes
    return inputs_B, targets_B
