"""The law of detection for a run's setting, counted as the score counts: attacked steps until a ban."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from launcher.detection import Setting, detection_distribution, per_step_probability
from node.config import Role, RunConfig

HORIZON = 400


def law_of(run: RunConfig, roles: Mapping[int, Role]) -> tuple[dict[int, float], str]:
    """Probability of each count of attacked contributions until conviction, and in words which law it is.

    Attackers that strike in every step follow the exact chain of launcher/detection/law.py for removal; those that
    strike every K-th step meet a fresh draw each time, and follow the plain geometric law. No law: an empty mapping.
    """
    if not roles or run.validators == 0:
        return {}, ""
    schedules = {(role.schedule.every, role.schedule.probability) for role in roles.values()}
    start = min(role.schedule.start for role in roles.values())
    every = min(step for step, _ in schedules)
    if schedules == {(1, 1.0)}:
        chain = _chain(Setting(run.peers, len(roles), run.validators, run.validate_every, start))
        staying = "; here a convicted peer stays and turns honest, which draws the other a little later"
        note = "exact chain for removal" + (staying if run.on_ban == "reform" else "")
        return dict(chain), note
    hit = per_step_probability(
        run.peers - run.validators, len(roles), run.validators, validate_every=run.validate_every
    )
    law = {count: hit * (1 - hit) ** (count - 1) for count in range(1, HORIZON)}
    return law, f"geometric: each attacked contribution is convicted with probability {hit:.3f} (every {every} steps)"


def mean_of(law: Mapping[int, float]) -> float | None:
    """Expectation, None without a law."""
    return sum(count * p for count, p in law.items()) if law else None


def quantile_of(law: Mapping[int, float], level: float) -> int | None:
    """Least count with at least `level` of the probability up to it, None without a law."""
    total = 0.0
    for count in sorted(law):
        total += law[count]
        if total >= level:
            return count
    return None


@lru_cache(maxsize=256)
def _chain(setting: Setting) -> tuple[tuple[int, float], ...]:
    """One given attacker's contributions; the last one, on the way out, is not counted by the score."""
    waiting = detection_distribution(setting, HORIZON).tagged_contributed
    return tuple((count, waiting.probability(count + 1)) for count in range(1, HORIZON - 1))
