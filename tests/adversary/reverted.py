"""Fixes taken back one by one: with each, the search has to find a broken promise within a stated number of states.

A patch names what it replaces by its dotted path, and is given the original. An entry says from where the search
starts, how many deviations it has and how many states it may see.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.adversary.cluster import Size
from tests.adversary.explore import Found, explore
from tests.adversary.guided import guide

Patch = tuple[str, Callable[[object], object]]
"""A dotted path, and what makes the replacement from what is there."""


@dataclass(frozen=True, slots=True)
class Reverted:
    """A safeguard that is missing.

    Args:
        name: of the safeguard.
        patches: that take it away.
        size: of the cluster.
        prefix: words that come first (empty: none).
        deviations: of the exhaustive search that follows; 0: a guided search of `most` runs instead.
        most: states, or runs, within which it is found.
        kills: honest peers may be restarted.
    """

    name: str
    patches: tuple[Patch, ...]
    size: Size
    prefix: str = ""
    deviations: int = 0
    most: int = 500
    kills: bool = False


def _owner(path: str) -> tuple[object, str]:
    """The module or class that holds the last name of a dotted path."""
    names = path.split(".")
    for count in range(len(names) - 1, 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            owner: object = importlib.import_module(".".join(names[:count]))
            for name in names[count:-1]:
                owner = getattr(owner, name)
            return owner, names[-1]
    raise ValueError(f"no module is part of {path!r}")


@contextlib.contextmanager
def without(patches: tuple[Patch, ...]) -> Iterator[None]:
    """Apply patches, and undo them."""
    undo: list[tuple[object, str, object]] = []
    try:
        for path, make in patches:
            owner, name = _owner(path)
            # A property or a static method as such, not what it evaluates to.
            before = vars(owner)[name]
            setattr(owner, name, make(before))
            undo.append((owner, name, before))
        yield
    finally:
        for owner, name, before in reversed(undo):
            setattr(owner, name, before)


def search(which: Reverted, until: float) -> Found:
    """The search that an entry describes, on the code as it is."""
    if which.deviations:
        return explore(which.size, ["near", "c"], which.deviations, which.most, until, which.kills,
                       stop_at_first=True, prefix=which.prefix)  # fmt: skip
    return guide(which.size, 1, which.most, until, which.kills, stop_at_first=True, prefix=which.prefix)[0]


def _nothing(_: object) -> object:
    return lambda *_: None


def _hasty(original: object) -> object:
    """`round_over` that counts two rounds."""

    def round_over(self: object) -> None:
        for _ in range(2):
            if not self.finished:  # type: ignore[attr-defined]
                original(self)  # type: ignore[operator]

    return round_over


def _deaf(original: object) -> object:
    """`begin` that does not freeze."""

    def begin(self: object, trigger: object) -> None:
        original(self, trigger)  # type: ignore[operator]
        self.round.frozen, self.round.trigger = False, None  # type: ignore[attr-defined]

    return begin


_LATE_CLOSE = "near,c,@CLOSE1,hold:3:CLOSE:012,<Suspected"

REVERTED = (
    Reverted("a certificate outranks the rest", (("node.protocol.union.Union._certificate", _nothing),), Size(4, 1),
             _LATE_CLOSE),
    Reverted("a dispute freezes its attempt", (("node.protocol.arbitration.Arbitration.begin", _deaf),), Size(4, 1),
             _LATE_CLOSE),
    Reverted("a dispute has f + 1 rounds", (("node.protocol.dispute.Dispute.round_over", _hasty),), Size(5, 2),
             "near,c,@CLOSE1"),
    Reverted("equivocation is judged", (("node.protocol.union.Union._equivocation", _nothing),), Size(4, 1),
             "near,c,@CLOSE1"),
)  # fmt: skip
