"""The report's claims, each with what our runs say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from launcher.report.statistics import Sample, signed
from launcher.report.sweep_data import SweepData, final
from launcher.sweep.plans import AGGRESSIVE, ATTACKS, CLEAN, MILD

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "not decided"
NEAR = 0.005
"""How far a mild run may end from its clean run and still be called nearly indistinguishable: three times the largest
difference between the report's own mild and clean figures."""
_LATE = 2
"""Evaluations (of 50 steps) more than 0.01 below clean that do not count as slower convergence yet."""


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


def judge(sweep: SweepData) -> list[Claim]:
    """All claims that the finished runs of a paper sweep speak of; none if the report's own setting is not among
    them."""
    if not sweep.select(AGGRESSIVE) or not sweep.select(CLEAN):
        return []
    return [claim for claim in (_bans(sweep), _speed(sweep), _final(sweep), _label_flip(sweep), _constant(sweep),
                                _milder(sweep), _mild(sweep), _small(sweep)) if claim is not None]  # fmt: skip


def differences(sweep: SweepData, scheme: str, control: str = "") -> dict[str, Sample]:
    """Final accuracy less the clean run's of the same seeds, by attack; attacks without finished runs are left out."""
    found = {attack: sweep.over(sweep.select(scheme, attack, control), sweep.difference) for attack in ATTACKS}
    return {attack: values for attack, values in found.items() if values is not None}


def _bans(sweep: SweepData) -> Claim:
    rows = sweep.select(AGGRESSIVE) + sweep.select(MILD)
    free, wronged = sum(row.undetected for row in rows), sum(row.honest_banned for row in rows)
    last = [
        row.last_ban - row.attacked_from + 1
        for row in sweep.select(AGGRESSIVE)
        if row.last_ban is not None and row.attacked_from is not None
    ]
    words = (
        f"In {len(rows)} attacked runs {sum(row.byzantine_peers for row in rows) - free} of "
        f"{sum(row.byzantine_peers for row in rows)} attackers were banned and {wronged} honest peers. "
    )
    if last:
        words += (
            f"With two attackers in every step, the second was out after {min(last)} to {max(last)} steps (median "
            f"{statistics.median(last):g}); the law gives 10.1 on average and 29 in 99 of 100."
        )
    return Claim("BTARD bans all of them quickly", "6.1", HOLDS if free == wronged == 0 else FAILS, words)


def _speed(sweep: SweepData) -> Claim | None:
    late = {(scheme, attack): values for scheme in (AGGRESSIVE, MILD) for attack in ATTACKS
            if (values := sweep.over(sweep.select(scheme, attack), sweep.behind)) is not None}  # fmt: skip
    if not late:
        return None
    slow = [f"{attack} ({scheme}): {values.median:.0f}" for (scheme, attack), values in late.items()
            if values.median > _LATE]  # fmt: skip
    words = "Evaluations (one in 50 steps, 17 from step 100 on) more than 0.01 below the clean run of the same seed: "
    words += f"{'; '.join(slow)}; at most {_LATE} for the others." if slow else f"at most {_LATE} for every attack."
    return Claim("The speed of convergence is not worsened", "6", FAILS if slow else HOLDS, words)


def _final(sweep: SweepData) -> Claim:
    found = {f"{attack} ({scheme})": values for scheme in (AGGRESSIVE, MILD)
             for attack, values in differences(sweep, scheme).items()}  # fmt: skip
    lower = sum(values.median < 0 for values in found.values())
    much = [f"{name} {signed(values.median)}" for name, values in found.items() if values.median < -0.01]
    words = f"Median difference to clean: below zero for {lower} of {len(found)}"
    words += f"; more than 0.01 below for {', '.join(much)}." if much else "; nowhere more than 0.01 below."
    return Claim("the final accuracy is slightly lower", "6", FAILS if much else HOLDS, words)


def _label_flip(sweep: SweepData) -> Claim | None:
    parts, verdicts = [], []
    for scheme in (AGGRESSIVE, MILD):
        found = differences(sweep, scheme)
        if "label_flip" not in found or "sign_flip" not in found:
            continue
        label, sign = found["label_flip"].median, found["sign_flip"].median
        parts.append(f"{scheme}: label flip {signed(label)}, sign flip {signed(sign)}")
        verdicts.append(label < sign)
    if not parts:
        return None
    quote = "label flipping being more impactful than sign flipping in both the aggressive and the mild attack schemes"
    return Claim(quote, "6", HOLDS if all(verdicts) else FAILS, f"Median difference to clean, {'; '.join(parts)}.")


def _constant(sweep: SweepData) -> Claim | None:
    finals = {attack: sweep.over(sweep.select(AGGRESSIVE, attack), final) for attack in ATTACKS}
    medians = {attack: values.median for attack, values in finals.items() if values is not None}
    own = medians.pop("constant_direction", None)
    if own is None or not medians:
        return None
    worst = min(medians, key=lambda attack: medians[attack])
    gap = medians[worst] - own
    return Claim(
        "the Constant Direction attack ... the test accuracy remains over 0.01 below all the others", "6.1",
        HOLDS if gap > 0.01 else FAILS,
        f"Median final accuracy {own:.4f}; the lowest of the others is {worst} with {medians[worst]:.4f}.",
    )  # fmt: skip


def _milder(sweep: SweepData) -> Claim | None:
    found = differences(sweep, AGGRESSIVE)
    new: dict[str, float] = {
        attack: found.pop(attack).median for attack in ("noise", "label_shuffle") if attack in found
    }
    if not new or not found:
        return None
    old = {attack: values.median for attack, values in found.items()}
    holds = max(map(abs, new.values())) < min(map(abs, old.values()))
    return Claim(
        "the newly added attacks ... cause smaller changes in loss and accuracy than the other attacks", "6",
        HOLDS if holds else FAILS, f"Median difference to clean, aggressive: {_list(new)}; the others: {_list(old)}.",
    )  # fmt: skip


def _mild(sweep: SweepData) -> Claim | None:
    found = differences(sweep, MILD)
    if not found:
        return None
    medians = {attack: values.median for attack, values in found.items()}
    far = [attack for attack, value in medians.items() if abs(value) > NEAR]
    outliers = sum(abs(value) > NEAR for values in found.values() for value in values.values)
    words = f"Median difference to clean: {_list(medians)}; {outliers} of {sum(len(v.values) for v in found.values())} "
    words += f"single runs end more than {NEAR} away."
    return Claim("nearly indistinguishable from noise", "6.2", FAILS if far else HOLDS, words)


def _small(sweep: SweepData) -> Claim:
    norm = 100 * math.sqrt(21840 / 2)
    words = (
        f"Noise of sigma 100 on every other of 21,840 parameters has a norm of about {norm:,.0f}, some "
        f"{norm / 5:,.0f} times the clipping radius. What makes it mild is CenteredClip, which shortens it to the "
        "radius, and its random direction, which averages out; it is no small variation. "
        "`--attack noise:variant=small` is one."
    )
    return Claim("illustrate how a small variation of the parameters impacts the loss", "5.4", FAILS, words)


def _list(values: Mapping[str, float]) -> str:
    return ", ".join(_each(values))


def _each(values: Mapping[str, float]) -> Iterator[str]:
    for name, value in values.items():
        yield f"{name} {signed(value)}"
