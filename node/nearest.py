"""The name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_ALIKE = 0.6
"""Less alike than this is no slip of the fingers, and a guess would send its reader astray."""
_MOST_LISTED = 12


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like one that is not known; empty if none looks like it."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=_ALIKE)
    return found[0] if found else ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """What to say after "unknown ...": the name that was probably meant, or those that there are.

    Args:
        name: the one that is not known.
        known: the others, in the order in which they are listed where none looks like it.
    """
    names = list(known)
    near = nearest(name, names)
    if near:
        return f"did you mean {near!r}?"
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"there are {', '.join(names[:_MOST_LISTED])}{more}" if names else "there are none"
