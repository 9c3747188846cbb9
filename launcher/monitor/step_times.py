"""How long the steps of a run took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from btard.launcher.monitor.state import RunState


class StepSeconds(msgspec.Struct, frozen=True):
    """Duration of a step at its slowest honest node."""

    median: float | None
    p95: float | None


def step_seconds(state: RunState) -> StepSeconds:
    """Over all committed steps that carried gradients."""
    slowest = []
    for views in state.commits.values():
        honest = [view.seconds for node, view in views.items() if node not in state.byzantine and view.contributors]
        slowest += [max(honest)] if honest else []
    if not slowest:
        return StepSeconds(None, None)
    return StepSeconds(round(statistics.median(slowest), 6), round(percentile(slowest, 0.95), 6))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    place = max(0, -(-round(share * len(ordered) * 1e9) // 10**9) - 1)
    return ordered[min(place, len(ordered) - 1)]
