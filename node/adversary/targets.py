"""Whom an attack treats differently: attackers choose alike, or share the honest peers out among themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from btard.node.protocol.api import Say

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output
    from btard.node.protocol.wire.messages import Body

TARGETS = ("one", "two", "half", "all_but_one", "all", "@ID@ID...")
"""Values of an attack's parameter `to`: honest peers in an order that the attackers share, or the ids named."""

_GENESIS_PEERS = 256
"""The most that one roster holds."""

_IDS = re.compile(r"(@\d+)+")


def permitted(value: object, choices: Sequence[str]) -> bool:
    """True if a parameter's value is one of its choices, or names peers where that is one of them."""
    return value in choices or (TARGETS[-1] in choices and isinstance(value, str) and _IDS.fullmatch(value) is not None)


def chosen(view: View, to: str, apart: bool = False) -> tuple[int, ...]:
    """The peers that `to` means, ascending; never an attacker, unless it is named.

    Args:
        to: one of `TARGETS`.
        apart: each attacker starts elsewhere in the shared order, so that they take different targets.
    """
    if to.startswith("@"):
        named = {int(peer) for peer in to[1:].split("@")}
        return tuple(peer for peer in view.peers if peer in named)
    order = shuffled(view, "targets", apart)
    many = {"one": 1, "two": 2, "half": (len(order) + 1) // 2, "all_but_one": len(order) - 1, "all": len(order)}
    return tuple(sorted(order[: many[to]]))


def shuffled(view: View, purpose: str, apart: bool = False) -> tuple[int, ...]:
    """The honest peers of the attempt, in an order that all attackers share; it outlasts removals."""
    import torch

    honest = [peer for peer in view.peers if peer not in view.accomplices]
    lots = torch.randperm(_GENESIS_PEERS, generator=view.shared_random(purpose)).tolist()
    order = sorted(honest, key=lots.__getitem__)
    start = view.accomplices.index(view.me) % len(order) if apart and order and view.me in view.accomplices else 0
    return tuple(order[start:] + order[:start])


def told_apart(say: Say, other: Body | None, among: Sequence[int]) -> Sequence[Output]:
    """A message to some, and another one (None: nothing) to those of `among`."""
    rest = tuple(peer for peer in say.to if peer not in among)
    lied = tuple(peer for peer in say.to if peer in among)
    if not lied:
        return (say,)
    told = [Say(rest, say.body)] if rest else []
    return told if other is None else [*told, Say(lied, other)]
