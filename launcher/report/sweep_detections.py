"""Detection on a sweep's page: attacked contributions until conviction, over all runs of a kind, against the law."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from btard.launcher.figures import bars
from btard.launcher.figures.svg import Figure
from btard.launcher.report import detection
from btard.launcher.report.sweep_data import SweepData, grouped
from btard.launcher.sweep.rows import Row

_ALWAYS = ("byzantine", "attack_every", "on_ban")
_WHERE_VARIED = {
    "peers": "{} peers",
    "validators": "{} validating",
    "validate_every": "a draw in {} steps",
    "validators_contribute": "validators contribute: {}",
    "attack_start": "from step {} on",
}
"""Options that the law depends on as well, and what a title says of them."""


def detections(sweep: SweepData) -> list[Figure]:
    """One figure for each setting of the law; none where nobody was convicted of a false gradient."""
    rows = [row for row in sweep.rows if _plain(row)]
    beside = [name for name in _WHERE_VARIED if len({row.options.get(name) for row in rows}) > 1]
    figures = (_figure(found, beside) for found in grouped(rows, [*_ALWAYS, *beside]).values())
    return [figure for figure in figures if figure is not None]


def _plain(row: Row) -> bool:
    """Attackers on one schedule, looked at by validators: what the law speaks of."""
    every_time = row.options["attack_probability"] == 1 and not row.options["role"]
    return bool(row.byzantine_peers and every_time and row.options["validators"])


def _figure(rows: Sequence[Row], beside: Sequence[str]) -> Figure | None:
    waited = [count for row in rows for count in _waits(row)]
    run, roles = detection.setting_of(rows[0].options)
    law, note = detection.law_of(run, roles)
    wanted = detection.mean_of(law)
    if not waited or wanted is None:
        return None
    given = rows[0].options
    byzantine, every, on_ban = (given[name] for name in _ALWAYS)
    title = f"Detection: {byzantine} attacker{'s' * (byzantine > 1)}, every {every} step{'s' * (every > 1)}, {on_ban}"
    title = ", ".join([title, *(_WHERE_VARIED[name].format(given.get(name)) for name in beside)])
    key = "-".join([f"detection-{byzantine}-{every}-{on_ban}", *(f"{name}{given.get(name)}" for name in beside)])
    drawn = bars.against_law(title, law, waited, "attacked contributions until conviction")
    caption = (
        f"Mean seen {statistics.fmean(waited):.2f}, by the law {wanted:.2f}. Law: {note}. {_others(rows, len(waited))}"
        "Attacks on the same seeds meet the same draws, so runs that share a protocol seed are not independent."
    )
    return Figure(key.replace("_", "-"), title, drawn, caption)


def _waits(row: Row) -> list[int]:
    """Rows of earlier versions do not say for what an attacker was banned; there any ban counts."""
    return row.detection_steps if row.gradient_steps is None else row.gradient_steps


def _others(rows: Sequence[Row], shown: int) -> str:
    """Who is not in the histogram: leaving them out in silence would make attackers look short-lived."""
    attackers, free = sum(row.byzantine_peers for row in rows), sum(row.undetected for row in rows)
    elsewhere = max(0, attackers - free - shown)
    if not free and not elsewhere:
        return ""
    words = [f"{free} never caught"] if free else []
    words += [f"{elsewhere} banned or removed for something else"] if elsewhere else []
    return f"Not in the histogram, of {attackers} attackers: {', '.join(words)}. "
