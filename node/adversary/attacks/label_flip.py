"""Label flip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "label_flip",
    acts_on="data",
    source="Gorbunov et al. 2021, section 4.1; report, section 5.4 (Label Flip)",
    examples=({},),
    needs_classes=True,
)
def label_flip(inputs_B: Tensor, targets_B: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """The gradient of the loss for flipped labels: every label y becomes `classes - 1 - y`.

    Args:
        inputs_B: the mini-batch, left as it is.
        targets_B: its integer labels.

    Source: report, section 5.4: "Each label value is replaced with 9 - label".
    """
    return inputs_B, (view.classes - 1) - targets_B
