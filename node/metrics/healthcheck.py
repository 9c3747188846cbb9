"""`python -m btard.node.metrics.healthcheck`: exit 0 if this container's worker has bound its sockets, loaded its keys
and been greeted by every peer, or by all but the f that a run can do without. It runs every few seconds beside the
worker, so it imports nothing but the standard library's core.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "HEALTH_NOTE"
"""Names the file in which a worker notes its journal, and where in it this process began. It must not outlast a
container, or it would vouch for the next one's worker."""
_ENOUGH_BYTES = 1 << 16
_GREETED = b'"event":"greeted"'


def begin(journal: os.PathLike[str], note: str, *, anew: bool = True) -> None:
    """Say where this process begins to write: what an earlier one wrote proves nothing, but of a run that has ended
    (`anew` is False then).
    """
    path = os.fspath(journal)
    size = os.stat(path).st_size if anew and os.path.exists(path) else 0  # noqa: PTH116, PTH110
    with open(note, "w") as file:  # noqa: PTH123
        file.write(f"{size} {path}")


def problem(note: str) -> str | None:
    """Why the worker is not healthy; None if it is."""
    try:
        with open(note) as file:  # noqa: PTH123
            offset, _, path = file.read().partition(" ")
    except OSError:
        return "no worker has begun"
    try:
        with open(path, "rb") as journal:  # noqa: PTH123
            journal.seek(int(offset))
            said = journal.read(_ENOUGH_BYTES)
    except OSError:
        return "it has not bound its sockets"
    if _GREETED in said:
        return None
    return "not enough peers have greeted it" if b'"event":"bound"' in said else "it has not bound its sockets"


def main() -> int:
    """Say what is wrong and return 1, or return 0."""
    note = os.environ.get(VARIABLE)
    found = problem(note) if note else f"{VARIABLE} is not set"
    print(found or "healthy")  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
