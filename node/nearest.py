"""The name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like one that is not known; empty if there is none."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return found[0] if found else ""
