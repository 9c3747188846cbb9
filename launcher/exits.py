"""Exit codes of the command line."""

from __future__ import annotations

from btard.launcher.run.summary import FINISHED, INTERRUPTED, TIMEOUT

OK = 0
FAILED = 1
USAGE = 2
PREFLIGHT = 3
EXPECTATION = 4
TIMED_OUT = 5
SIGNALLED = 128
"""Plus the signal's number: 130 after Ctrl-C, 143 after SIGTERM."""


def of_run(outcome: str, signum: int | None, violated: bool, honest_removed: bool = False) -> int:
    """The exit code of a run: how it ended comes before what was expected of it, and that before honest peers that it
    removed without a cause."""
    if outcome == INTERRUPTED:
        return SIGNALLED + (signum or 2)
    if outcome == TIMEOUT:
        return TIMED_OUT
    if outcome != FINISHED:
        return FAILED
    if violated:
        return EXPECTATION
    return FAILED if honest_removed else OK
