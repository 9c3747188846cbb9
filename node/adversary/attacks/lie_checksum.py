"""A false checksum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.registry import attack
from btard.node.protocol.wire.messages import Checksums, Report

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.wire.messages import Body

_EXTREMES = {"huge": 1e30, "minus_huge": -1e30, "nan": math.nan, "infinite": math.inf, "minus_infinite": -math.inf,
             "negative": -1.0}  # fmt: skip


@attack(
    "lie_checksum",
    acts_on="messages",
    source="Gorbunov et al. 2021, section 3.1; PROTOCOL section 3 (V0, V1)",
    examples=({}, {"entry": "norm", "amount": 0.5}, {"variant": "nan"}, {"variant": "huge"}, {"covered": True}),
    choices={"entry": ("s", "norm"), "variant": ("relative", "offset", *_EXTREMES)},
)
def lie_checksum(
    body: Body,
    view: View,
    *,
    entry: str = "s",
    part: int = 0,
    variant: str = "relative",
    amount: float = 0.5,
    covered: bool = False,
) -> Body:
    """A contributor announces a false `s` or `norm` for one part.

    Args:
        body: an outgoing message; only CHECKSUMS with entries (a contributor's) change, and REPORT if `covered`.
        entry: which of the two numbers.
        part: for which part, modulo the number of parts (-1: the last).
        variant: `relative`: the true value times `1 + amount`; `offset`: plus `amount`; `huge`, `minus_huge`:
            +-1e30; `nan`; `infinite`, `minus_infinite`; `negative`: -1.
        amount: size of a relative or offset lie.
        covered: lie about the part of an accomplice, which vouches for all of its accomplices' claims (V1).

    Source: PROTOCOL section 9, "lies in s; +-1e30, NaN, inf in s": V0 refuses the implausible ones, the part's
    aggregator finds the others (V1), or, if it is an accomplice, everyone (V2).
    """
    if covered and isinstance(body, Report):
        pairs = zip(view.contributors, body.checks, strict=False)
        checks = tuple(passed or peer in view.accomplices for peer, passed in pairs)
        return body if checks == body.checks else replace(body, checks=checks)
    if not isinstance(body, Checksums) or not body.s:
        return body
    true = body.s if entry == "s" else body.norms
    values = list(true)
    index = (_accomplices_part(view) if covered else part) % len(values)
    match variant:
        case "relative":
            values[index] *= 1.0 + amount
        case "offset":
            values[index] += amount
        case _:
            values[index] = _EXTREMES[variant]
    if values[index] == true[index]:
        return body
    s, norms = (tuple(values), body.norms) if entry == "s" else (body.s, tuple(values))
    return Checksums(body.slot, body.prefix, s, norms)


def _accomplices_part(view: View) -> int:
    """The part of the first accomplice, of one's own if there is no other (or the first: what is said last before a
    removal is filtered when the roster is already without us)."""
    places = {peer: place for place, peer in enumerate(view.active) if peer in view.accomplices}
    others = [place for peer, place in places.items() if peer != view.me]
    return next(iter(others), places.get(view.me, 0))
