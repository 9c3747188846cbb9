"""The report's claim about bans; "quickly" is judged by the law of each run's own setting."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from btard.launcher.report import detection
from btard.launcher.report.claim import KINDS, Claim, missing, name_of, span, verdict
from btard.launcher.report.sweep_data import SweepData, attack_of
from btard.launcher.sweep.plans import AGGRESSIVE
from btard.launcher.sweep.rows import Row

_QUOTE = "BTARD bans all of them quickly"


def bans(sweep: SweepData) -> Claim:
    """FAILS if an honest peer was banned, an attacker outlived the 99 % point of the law, or the last ban of an
    aggressive run came after it. HOLDS takes all attacks of both schemes, in runs with validators, and a law for every
    aggressive run. Attackers that a run was too short to catch leave it OPEN."""
    rows = [row for scheme, attack in KINDS for row in sweep.select(scheme, attack) if row.options["validators"]]
    if not rows:
        return Claim(_QUOTE, "6.1", verdict(False, False), "In none of the report's attacks does anybody validate.")
    attackers, free = sum(row.byzantine_peers for row in rows), sum(row.undetected for row in rows)
    wronged = sum(row.honest_banned for row in rows)
    escaped = [row for row in rows if row.undetected and _long_enough(row)]
    fast = [row for row in rows if row.labels["scheme"] == AGGRESSIVE]
    late = [row for row in fast if (law := _law(row)) is not None and (_wait(row) or 0) > law[1]]
    unjudged = [row for row in fast if _law(row) is None or _wait(row) is None]
    lacking = missing((name_of(row.labels["scheme"], attack_of(row)) for row in rows), "a finished run")
    words = f"In {len(rows)} attacked runs {attackers - free} of {attackers} attackers were banned and {wronged} "
    words += "honest peers. " + _waits(fast, len(late))
    if escaped:
        words += f"{len(escaped)} of the runs with attackers left went on for longer than 99 of 100 take by the law. "
    elif free:
        words += "The runs were too short for the attackers that are left. "
    refuted = bool(wronged or escaped or late)
    return Claim(_QUOTE, "6.1", verdict(refuted, not (free or lacking or unjudged)), words + lacking)


def _waits(rows: Sequence[Row], late: int) -> str:
    waits = [wait for row in rows if (wait := _wait(row)) is not None]
    if not waits:
        return ""
    words = f"In aggressive runs ({span(row.byzantine_peers for row in rows)} attackers) the last was out after "
    words += f"{span(waits)} steps (median {statistics.median(waits):g}); "
    laws = [law for row in rows if (law := _law(row)) is not None]
    if not laws:
        return words + "their setting has no law to judge that by. "
    means, most = span(round(mean, 1) for mean, _ in laws), span(point for _, point in laws)
    words += f"the law gives {means} on average and {most} in 99 of 100"
    return words + (f", which {late} of {len(waits)} exceed. " if late else ". ")


def _wait(row: Row) -> int | None:
    """Steps from the first attacked one to the last ban, both included."""
    if row.last_ban is None or row.attacked_from is None:
        return None
    return row.last_ban - row.attacked_from + 1


def _law(row: Row) -> tuple[float, int] | None:
    return detection.last_ban_of(*detection.setting_of(row.options))


def _long_enough(row: Row) -> bool:
    """The run attacks for so long that by the law all attackers are out in 99 of 100 such runs."""
    if row.attacked_from is None or row.options["attack_probability"] != 1:
        return False
    run, roles = detection.setting_of(row.options)
    if (last := detection.last_ban_of(run, roles)) is not None:
        steps = last[1]
    else:
        point = detection.quantile_of(detection.law_of(run, roles)[0], 0.99)
        if point is None:
            return False
        steps = point * row.options["attack_every"] + 1
    stop = row.options["attack_stop"]
    end = row.options["steps"] if stop is None else min(stop, row.options["steps"])
    return bool(end - row.attacked_from >= steps)
