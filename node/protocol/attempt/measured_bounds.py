"""Measured bounds: D and T_g as all peers agree on them after step 0.

What a HELLO says binds nobody, since a liar says something else to each; so each peer signs its measurements in the
REPORT of step 0, which runs by the stated bounds, and they are part of the state that its CLOSEs cover. Agreed on is
the (f + 1)-th largest: at least one honest peer measured as much or more, so no f liars raise it.
"""

from __future__ import annotations

import math

from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.wire.messages import Phase, Report

FLOOR_MS = (250, 1000)
"""D and T_g are never taken to be less: processes that share a machine stop each other for as long."""

MARGIN = 8
"""How many times the measurement."""

TIGHT_FLOOR_MS, TIGHT_MARGINS = (5, 50), (4, 2)
"""The same of tight budgets. Being late now and then costs nothing, so they need no room for the rare stop."""

_MOST_MS = 2**31


def measuring(attempt: Attempt) -> bool:
    """True if the REPORTs of this attempt carry measurements."""
    settings = attempt.settings
    return attempt.step == 0 and (settings.measure_delivery or settings.measure_gradient or settings.tight_budgets)


def measured(attempt: Attempt) -> tuple[int, ...]:
    """What our REPORT says; what we did not measure is as large as is stated."""
    if not measuring(attempt):
        return ()
    settings = attempt.settings
    found = ((attempt.delivery_s, settings.delivery_bound_s), (attempt.gradient_s, settings.gradient_bound_s))
    return tuple(min(_milliseconds(seconds if seconds > 0 else stated_s), _MOST_MS) for seconds, stated_s in found)


def measures_fit(said: tuple[int, ...], attempt: Attempt) -> bool:
    """True if a REPORT carries what it has to."""
    return len(said) == (2 if measuring(attempt) else 0) and all(0 <= value <= _MOST_MS for value in said)


def agreed(attempt: Attempt) -> tuple[int, ...]:
    """The bounds after a committed attempt, in milliseconds: those before, but for step 0.

    D and T_g, and the same for budgets, at most those. Rounded up to a power of two times the floor, so that runs of
    one kind agree on the same; never above what is stated, and exactly that where it is not to be measured.
    """
    if not measuring(attempt):
        return attempt.state.summary.bounds
    settings = attempt.settings
    stated = (settings.delivery_bound_s, settings.gradient_bound_s)
    wanted = (settings.measure_delivery, settings.measure_gradient)
    said = [report.measured for report in attempt.transcript.of(Report, Phase.REPORT).values()]
    found = [sorted(column, reverse=True)[attempt.roster.faults] for column in zip(*said, strict=True)]
    bounds = [_milliseconds(bound_s) for bound_s in stated]
    for place, (value, floor, measure) in enumerate(zip(found, FLOOR_MS, wanted, strict=True)):
        if measure:
            bounds[place] = min(_rounded(MARGIN * value, floor), bounds[place])
    tight = zip(found, TIGHT_FLOOR_MS, TIGHT_MARGINS, bounds, strict=True)
    return (*bounds, *(min(_rounded(margin * value, floor), most) for value, floor, margin, most in tight))


def _milliseconds(seconds: float) -> int:
    """Rounded up, but for what a clock's differences are off by."""
    return math.ceil(1000 * seconds - 1e-3)


def _rounded(value: int, floor: int) -> int:
    """The least power of two times the floor that is no smaller."""
    times = -(-value // floor)
    return floor << max(times - 1, 0).bit_length()
