"""The window of `--undo auto`: long enough for nearly every attacker's career, short enough for memory.

The window is part of the genesis, so it is chosen for the most faulty peers that the promises allow, never for those
that attack this run: nodes could read their number from it (docs/adr/0049-undo-by-default.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from btard.launcher.network.traffic import FLOAT_BYTES, human
from btard.launcher.run.experiment import Experiment
from btard.node.config import RunConfig
from btard.node.limits import MAX_UNDO

LEVEL = 0.99
"""The window covers the time until the last attacker is removed in this share of runs."""
BUDGET_BYTES = 256_000_000
"""What the window may take of each peer's memory."""
MESSAGE_BYTES = 320
"""Of a step's transcript for each pair of peers: 11 kB with six peers, 38 kB with sixteen (docs/undo.md)."""
_MOST_PAIRS = 4
"""More validators than these shorten the wait, so the law for these is a bound; theirs takes long to compute."""


@dataclass(frozen=True, slots=True)
class Window:
    """What `--undo auto` comes to: `steps` (0: off), and why, in one line for people."""

    steps: int
    why: str


def automatic(experiment: Experiment, run: RunConfig, entries: int | None) -> Window:
    """The window of a run whose user left it to us.

    Args:
        experiment: what is asked for.
        run: what peers agree on otherwise.
        entries: of a step's vectors (parameters, optimiser state, aggregates); None while the task's data is missing:
            the budget is not looked at.
    """
    reason = _reason_against(experiment, run)
    if reason is not None:
        return Window(0, f"undo off: {reason}")
    wanted = covering(experiment.peers, experiment.validators, experiment.validate_every, run.everyone_contributes)
    steps = MAX_UNDO if wanted is None else max(wanted, 2)
    layer_bytes = FLOAT_BYTES * (entries or 0) + MESSAGE_BYTES * run.peers**2
    most = BUDGET_BYTES // layer_bytes
    if most < 2:
        return Window(
            0,
            f"undo off: a step's state takes {human(layer_bytes)} of {human(BUDGET_BYTES)}; --undo 2 or more keeps it",
        )
    short = "" if wanted is not None and steps <= most else ", fewer than 99 % of attackers need"
    steps = min(steps, most)
    size = human(steps * layer_bytes) if entries is not None else "memory known once the data is there"
    gone = "; who is gone stays gone, --undo off lets it return" if run.probation else ""
    return Window(steps, f"undo {steps} steps ({size}{' a peer' if entries is not None else ''}{short}){gone}")


def _reason_against(experiment: Experiment, run: RunConfig) -> str | None:
    """Why a run is without undo by default; None if nothing speaks against it."""
    if run.topology != "butterfly":
        return f"nobody is banned under --topology {run.topology}"
    if run.recompute_tolerance > 0:
        return "--recompute-tolerance lets gradients differ, and undo compares digests"
    if run.roster != "closed":
        return "newcomers hold nothing of the steps that it takes back"
    if run.on_ban == "reform":
        return "--on-ban reform repeats the report, which takes nothing back"
    if run.validators == 0 or run.peers < 3:
        return "no gradient is ever checked"
    if experiment.scenario is not None:
        return "--scenario may take peers away, and with undo nobody comes back"
    return None


@lru_cache(maxsize=256)
def covering(peers: int, validators: int, validate_every: int, everyone_contributes: bool) -> int | None:
    """Protocol steps within which the last of the most attackers there may be is removed, in `LEVEL` of runs.

    Returns:
        None if these are more than a window can hold.
    """
    from btard.launcher.detection import Setting, time_to_last

    setting = Setting(
        peers, (peers + 1) // 2 - 1, validators, validate_every, contribute="on" if everyone_contributes else "off"
    )
    if validators > _MOST_PAIRS:
        setting = replace(setting, validators=_MOST_PAIRS)
    survival = time_to_last(setting, MAX_UNDO).survival
    return next((steps for steps, more in enumerate(survival) if 1.0 - more >= LEVEL), None)
