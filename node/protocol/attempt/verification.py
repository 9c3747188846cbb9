"""The two verifications of the paper: CheckComputations of gradients, by validators, and the checks of aggregates.

Who recomputes whose gradient: the draw, its bound, and what happens when a drawn peer is removed. Checksums of a
contribution against an aggregate, and the checks V0, V2 and V3 on a transcript; what fails them comes to CheckAveraging
(node/protocol/adjudication/charges.py).

Source: Gorbunov et al. 2021, Algorithm 7 (BTARD-SGD) lines on validators, section 3.1 (verification of aggregation),
equation 3 of the report; PROTOCOL section 3 (Validators), section 8 (tolerances).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import msgspec
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from btard.node.protocol.attempt.mprng import happens, permutation
from btard.node.protocol.rule import Rule
from btard.node.protocol.wire.precision import FLOAT32, Precision

# --- CheckComputations: validators ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draw:
    """Validators of a step, drawn from the randomness of the step before.

    Args:
        order: permutation of the earlier step's contributors.
        count: number of (validator, target) pairs: the first `count` peers of `order` validate the next `count`.
    """

    order: tuple[int, ...] = ()
    count: int = 0

    @property
    def targets(self) -> tuple[int, ...]:
        """The peers whose gradients are recomputed, pair by pair."""
        return self.order[self.count : 2 * self.count]

    def pairs(self, active: Collection[int]) -> tuple[tuple[int, int], ...]:
        """(validator, target) for a roster: a removed validator's pair passes to the next peer of the permutation.

        A target stays due after its own removal. A pair is dropped only when nobody is left to take it.
        """
        drawn = self.order[: self.count]
        spare = [peer for peer in self.order[2 * self.count :] if peer in active]
        result = []
        for validator, target in zip(drawn, self.targets, strict=True):
            if validator in active:
                result.append((validator, target))
            elif spare:
                result.append((spare.pop(0), target))
        return tuple(result)


def allowed_pairs(wanted: int, active: int, genesis_faults: int, removed: int, contribute: bool) -> int:
    """How many pairs a roster can afford.

    `n_contributors > 2 (f_0 - removed)` keeps an honest majority among the next step's contributors (who are all active
    peers where validators contribute too) and `3 m <= n_active` keeps most peers working. Never lowered below one: the
    bound of the whole genesis roster would stop validation after the first ban and keep the second attacker for ever.

    Args:
        wanted: pairs asked for (`--validators`).
        active: size of the active roster.
        genesis_faults: f_0.
        removed: removals so far that count against f_0.
        contribute: validators contribute too.
    """
    if wanted == 0:
        return 0
    left = max(genesis_faults - removed, 0)
    by_majority = wanted if contribute else active - 2 * left - 1
    return max(1, min(wanted, by_majority, active // 3))


def draw(r: bytes, contributors: Sequence[int], pairs: int, validate_every: int) -> Draw:
    """Draw the validators of the next step from this step's contributors.

    Args:
        r: randomness of the step just committed, fixed after all its gradients.
        contributors: who computed a gradient in that step.
        pairs: `allowed_pairs` of the next roster.
        validate_every: a draw happens with probability `1 / validate_every`, decided by r (a fixed rhythm
            would be attacked around).
    """
    count = min(pairs, len(contributors) // 2)
    if count == 0 or not happens(r, "validate", 0, 1.0 / validate_every):
        return Draw()
    return Draw(permutation(r, contributors), count)


# --- checksums, V0, V2 and V3 ---------------------------------------------------------------------------------


_LANES = 8192
"""Running float64 sums; part of the definition, since the order of summation decides the last bits."""

V0_FACTOR = 8.0
V2_FACTOR = 8.0
V3_FACTOR = 4.0
NORM_WINDOW = 10


class Checksum(msgspec.Struct, frozen=True):
    """`s = <z, (g - v) min(1, tau_j / norm)>` and `norm = ||g - v||` of one part, in float64."""

    s: float
    norm: float


def sums(gradient_P: Tensor, aggregate_P: Tensor, direction_P: Tensor) -> tuple[float, float]:
    """`(||g - v||^2, <g - v, z>)` in float64, in one stated order: equal inputs give equal bits on every machine.

    Entry k goes to running sum k mod 8192, each product rounded before it is added; the sums are then folded, the
    upper half onto the lower, until one is left.

    Args:
        gradient_P: float32.
        aggregate_P: float32.
        direction_P: float32, at least as long.
    """
    totals = torch.zeros(2, _LANES, dtype=torch.float64)
    for block in _blocks(gradient_P):
        difference = gradient_P[block].double().sub_(aggregate_P[block])
        width = difference.numel()
        totals[0, :width].add_(difference * difference)
        totals[1, :width].add_(difference.mul_(direction_P[block]))
    folded = _fold(totals)
    return float(folded[0]), float(folded[1])


def squares(values_P: Tensor) -> float:
    """`||v||^2` in float64, in the order of `sums`; finite exactly if every entry is (float32)."""
    totals = torch.zeros(1, _LANES, dtype=torch.float64)
    for block in _blocks(values_P):
        doubled = values_P[block].double()
        totals[0, : doubled.numel()].add_(doubled * doubled)
    return float(_fold(totals)[0])


def _blocks(values_P: Tensor) -> Iterator[slice]:
    for start in range(0, values_P.numel(), _LANES):
        yield slice(start, min(start + _LANES, values_P.numel()))


def _fold(totals: Tensor) -> Tensor:
    while totals.shape[1] > 1:
        half = totals.shape[1] // 2
        totals = totals[:, :half] + totals[:, half:]
    return totals[:, 0]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """The passes over whole vectors: the functions of this module, or faster ones with the same bits."""

    sums: Callable[[Tensor, Tensor, Tensor], tuple[float, float]] = sums
    squares: Callable[[Tensor], float] = squares


def checksum(
    gradient_P: Tensor,
    aggregate_P: Tensor,
    direction_P: Tensor,
    radius: float,
    arithmetic: Arithmetic = Arithmetic(),
) -> Checksum:
    """The one function that sender, aggregator and judge use, so that equal inputs give equal bits.

    Args:
        gradient_P: the contributor's part, float32.
        aggregate_P: the aggregate of that part, float32.
        direction_P: z, at least as long as the part, float32.
        radius: clipping radius tau_j (infinity for rules that do not clip).
        arithmetic: how the sums are taken.
    """
    square, product = arithmetic.sums(gradient_P, aggregate_P, direction_P)
    norm = math.sqrt(square)
    return Checksum(product if norm <= radius else product * (radius / norm), norm)


def plausible(s: ArrayLike, norms: ArrayLike, radii: ArrayLike) -> NDArray[np.bool_]:
    """V0, claim by claim: finite, `norm >= 0` and `|s| <= 8 min(norm, tau_j)`.

    z has unit variance, so an honest s exceeds eight standard deviations never; without the bound a liar could
    cover any shift of an accomplice's aggregate.

    Args:
        s, norms: as claimed, float64 of any shape.
        radii: tau_j, broadcast to it.
    """
    s, norms = np.asarray(s), np.asarray(norms)
    with np.errstate(over="ignore", invalid="ignore"):
        bounded = np.abs(s) <= V0_FACTOR * np.minimum(norms, radii)
        fits: NDArray[np.bool_] = np.isfinite(s) & np.isfinite(norms) & (norms >= 0) & bounded
    return fits


def same(claimed: Checksum, computed: Checksum, radius: float, tolerance: float) -> bool:
    """True if a claim is what we compute: the same bits, or within `tolerance` across environments.

    Args:
        tolerance: relative to the norm (and to min(norm, tau_j) for s); 0 demands equality.
    """
    if tolerance == 0.0:
        return claimed == computed
    scale = max(computed.norm, claimed.norm)
    return abs(claimed.norm - computed.norm) <= tolerance * scale and abs(
        claimed.s - computed.s
    ) <= V0_FACTOR * tolerance * min(scale, radius)


def exact_sum(values: Iterable[float]) -> float:
    """Sum without rounding between the terms, whatever their order (NaN if one, or the sum, is not finite)."""
    try:
        total = math.fsum(values)
    except (OverflowError, ValueError):  # claims near the largest float, or infinite: no peer may stop us with them
        return math.nan
    return total if math.isfinite(total) else math.nan


def sums_to_zero(
    s_N: Sequence[float],
    norms_N: Sequence[float],
    aggregate_norm: float,
    rule: Rule,
    radius: float,
    precision: Precision = FLOAT32,
    entries: int = 0,
) -> bool:
    """V2: `|fsum_i s_i^j| <= tol_j = 8 n_c (slack + 2^-23 ||v||)`; with bfloat16 `8 (n_c slack + E sum_i w_i)`.

    At the fixed point the clipped differences sum to zero; v travels rounded, so each contributor's
    difference is off by the rounding of v. An aggregate so large that its rounding alone reaches a share of the
    radius fails: clipped differences are bounded by the radius, and what `||v||` allows would hide all of them.

    With bfloat16 rounding outweighs all else, so it is bounded as it is. Let v* be the aggregate before rounding:
    `||v* - v|| <= E = 2^-8 ||v|| + 2^-134 sqrt(P)`, half a unit in the last place of each entry. Clipping at tau is the
    projection on a ball: it moves no two points apart, and two points outside the ball of radius R > tau it brings
    together by tau / R. `g_i - v` has the claimed norm, `g_i - v*` at least that less E. So from v* to v the sum of
    clipped differences, at most `n_c slack` at v*, moves by at most `E sum_i w_i`, with
    `w_i = min(1, tau_j / (norm_i - E))`. Entries of z are uniform with unit variance: its product with a vector of
    length L exceeds 8 L with probability below 2e^-32.

    Args:
        s_N, norms_N: the contributors' claims for one part.
        aggregate_norm: ||v(j)||.
        rule: the aggregation rule, which knows what residual it leaves.
        radius: tau_j.
        precision: what v has travelled as.
        entries: P, of the part; not asked for where v has travelled as float32.
    """
    slack = rule.slack(norms_N, radius)
    if not precision.narrow:
        rounding = precision.relative * aggregate_norm
    else:
        rounding = precision.rounding(aggregate_norm, entries)
    if V2_FACTOR * rounding > precision.blind_share * radius:
        return False
    if precision.narrow and norms_N:
        nearest_N = [norm - rounding for norm in norms_N]
        rounding *= math.fsum(1.0 if norm <= radius else radius / norm for norm in nearest_N) / len(norms_N)
    tolerance = V2_FACTOR * len(s_N) * (slack + rounding)
    total = exact_sum(s_N)
    return not math.isnan(total) and abs(total) <= tolerance


def too_many_far(norms_N: Sequence[float], limit: float | None) -> bool:
    """V3: more than half of the contributors say that the aggregate is farther than `limit` (Delta_max) from them."""
    if limit is None:
        return False
    return 2 * sum([norm > limit for norm in norms_N]) > len(norms_N)


@dataclass(frozen=True, slots=True)
class NormWindow:
    """Norms of the last committed transcripts, per square root of an entry (parts change size after bans)."""

    steps: tuple[tuple[float, ...], ...] = ()

    def append(self, scaled_norms: Sequence[float]) -> NormWindow:
        """The window after one more committed step."""
        return NormWindow((*self.steps, tuple(scaled_norms))[-NORM_WINDOW:])

    def scale(self) -> float | None:
        """`delta_max` of a part per square root of an entry: 4 times the median norm; None until the window is full."""
        if len(self.steps) < NORM_WINDOW:
            return None
        finite = [norm for step in self.steps for norm in step if math.isfinite(norm)]
        return V3_FACTOR * median(finite) if finite else None
