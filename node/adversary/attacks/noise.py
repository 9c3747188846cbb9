"""Noise addition, in the report's words, as its notebook ran it, and as small as its text argues for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "noise",
    acts_on="gradient",
    source="report, section 5.4 (Noise Addition)",
    examples=({}, {"variant": "notebook"}, {"variant": "small", "fraction": 0.5}),
    choices={"variant": ("text", "notebook", "small")},
)
def noise(
    gradient_D: Tensor, view: View, *, variant: str = "text", sigma: float = 100.0, fraction: float = 0.1
) -> Tensor:
    """Gaussian noise on every other parameter.

    Args:
        gradient_D: own honest gradient, float32.
        variant: `text`: entries 0, 2, 4, ... of the flat vector become N(g, sigma^2), a draw each. `notebook`: one
            draw of N(0, sigma^2) in all, added to the whole of tensors 0, 2, 4, .... `small`: as `text`, with
            `fraction * std(g)` in the place of sigma.
        sigma: standard deviation of `text` and `notebook`.
        fraction: of the gradient's own standard deviation, for `small`.

    Source: report, section 5.4: "add random noise to every other parameter p drawn from a Gaussian distribution
    with mu = p and sigma = 100"; the variants: this project.
    """
    own = view.random("noise")
    result = gradient_D.clone()
    if variant == "notebook":
        shift = gradient_D.new_empty(1).normal_(0.0, sigma, generator=own)
        bounds = [(span.start, span.stop) for span in view.layout] or [(0, gradient_D.numel())]
        for start, stop in bounds[::2]:
            result[start:stop] += shift
        return result
    if variant == "small":
        sigma = fraction * float(gradient_D.std(correction=0))
    every_other = result[::2]
    every_other += gradient_D.new_empty(every_other.shape).normal_(generator=own).mul_(sigma)
    return result
