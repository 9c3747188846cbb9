"""A wrong aggregate that lies in s make invisible to V2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.adversary.view import direction
from btard.node.protocol.api import Say
from btard.node.protocol.attempt.verification import V0_FACTOR, exact_sum
from btard.node.protocol.wire.messages import Checksums, Report

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output
    from btard.node.protocol.attempt.attempt import Attempt


@attack(
    "cancelling_shift",
    acts_on="node",
    source="Gorbunov et al. 2021, section 3.1 (an aggregator and a contributor collude); PROTOCOL section 8",
    examples=({}, {"cover": "accomplice", "scale": 0.01, "relative": False}),
    choices={"cover": ("own", "accomplice")},
)
class CancellingShift(Behaviour):
    """The aggregator reports `v + delta`; one of the attackers lies in its s so that all of them sum to zero.

    Args:
        scale: length of delta: in units of ||v|| (`relative`), else an L2 norm.
        cover: who lies: the aggregator itself, if it contributes, or an accomplice, if one does (else the other).

    The liar keeps to V0, `|s| <= 8 min(norm, tau_j)`; the aggregator vouches for it (V1). Source: PROTOCOL section 9,
    "covered by its own or an accomplice's lies in s: V0; V3 if large, else the validator at rate p".
    """

    def __init__(self, *, scale: float = 0.1, relative: bool = True, cover: str = "own") -> None:
        self._scale, self._relative, self._cover = scale, relative, cover

    def aggregated(self, value_P: Tensor, view: View) -> Tensor:
        """v + delta, delta along a direction that the attackers share."""
        length = self._scale * float(value_P.norm()) if self._relative else self._scale
        return value_P + direction(value_P, view.shared_random("cancelling_shift")).mul_(length)

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """The lie in CHECKSUMS, and the aggregator's word for it in REPORT."""
        attempt = view.attempt
        if isinstance(output, Say) and attempt is not None:
            match output.body:
                case Checksums() as body if body.s:
                    return (Say(output.to, replace(body, s=self._covering(body, attempt, view))),)
                case Report() as body:
                    pairs = zip(attempt.contributors, body.checks, strict=False)
                    checks = tuple(passed or peer in view.accomplices for peer, passed in pairs)
                    return (Say(output.to, replace(body, checks=checks)),) if checks != body.checks else (output,)
        return (output,)

    def _covering(self, body: Checksums, attempt: Attempt, view: View) -> tuple[float, ...]:
        s = list(body.s)
        for part, aggregator in enumerate(attempt.roster.active):
            if aggregator in view.accomplices and self._liar(aggregator, attempt, view) == view.me:
                others = [peer for peer in attempt.contributors if peer != view.me]
                total = exact_sum(attempt.true_checksum(_part(peer, part, attempt, view), part).s for peer in others)
                limit = V0_FACTOR * min(body.norms[part], attempt.clip_radii[part])
                s[part] = max(-limit, min(limit, -total))
        return tuple(s)

    def _liar(self, aggregator: int, attempt: Attempt, view: View) -> int | None:
        """Who covers the aggregator: all attackers come to the same answer."""
        able = [peer for peer in view.accomplices if peer in attempt.contributors]
        other = [peer for peer in able if peer != aggregator]
        first, second = ([aggregator] if aggregator in able else [], other)
        if self._cover == "accomplice":
            first, second = second, first
        return next(iter((*first, *second)), None)


def _part(peer: int, part: int, attempt: Attempt, view: View) -> Tensor:
    """A contributor's part: as it sent it to us, or recomputed from its public seed."""
    if attempt.place == part and peer in attempt.parts:
        return attempt.parts[peer]
    return attempt.slice(view.honest_gradient(peer), part)
