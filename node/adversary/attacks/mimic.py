"""Copies of one honest peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.adversary.view import direction

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "mimic",
    acts_on="node",
    source="Karimireddy et al. 2022, section 3.2 and appendix B (mimic)",
    examples=({}, {"warmup": 0}),
)
class Mimic(Behaviour):
    """All attackers send what one honest peer sends, so that its data outweighs everybody else's.

    Args:
        warmup: attacked steps during which the attackers learn whom to copy: the peer whose gradients lie farthest out
            along the direction z in which honest gradients vary most. 0: the honest peer with the lowest id.

    Source: Karimireddy, He and Jaggi 2022 (arXiv 2006.09365), appendix B: z by online power iteration,
    `i* = argmax_i |sum_t <z, x_i^t>|`. A copied gradient is not the attacker's own, so a validator finds it.
    """

    def __init__(self, *, warmup: int = 10) -> None:
        self._warmup = warmup
        self._learnt = 0
        self._along_D: Tensor | None = None
        self._sums: dict[int, Tensor] = {}

    def contributed(self, gradient_D: Tensor, view: View) -> Tensor:
        """The gradient of the peer to copy."""
        peers = view.honest_contributors
        if not peers:
            return gradient_D
        if self._learnt < self._warmup:
            self._learn(view)
        if self._along_D is None:
            return view.honest_gradient(peers[0])
        reach = {peer: abs(float(self._sums[peer] @ self._along_D)) for peer in peers if peer in self._sums}
        return view.honest_gradient(max(reach, key=reach.__getitem__) if reach else peers[0])

    def _learn(self, view: View) -> None:
        """One step of the power iteration with this step's gradients."""
        import torch

        honest_HD = view.honest_gradients()
        mean_D = honest_HD.mean(dim=0)
        if self._along_D is None:
            self._along_D = direction(mean_D, view.shared_random("mimic"))
        step_D = (honest_HD - mean_D).T @ ((honest_HD - mean_D) @ self._along_D)
        self._learnt += 1
        mixed_D = self._along_D * (self._learnt - 1) + torch.nn.functional.normalize(step_D, dim=0)
        self._along_D = torch.nn.functional.normalize(mixed_D, dim=0)
        for peer, gradient_D in zip(view.honest_contributors, honest_HD, strict=True):
            self._sums[peer] = self._sums[peer] + gradient_D if peer in self._sums else gradient_D.clone()
