"""How many Byzantine rows a rule withstands, and its refusal to work with more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """What a rule asks of n rows, f of them Byzantine.

    Args:
        words: the condition as a user reads it, e.g. `n >= 2f + 3`.
        rows: the smallest n for an f, growing with f.
    """

    words: str
    rows: Callable[[int], int]

    def most(self, rows: int) -> int:
        """The largest f up to `rows` that so many rows admit; -1 if they are too few even for f = 0."""
        f = -1
        while f < rows and self.rows(f + 1) <= rows:
            f += 1
        return f

    def lowered(self, wanted: int | None, rows: int, allow_weak: bool) -> int:
        """The f that a run works with on so many rows.

        Args:
            wanted: as the user gave it; None: as many as may be.
            rows: n.
            allow_weak: bounded by a majority of honest rows alone, and not by the condition.
        """
        most = (rows - 1) // 2 if allow_weak else max(0, self.most(rows))
        return most if wanted is None else min(wanted, most)


MAJORITY = Condition("n >= 2f + 1", lambda f: 2 * f + 1)


def faults(name: str, rows: int, f: int | None, condition: Condition, allow_weak: bool) -> int:
    """The f that a rule works with.

    Args:
        name: the rule's.
        rows: n.
        f: as the caller gave it; None: the largest that the condition admits, or with `allow_weak` a majority does.
        allow_weak: work where the condition fails, with f lowered so that honest rows still outnumber the others.

    Raises:
        ValueError: f is no number of rows, or the condition fails.
    """
    if f is not None and f < 0:
        raise ValueError(f"f={f} must be a whole number of at least 0")
    majority = (rows - 1) // 2
    chosen = f if f is not None else majority if allow_weak else condition.most(rows)
    if chosen >= 0 and condition.rows(chosen) <= rows:
        return chosen
    if not allow_weak:
        asked = max(chosen, 0)
        raise ValueError(
            f"{name} needs {condition.words}: f={asked} takes {condition.rows(asked)} rows, these are {rows}; "
            "use a smaller f, or allow_weak"
        )
    return min(chosen, majority)
