"""Complaints without cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.registry import attack
from btard.node.adversary.targets import shuffled
from btard.node.protocol.wire.messages import Agg, Missing

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.wire.messages import Body


@attack(
    "complain",
    acts_on="messages",
    source="Gorbunov et al. 2021, section 3.2 (ELIMINATE); PROTOCOL section 5",
    examples=({}, {"about": "all"}),
    choices={"about": ("one", "another", "all")},
)
def complain(body: Body, view: View, *, about: str = "one", apart: bool = False) -> Body:
    """The attacker says that an honest peer's part did not arrive, though it did.

    Args:
        body: an outgoing message; only an AGG changes.
        about: `one`: always the same honest peer; `another`: a different one each step; `all`: every honest one.
        apart: attackers complain about different peers.

    Source: PROTOCOL section 9, "complaints without cause: edges; at most one honest lost per attacker".
    """
    if not isinstance(body, Agg) or not isinstance(body.aggregate, bytes):
        return body
    order = shuffled(view, "complain", apart)
    match about:
        case "one":
            order = order[:1]
        case "another":
            order = (order[view.step % len(order)],) if order else ()
    owners = tuple(peer for peer in view.contributors if peer in order)
    return replace(body, aggregate=Missing(owners)) if owners else body
