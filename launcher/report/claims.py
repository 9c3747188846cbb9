"""The report's claims, each with a verdict and what our runs say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from btard.launcher.report import detection
from btard.launcher.report.statistics import Sample, signed
from btard.launcher.report.sweep_data import SweepData, attack_of, final
from btard.launcher.sweep.plans import AGGRESSIVE, ATTACKS, MILD
from btard.launcher.sweep.rows import Row

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "not decided"
SCHEMES = (AGGRESSIVE, MILD)
KINDS = tuple((scheme, attack) for scheme in SCHEMES for attack in ATTACKS)
"""What the report attacks with, in the order of its figures."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of the report.

    Args:
        quote: its words.
        section: where they stand.
        verdict: HOLDS, FAILS or OPEN.
        words: why, with our numbers.
    """

    quote: str
    section: str
    verdict: str
    words: str


def verdict(refuted: bool, complete: bool) -> str:
    """FAILS by one contradiction, HOLDS where nothing contradicts and nothing is missing, else OPEN."""
    return FAILS if refuted else HOLDS if complete else OPEN


def missing(
    found: Iterable[str], what: str = "a final accuracy beside a clean run of the same seed",
    schemes: Sequence[str] = SCHEMES,
) -> str:  # fmt: skip
    """A sentence about the report's attacks that are not there, empty if all are.

    Args:
        found: `name_of` those that are.
        what: they have.
        schemes: whose attacks are wanted.
    """
    there = set(found)
    wanted = [name_of(scheme, attack) for scheme, attack in KINDS if scheme in schemes]
    lacking = [name for name in wanted if name not in there]
    if not lacking:
        return ""
    return f"Without {what}: {'all attacks' if lacking == wanted else ', '.join(lacking)}."


def name_of(scheme: str, attack: str) -> str:
    """An attack of a scheme in words."""
    return f"{attack} ({scheme})"


def span(values: Iterable[float]) -> str:
    """`29`, or `17 to 29` where they differ; at least one value."""
    low, *rest = sorted(set(values))
    return f"{low:g} to {rest[-1]:g}" if rest else f"{low:g}"


def listed(values: Mapping[str, float]) -> str:
    """Differences by name."""
    return ", ".join(f"{name} {value:+.4f}" for name, value in values.items())


NEAR = 0.005
"""How far a mild run may end from its clean run and still be called nearly indistinguishable: three times the largest
difference between the report's own mild and clean figures."""
_CLEAR = 0.01
"""A difference of accuracy that the report speaks of."""
_LATE = 2
"""Evaluations more than 0.01 below clean that do not count as slower convergence yet."""
_NEW = ("noise", "label_shuffle")
"""The attacks that the report adds to the paper's."""
_SIGMA, _DIMENSION = 100.0, 21840
"""The report's noise (section 5.4), and the number of parameters of its network."""


def judge(sweep: SweepData) -> list[Claim]:
    """All claims of the report; none if no attacked run of the report's own setting is finished.

    No verdict comes from nothing. Most claims speak of several attacks or schemes: one that contradicts is enough for
    FAILS, HOLDS takes all of them, and anything less is OPEN, with what is missing.
    """
    if not sweep.select(AGGRESSIVE) + sweep.select(MILD):
        return []
    return [ask(sweep) for ask in (_bans, _speed, _final, _label_flip, _constant, _milder, _mild, _small)]


def differences(sweep: SweepData, scheme: str) -> dict[str, Sample]:
    """Final accuracy less the clean run's of the same seeds, by attack; attacks without one are left out."""
    found = {attack: sweep.over(sweep.select(scheme, attack), sweep.difference) for attack in ATTACKS}
    return {attack: values for attack, values in found.items() if values is not None}


def _speed(sweep: SweepData) -> Claim:
    """FAILS if the median run of any attack is below clean at more than `_LATE` evaluations; runs that have no more
    evaluations than that decide nothing."""

    def behind(row: Row) -> int | None:
        return sweep.behind(row) if sweep.compared(row) > _LATE else None

    late = {name_of(scheme, attack): values for scheme, attack in KINDS
            if (values := sweep.over(sweep.select(scheme, attack), behind)) is not None}  # fmt: skip
    slow = [f"{name}: {values.median:.0f}" for name, values in late.items() if values.median > _LATE]
    words = ""
    if late:
        rows = [row for scheme, attack in KINDS for row in sweep.select(scheme, attack) if behind(row) is not None]
        every, count = span(row.options["eval_every"] for row in rows), span(map(sweep.compared, rows))
        words = f"Evaluations (one in {every} steps, {count} from the attack on) more than 0.01 below the clean run of "
        words += "the same seed: "
        words += f"{'; '.join(slow)}; at most {_LATE} for the others. " if slow else f"at most {_LATE} for every one. "
    lacking = missing(late, "evaluations beside a clean run of the same seed")
    return Claim("The speed of convergence is not worsened", "6", verdict(bool(slow), not lacking), words + lacking)


def _final(sweep: SweepData) -> Claim:
    """FAILS if any attack's median is more than 0.01 below clean (that is not slightly), or if none is below at all;
    HOLDS if none is that far and more than half of all are below; OPEN between, and where attacks are missing."""
    found = _everywhere(sweep)
    lacking = missing(found)
    lower = sum(values.median < 0 for values in found.values())
    much = [f"{name} {signed(values.median)}" for name, values in found.items() if values.median < -_CLEAR]
    words = ""
    if found:
        words = f"Median difference to clean: below zero for {lower} of {len(found)}"
        words += f"; more than {_CLEAR} below: {', '.join(much) or 'none'}. "
    refuted = bool(much) or not (lacking or lower)
    decided = verdict(refuted, not lacking and 2 * lower > len(found))
    return Claim("the final accuracy is slightly lower", "6", decided, words + lacking)


def _label_flip(sweep: SweepData) -> Claim:
    parts, worse = [], []
    for scheme in SCHEMES:
        found = differences(sweep, scheme)
        if "label_flip" in found and "sign_flip" in found:
            label, sign = found["label_flip"].median, found["sign_flip"].median
            parts.append(f"{scheme}: label flip {signed(label)}, sign flip {signed(sign)}")
            worse.append(label < sign)
    words = f"Median difference to clean, {'; '.join(parts)}. " if parts else ""
    if len(parts) < len(SCHEMES):
        words += "It takes both attacks in both schemes, each with a clean run of the same seed."
    quote = "label flipping being more impactful than sign flipping in both the aggressive and the mild attack schemes"
    return Claim(quote, "6", verdict(not all(worse), len(parts) == len(SCHEMES)), words)


def _constant(sweep: SweepData) -> Claim:
    finals = {attack: sweep.over(sweep.select(AGGRESSIVE, attack), final) for attack in ATTACKS}
    medians = {attack: values.median for attack, values in finals.items() if values is not None}
    absent = [attack for attack in ATTACKS if attack not in medians]
    own = medians.pop("constant_direction", None)
    quote = "the Constant Direction attack ... the test accuracy remains over 0.01 below all the others"
    lacking = f"Without a final accuracy: {', '.join(absent)}." if absent else ""
    if own is None or not medians:
        return Claim(quote, "6.1", OPEN, lacking)
    worst = min(medians, key=lambda attack: medians[attack])
    words = f"Median final accuracy {own:.4f}; the lowest of the others is {worst} with {medians[worst]:.4f}. "
    return Claim(quote, "6.1", verdict(medians[worst] - own <= _CLEAR, not absent), words + lacking)


def _milder(sweep: SweepData) -> Claim:
    found = {attack: values.median for attack, values in differences(sweep, AGGRESSIVE).items()}
    new = {attack: value for attack, value in found.items() if attack in _NEW}
    old = {attack: value for attack, value in found.items() if attack not in _NEW}
    refuted = bool(new and old) and max(map(abs, new.values())) >= min(map(abs, old.values()))
    words = f"Median difference to clean, aggressive: {listed(new)}; the others: {listed(old)}. " if new and old else ""
    lacking = missing([name_of(AGGRESSIVE, attack) for attack in found], schemes=(AGGRESSIVE,))
    quote = "the newly added attacks ... cause smaller changes in loss and accuracy than the other attacks"
    return Claim(quote, "6", verdict(refuted, not lacking), words + lacking)


def _mild(sweep: SweepData) -> Claim:
    found = differences(sweep, MILD)
    medians = {attack: values.median for attack, values in found.items()}
    singles = [value for values in found.values() for value in values.values]
    words = ""
    if found:
        outliers = sum(abs(value) > NEAR for value in singles)
        words = f"Median difference to clean: {listed(medians)}; {outliers} of {len(singles)} single runs end more "
        words += f"than {NEAR} away. "
    lacking = missing([name_of(MILD, attack) for attack in found], schemes=(MILD,))
    far = any(abs(value) > NEAR for value in medians.values())
    return Claim("nearly indistinguishable from noise", "6.2", verdict(far, not lacking), words + lacking)


def _small(sweep: SweepData) -> Claim:
    """FAILS if the noise is longer than what clipping lets through of it, by the rows' radius and number of peers."""
    quote = "illustrate how a small variation of the parameters impacts the loss"
    rows = [row for scheme in SCHEMES for row in sweep.select(scheme, "noise")
            if row.options["task"] == "mnist_cnn" and row.options["rule"] == "centered_clip"]  # fmt: skip
    if not rows:
        return Claim(quote, "5.4", OPEN, "It takes runs of `noise` on mnist_cnn under centered_clip.")
    norm = _SIGMA * math.sqrt(_DIMENSION / 2)
    # tau is the radius of one part of n, so the whole vector keeps sqrt(n) tau (node/protocol/attempt/partition.py).
    radii = [row.options["tau"] * math.sqrt(row.options["peers"]) for row in rows]
    words = (
        f"Noise of sigma {_SIGMA:g} on every other of {_DIMENSION:,} parameters has a norm of about {norm:,.0f}; "
        f"clipping (tau {span(row.options['tau'] for row in rows)}) leaves {span(map(round, radii))} of it. "
    )
    if max(radii) < norm:
        words += "What makes it mild is CenteredClip, which shortens it, and its random direction, which averages out; "
        words += "it is no small variation. `--attack noise:variant=small` is one."
        return Claim(quote, "5.4", FAILS, words)
    return Claim(quote, "5.4", OPEN, words + "Here clipping leaves it as it is, which says nothing of its size.")


def _everywhere(sweep: SweepData) -> dict[str, Sample]:
    return {
        name_of(scheme, attack): values for scheme in SCHEMES for attack, values in differences(sweep, scheme).items()
    }


def _bans(sweep: SweepData) -> Claim:
    """About bans; "quickly" is judged by the law of each run's own setting.

    FAILS if an honest peer was banned, an attacker outlived the 99 % point of the law, or the last ban of an
    aggressive run came after it. HOLDS takes all attacks of both schemes, in runs with validators, and a law for every
    aggressive run. Attackers that a run was too short to catch leave it OPEN.
    """
    quote = "BTARD bans all of them quickly"
    rows = [row for scheme, attack in KINDS for row in sweep.select(scheme, attack) if row.options["validators"]]
    if not rows:
        return Claim(quote, "6.1", verdict(False, False), "In none of the report's attacks does anybody validate.")
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
    return Claim(quote, "6.1", verdict(refuted, not (free or lacking or unjudged)), words + lacking)


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
