"""One claim of the report with a verdict, and the sentences that several verdicts need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from btard.launcher.sweep.plans import AGGRESSIVE, ATTACKS, MILD

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
