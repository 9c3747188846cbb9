"""The report's claims, each with a verdict that follows from intervals over draws, or with none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from btard.launcher.report import detection
from btard.launcher.report.inference import CONTRADICTED, SUPPORTED, UNDECIDED, Comparison, decide, needed
from btard.launcher.report.sweep_data import SEEDS, SweepData, attack_of, evaluated_every, final
from btard.launcher.sweep.plans import AGGRESSIVE, ATTACKS, MILD
from btard.launcher.sweep.rows import Row

SCHEMES = (AGGRESSIVE, MILD)
KINDS = tuple((scheme, attack) for scheme in SCHEMES for attack in ATTACKS)
"""What the report attacks with, in the order of its figures."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of the report.

    Args:
        quote: its words.
        section: where they stand.
        verdict: of `inference.decide`.
        words: what was measured, and what is missing.
        parts: the comparisons that the verdict follows from.
    """

    quote: str
    section: str
    verdict: str
    words: str
    parts: tuple[Comparison, ...] = ()

    @property
    def reason(self) -> str:
        """Why the verdict is what it is, from the comparisons alone."""
        short = [part.effect for part in self.parts if part.effect is not None and part.effect.interval is None]
        if short:
            draws, least = span(len(effect.by_draw) for effect in short), needed(short[0].level)
            return f"{draws} draws; no interval can exclude anything with fewer than {least}."
        counts = [f"{found} of {len(self.parts)} intervals {what}" for what, found in self._counts() if found]
        return f"{'; '.join(counts)}." if counts else ""

    def _counts(self) -> Iterable[tuple[str, int]]:
        verdicts = [part.verdict for part in self.parts]
        yield "lie where the claim says", verdicts.count(SUPPORTED)
        yield "lie elsewhere", verdicts.count(CONTRADICTED)
        yield "leave it open", sum(part.verdict == UNDECIDED and part.effect is not None for part in self.parts)


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


NEAR = 0.005
"""How far mild runs may end from their clean runs and still be called nearly indistinguishable: three times the largest
difference between the report's own mild and clean figures."""
_CLEAR = 0.01
"""A difference of accuracy that the report speaks of."""
_LATE = 2
"""Evaluations more than 0.01 below clean that do not count as slower convergence yet."""
_NEW = ("noise", "label_shuffle")
"""The attacks that the report adds to the paper's."""
_OLD = tuple(attack for attack in ATTACKS if attack not in _NEW)
_SIGMA, _DIMENSION = 100.0, 21840
"""The report's noise (section 5.4), and the number of parameters of its network."""


def judge(sweep: SweepData) -> list[Claim]:
    """All claims of the report; none if no attacked run of the report's own setting is finished, or they have several.

    No verdict comes from nothing. Most claims speak of several attacks or schemes: each is a comparison, and the
    intervals of one claim hold together. One that is contradicted is enough for CONTRADICTED, SUPPORTED takes all of
    them, and anything less is UNDECIDED, with what is missing.
    """
    if not sweep.select(AGGRESSIVE) + sweep.select(MILD) or mixed(sweep):
        return []
    return [ask(sweep) for ask in (_bans, _speed, _final, _label_flip, _constant, _milder, _mild, _small)]


def mixed(sweep: SweepData) -> list[str]:
    """Options in which the runs of the report's own setting differ, beside what it varies itself."""
    own = [row for row in sweep.rows if row.labels.get("scheme") and not row.labels.get("control")]
    names = [name for name in sweep.varied if name not in (*SEEDS, "attack", "byzantine", "attack_every")]
    return [name for name in names if len({str(row.options.get(name)) for row in own}) > 1]


def _speed(sweep: SweepData) -> Claim:
    """About how many evaluations are more than 0.01 below clean; runs that have no more than `_LATE` decide nothing."""

    def behind(row: Row) -> int | None:
        return sweep.behind(row) if sweep.compared(row) > _LATE else None

    parts = [
        Comparison(name_of(*kind), sweep.effect(sweep.select(*kind), behind, len(KINDS)), below=_LATE) for kind in KINDS
    ]
    rows = [row for kind in KINDS for row in sweep.select(*kind) if behind(row) is not None]
    words = ""
    if rows:
        every, count = span(map(evaluated_every, rows)), span(map(sweep.compared, rows))
        words = f"Evaluations (one in {every} steps, {count} from the attack on) more than 0.01 below the clean run of "
        words += "the same seed. "
    return _told(
        "The speed of convergence is not worsened", "6", parts, words, "evaluations beside a clean run of the same seed"
    )


def _final(sweep: SweepData) -> Claim:
    parts = []
    for scheme in SCHEMES:
        rows = [row for attack in ATTACKS for row in sweep.select(scheme, attack)]
        effect = sweep.effect(rows, sweep.difference, len(SCHEMES))
        parts.append(Comparison(f"all attacks ({scheme})", effect, -_CLEAR, 0.0))
    there = [name_of(*kind) for kind in KINDS if sweep.effect(sweep.select(*kind), sweep.difference)]
    return _told("the final accuracy is slightly lower", "6", parts, f"{_TO_CLEAN} ", lacking=missing(there))


def _label_flip(sweep: SweepData) -> Claim:
    parts = [_between(sweep, scheme, "label_flip", "sign_flip", len(SCHEMES), below=0.0) for scheme in SCHEMES]
    quote = "label flipping being more impactful than sign flipping in both the aggressive and the mild attack schemes"
    return _told(quote, "6", parts, "Final accuracy under label flipping less that under sign flipping, same seeds. ")


def _constant(sweep: SweepData) -> Claim:
    others = [attack for attack in ATTACKS if attack != "constant_direction"]
    parts = [_between(sweep, AGGRESSIVE, "constant_direction", other, len(others), below=-_CLEAR) for other in others]
    quote = "the Constant Direction attack ... the test accuracy remains over 0.01 below all the others"
    return _told(
        quote, "6.1", parts, "Final accuracy under constant direction less that under another attack, same seeds. "
    )


def _milder(sweep: SweepData) -> Claim:
    """About how far a run ends from its clean run, in either direction."""

    def change(row: Row) -> float | None:
        found = sweep.difference(row)
        return None if found is None else abs(found)

    pairs = [(new, old) for new in _NEW for old in _OLD]
    parts = [_between(sweep, AGGRESSIVE, new, old, len(pairs), change, below=0.0) for new, old in pairs]
    quote = "the newly added attacks ... cause smaller changes in loss and accuracy than the other attacks"
    return _told(
        quote, "6", parts, "Distance of the final accuracy to the clean run's, one attack less another, same seeds. "
    )


def _mild(sweep: SweepData) -> Claim:
    parts = [
        Comparison(
            name_of(MILD, attack), sweep.effect(sweep.select(MILD, attack), sweep.difference, len(ATTACKS)), -NEAR, NEAR
        )
        for attack in ATTACKS
    ]
    return _told("nearly indistinguishable from noise", "6.2", parts, f"{_TO_CLEAN} ")


_TO_CLEAN = "Final accuracy less that of the clean run of the same seeds."


def _between(
    sweep: SweepData, scheme: str, one: str, other: str, parts: int,
    measure: Callable[[Row], float | None] = final, *, below: float,
) -> Comparison:  # fmt: skip
    """A quantity under one attack less that under another in the run that differs in nothing else."""

    def apart(row: Row) -> float | None:
        beside = sweep.beside(row, sweep.select(scheme, other))
        mine, its = measure(row), None if beside is None else measure(beside)
        return None if mine is None or its is None else mine - its

    effect = sweep.effect(sweep.select(scheme, one), apart, parts)
    return Comparison(f"{one} less {other} ({scheme})", effect, below=below)


def _told(
    quote: str, section: str, parts: Sequence[Comparison], words: str,
    what: str = "runs of the same seeds to compare", lacking: str | None = None,
) -> Claim:  # fmt: skip
    """A claim that its comparisons decide; `lacking`: what else is missing."""
    absent = ", ".join(part.name for part in parts if part.effect is None)
    if lacking is None:
        lacking = f"Without {what}: {absent}." if absent else ""
    return Claim(quote, section, decide(parts, not (absent or lacking)), words + lacking, tuple(parts))


def _small(sweep: SweepData) -> Claim:
    """CONTRADICTED if the noise is longer than what clipping leaves of it, by the rows' radius and number of peers."""
    quote = "illustrate how a small variation of the parameters impacts the loss"
    rows = [row for scheme in SCHEMES for row in sweep.select(scheme, "noise")
            if row.options["task"] == "mnist_cnn" and row.options["rule"] == "centered_clip"]  # fmt: skip
    if not rows:
        return Claim(quote, "5.4", UNDECIDED, "It takes runs of `noise` on mnist_cnn under centered_clip.")
    norm = _SIGMA * math.sqrt(_DIMENSION / 2)
    # tau is the radius of one part of n, so the whole vector keeps sqrt(n) tau (node/protocol/attempt/attempt.py).
    radii = [row.options["tau"] * math.sqrt(row.options["peers"]) for row in rows]
    words = (
        f"Noise of sigma {_SIGMA:g} on every other of {_DIMENSION:,} parameters has a norm of about {norm:,.0f}; "
        f"clipping (tau {span(row.options['tau'] for row in rows)}) leaves {span(map(round, radii))} of it. "
    )
    if max(radii) < norm:
        words += "What makes it mild is CenteredClip, which shortens it, and its random direction, which averages out; "
        words += "it is no small variation. `--attack noise:variant=small` is one."
        return Claim(quote, "5.4", CONTRADICTED, words)
    return Claim(quote, "5.4", UNDECIDED, words + "Here clipping leaves it as it is, which says nothing of its size.")


def _bans(sweep: SweepData) -> Claim:
    """About bans; "quickly" is judged by the law of each run's own setting.

    One honest peer that was banned contradicts it, and so does an attacker left by a run that was long enough to catch
    it. Otherwise the time to the last ban in aggressive runs, less the law's 99 % point, decides. Attackers that a run
    was too short to catch, and runs without a law, leave it UNDECIDED.
    """
    quote = "BTARD bans all of them quickly"
    rows = [row for scheme, attack in KINDS for row in sweep.select(scheme, attack) if row.options["validators"]]
    if not rows:
        return Claim(quote, "6.1", UNDECIDED, "In none of the report's attacks does anybody validate.")
    attackers, free = sum(row.byzantine_peers for row in rows), sum(row.undetected for row in rows)
    wronged = sum(row.honest_banned for row in rows)
    escaped = [row for row in rows if row.undetected and _long_enough(row)]
    fast = [row for row in rows if row.labels["scheme"] == AGGRESSIVE]
    part = Comparison("steps to the last ban less the law's 99 % point", sweep.effect(fast, _spared), below=0.0)
    unjudged = [row for row in fast if _spared(row) is None]
    lacking = missing((name_of(row.labels["scheme"], attack_of(row)) for row in rows), "a finished run")
    words = f"In {len(rows)} attacked runs {attackers - free} of {attackers} attackers were banned and {wronged} "
    words += f"honest peers. {_law_words(fast)}"
    if escaped:
        words += f"{len(escaped)} of the runs with attackers left went on for longer than 99 of 100 take by the law. "
    elif free:
        words += "The runs were too short for the attackers that are left. "
    complete = not (free or lacking or unjudged)
    return Claim(quote, "6.1", decide([part], complete, bool(wronged or escaped)), words + lacking, (part,))


def _law_words(rows: Sequence[Row]) -> str:
    laws = [law for row in rows if (law := _law(row)) is not None]
    if not laws:
        return "The setting of the aggressive ones has no law to judge them by. " if rows else ""
    means, most = span(round(mean, 1) for mean, _ in laws), span(point for _, point in laws)
    return f"In aggressive ones the law has the last one out after {means} steps on average, {most} in 99 of 100. "


def _spared(row: Row) -> int | None:
    """Steps to the last ban less the law's 99 % point."""
    steps, law = detection.lasted(row), _law(row)
    return None if steps is None or law is None else steps - law[1]


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
