"""Label shuffle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "label_shuffle",
    acts_on="data",
    source="report, section 5.4 (Label Shuffle)",
    examples=({},),
    needs_classes=True,
)
def label_shuffle(inputs_B: Tensor, targets_B: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """The gradient of the loss for the batch's own targets in another order, a fresh permutation each step.

    Args:
        inputs_B: the mini-batch, left as it is.
        targets_B: its integer labels.

    Source: report, section 5.4: "pass to the cross entropy loss function an arbitrary permutation of the targets".
    """
    import torch

    order = torch.randperm(targets_B.shape[0], generator=view.random("label_shuffle"))
    return inputs_B, targets_B[order.to(targets_B.device)]
