"""Each rule and pre-aggregation on worked numbers, and on random rows against its definition written out plainly."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from btard.node.aggregation import (
    bulyan,
    caf,
    centered_clip,
    cge,
    geometric_median,
    krum,
    mda,
    meamed,
    monna,
    multi_krum,
    norm_clip,
    sign_vote,
    smea,
    trimmed_mean,
)
from btard.node.aggregation.pre import arc, bucketing, clipping, nnm, worker_momentum

LINE = torch.tensor([[0.0], [1.0], [2.0], [4.0], [100.0]])
"""Five rows of one coordinate: on a line every choice can be read off."""


def rows(count=7, columns=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, columns, generator=generator) + torch.arange(columns) % 3


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-6)


WORKED = [
    ("trimmed mean", trimmed_mean, {"f": 1}, 7 / 3),  # of 1, 2, 4
    ("trimmed mean of f = 2: the median", trimmed_mean, {"f": 2}, 2.0),
    ("trimmed mean of f = 0: the mean", trimmed_mean, {"f": 0}, 107 / 5),
    ("meamed", meamed, {"f": 1}, 7 / 4),  # 0, 1, 2, 4
    ("meamed of f = 2", meamed, {"f": 2}, 1.0),  # 0 and 4 are equally far from 2: the lower one
    ("krum: 0 to 1 and 2: 5; 1: 2; 2: 5; 4: 13", krum, {"f": 1}, 1.0),
    ("multi-krum drops 100", multi_krum, {"f": 1}, 7 / 4),
    ("multi-krum of m = 2: 1, then 0 before 2", multi_krum, {"f": 1, "m": 2}, 0.5),
    ("bulyan without an attacker is the mean", bulyan, {"f": 0}, 107 / 5),
    ("cge drops the longest", cge, {"f": 1}, 7 / 4),
    ("cge of f = 2", cge, {"f": 2}, 1.0),
    ("mda: 0, 1, 2, 4 have diameter 4", mda, {"f": 1}, 7 / 4),
    ("mda of f = 2: 0, 1, 2", mda, {"f": 2}, 1.0),
    ("smea of f = 2: 0, 1, 2", smea, {"f": 2}, 1.0),
    ("monna around 0", monna, {"f": 2}, 1.0),
    ("monna around 4: 1, 2, 4", monna, {"f": 2, "own": 3}, 7 / 3),
    ("norm clipping: 0, 1, 2, 3, 3", norm_clip, {"radius": 3.0}, 9 / 5),
    ("signs: four of five are positive, the median size is 2", sign_vote, {}, 2.0),
    ("signs of one size", sign_vote, {"scale": 0.5}, 0.5),
    ("the geometric median on a line is the median", geometric_median, {"smoothing": 1e-3}, 2.0),
]


@pytest.mark.parametrize(
    ("rule", "parameters", "expected"), [row[1:] for row in WORKED], ids=[row[0] for row in WORKED]
)
def test_worked_numbers(rule, parameters, expected):
    torch.testing.assert_close(rule(LINE, **parameters), torch.tensor([expected]), rtol=1e-6, atol=2e-4)


def test_signs_may_be_tied():
    assert sign_vote(torch.tensor([[1.0, -2.0], [-1.0, -3.0]]), scale=1.0).tolist() == [0.0, -1.0]


def test_bulyan_by_hand():
    """Seven rows, f = 1: Krum picks 5 of them one by one, and the 3 values nearest to their median count."""
    line = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [1000.0]])
    close(bulyan(line, f=1), [2.0])


def test_caf_by_hand():
    """Two of five rows stand out on one axis: they lose all weight first, and the mean of the others is the best."""
    flat = torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 0.0], [90.0, 0.0], [90.0, 0.0]])
    found = caf(flat, f=2)
    assert float(found[0]) == pytest.approx(0.0, abs=1e-3)
    assert torch.equal(caf(torch.ones(4, 3), f=1), torch.ones(3)), "equal rows have no direction of variance"
    close(caf(rows(), f=0), rows().mean(dim=0))


# --- on random rows, against the definition written out ------------------------------------------------------------


def krum_scores(inputs, f):
    distances = torch.cdist(inputs.double(), inputs.double()).square()
    return [sum(sorted(distances[i].tolist())[1 : len(inputs) - f - 1]) for i in range(len(inputs))]


@pytest.mark.parametrize("f", [0, 1, 2])
def test_krum_and_multi_krum_by_definition(f):
    inputs = rows()
    scores = krum_scores(inputs, f)
    assert torch.equal(krum(inputs, f=f), inputs[scores.index(min(scores))])
    best = sorted(range(7), key=scores.__getitem__)[: 7 - f]
    close(multi_krum(inputs, f=f), inputs[best].mean(dim=0))


@pytest.mark.parametrize("f", [1, 2])
def test_bulyan_by_definition(f):
    inputs = rows(4 * f + 4)
    left, picked = list(range(len(inputs))), []
    while len(picked) < len(inputs) - 2 * f:
        scores = krum_scores(inputs[left], f)
        picked.append(left.pop(scores.index(min(scores))))
    chosen = inputs[picked]
    median = chosen.quantile(0.5, dim=0)
    nearest = (chosen - median).abs().sort(dim=0, stable=True).indices[: len(picked) - 2 * f]
    close(bulyan(inputs, f=f), chosen.gather(0, nearest).mean(dim=0))


@pytest.mark.parametrize(("count", "f"), [(3, 0), (3, 1), (4, 1), (7, 0), (7, 3), (8, 1), (8, 3)])
def test_coordinate_wise_rules_by_definition(count, f):
    inputs = rows(count)
    ordered = inputs.sort(dim=0).values
    close(trimmed_mean(inputs, f=f), ordered[f : count - f].mean(dim=0))
    nearest = (inputs - inputs.quantile(0.5, dim=0)).abs().sort(dim=0).indices[: count - f]
    close(meamed(inputs, f=f), inputs.gather(0, nearest).mean(dim=0))


def test_huge_values_leave_no_trace_in_coordinate_wise_means():
    inputs = rows()
    spoilt = inputs.clone()
    spoilt[0], spoilt[1] = 2.0**40, -(2.0**40)
    honest = inputs[2:]
    close(trimmed_mean(spoilt, f=2), honest.sort(dim=0).values[1:-1].mean(dim=0))
    close(meamed(spoilt, f=2), honest.mean(dim=0))


@pytest.mark.parametrize("f", [1, 3])
def test_subset_rules_by_definition(f):
    inputs = rows()
    kept = list(combinations(range(7), 7 - f))
    diameters = [float(torch.pdist(inputs[list(each)].double()).max()) for each in kept]
    close(mda(inputs, f=f), inputs[list(kept[diameters.index(min(diameters))])].mean(dim=0))
    covariances = [torch.cov(inputs[list(each)].double().T) for each in kept]
    largest = [float(torch.linalg.eigvalsh(covariance)[-1]) for covariance in covariances]
    close(smea(inputs, f=f), inputs[list(kept[largest.index(min(largest))])].mean(dim=0))


def test_caf_by_definition():
    inputs = rows(7, 40).double()
    weights, best, result = torch.ones(7, dtype=torch.float64), math.inf, None
    while weights.sum() > 7 - 2 * 2:
        mean = (weights[:, None] * inputs).sum(dim=0) / weights.sum()
        offsets = inputs - mean
        values, vectors = torch.linalg.eigh((weights[:, None] * offsets).T @ offsets / weights.sum())
        if values[-1] < best:
            best, result = float(values[-1]), mean
        outlying = (offsets @ vectors[:, -1]).square()
        weights = weights * (1 - outlying / outlying[weights > 0].max()).clamp(min=0)
    close(caf(inputs.float(), f=2), result)


def test_the_geometric_median_is_centered_clip_at_the_smoothing_radius():
    inputs = rows()
    assert torch.equal(geometric_median(inputs, smoothing=0.5), centered_clip(inputs, radius=0.5))
    at = geometric_median(inputs, smoothing=1e-3).double()
    total = (inputs.double() - at).norm(dim=1).sum()
    for shift in torch.randn(20, inputs.shape[1], generator=torch.Generator().manual_seed(1)).double():
        assert (inputs.double() - at - 1e-2 * shift).norm(dim=1).sum() > total - 1e-6


# --- pre-aggregations ---------------------------------------------------------------------------------------------


def test_nnm_by_definition():
    inputs = rows()
    distances = torch.cdist(inputs.double(), inputs.double())
    nearest = distances.argsort(dim=1)[:, :5]
    close(nnm(inputs, f=2), torch.stack([inputs[chosen].mean(dim=0) for chosen in nearest]))
    close(nnm(LINE, f=2), [[1.0], [1.0], [1.0], [7 / 3], [106 / 3]])


def test_bucketing_averages_groups_of_every_row_once():
    inputs = rows()
    buckets = bucketing(inputs, s=3)
    assert buckets.shape == (3, 300)
    close((buckets * torch.tensor([[3.0], [3.0], [1.0]])).sum(dim=0), inputs.sum(dim=0))
    assert torch.equal(buckets, bucketing(inputs.clone(), s=3)), "a judge finds the same groups"
    assert not torch.equal(buckets, bucketing(inputs, s=3, seed=1))
    assert torch.equal(bucketing(LINE, s=1).sort(dim=0).values, LINE)
    with pytest.raises(ValueError, match="s=0"):
        bucketing(LINE, s=0)


def test_bucketing_draws_anew_when_a_row_changes():
    groups = set()
    for value in range(40):
        line = torch.tensor([[float(value)], [100.0], [10000.0], [1e6]])
        groups.add(tuple(sorted(round(float(each) * 2) // 100 for each in bucketing(line, s=2))))
    assert len(groups) == 3, "all three pairings of four rows occur"


def test_clipping_shortens_rows():
    close(clipping(LINE, radius=3.0), [[0.0], [1.0], [2.0], [3.0], [3.0]])
    two = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    close(clipping(two, radius=1.0), [[0.6, 0.8], [0.3, 0.4]])


def test_arc_shortens_the_longest_to_the_longest_of_the_others():
    """k = floor(2 (1/5) 4) = 1: 100 becomes 4. f = 2: floor(2 (2/5) 3) = 2: 4 and 100 become 2."""
    close(arc(LINE, f=1), [[0.0], [1.0], [2.0], [4.0], [4.0]])
    close(arc(LINE, f=2), [[0.0], [1.0], [2.0], [2.0], [2.0]])
    zeros = torch.tensor([[0.0], [0.0], [5.0]])
    assert torch.equal(arc(zeros, f=1), zeros), "nothing can be shortened to nothing"


def test_worker_momentum_is_a_running_average():
    first = worker_momentum(LINE)
    assert torch.equal(first, LINE)
    close(worker_momentum(2 * LINE, first, beta=0.75), 1.25 * LINE)
    with pytest.raises(ValueError, match="do not fit"):
        worker_momentum(LINE, first[:3])
    with pytest.raises(ValueError, match="beta=1"):
        worker_momentum(LINE, first, beta=1.0)


# --- conditions ---------------------------------------------------------------------------------------------------

CONDITIONS = [
    (krum, "krum needs n >= 2f \\+ 3: f=2 takes 7 rows, these are 5", 2),
    (multi_krum, "multi_krum needs n >= 2f \\+ 3", 2),
    (bulyan, "bulyan needs n >= 4f \\+ 3: f=1 takes 7 rows, these are 5", 1),
    *((rule, f"{rule.__name__} needs n >= 2f \\+ 1: f=3 takes 7 rows, these are 5", 3)
      for rule in (trimmed_mean, meamed, cge, mda, smea, caf, monna, nnm, arc)),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "words", "f"), CONDITIONS, ids=[row[0].__name__ for row in CONDITIONS])
def test_a_condition_that_fails_is_named_and_can_be_overridden(rule, words, f):
    with pytest.raises(ValueError, match=words):
        rule(LINE, f=f)
    assert bool(rule(LINE, f=f, allow_weak=True).isfinite().all())
    with pytest.raises(ValueError, match="f=-1"):
        rule(LINE, f=-1)
    rule(LINE)
    for few in (LINE[:1], LINE[:2]):
        assert bool(rule(few, allow_weak=True).isfinite().all())


def test_without_f_a_rule_withstands_what_it_can():
    assert torch.equal(krum(LINE), krum(LINE, f=1))
    assert torch.equal(trimmed_mean(LINE), trimmed_mean(LINE, f=2))
    with pytest.raises(ValueError, match="krum needs n >= 2f \\+ 3: f=0 takes 3 rows, these are 2"):
        krum(LINE[:2])
    with pytest.raises(ValueError, match="all 145422675 subsets"):
        mda(torch.zeros(30, 1), f=14)
