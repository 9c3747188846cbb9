"""Attacks that know the honest gradients: each formula on numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from btard.node.adversary.adversary import Adversary
from btard.node.adversary.attacks.alie import alie
from btard.node.adversary.attacks.alie_optimised import alie_optimised
from btard.node.adversary.attacks.backdoor import backdoor
from btard.node.adversary.attacks.bulyan_coordinate import bulyan_coordinate
from btard.node.adversary.attacks.delayed import delayed
from btard.node.adversary.attacks.fang import fang
from btard.node.adversary.attacks.ipm import ipm
from btard.node.adversary.attacks.ipm_optimised import ipm_optimised
from btard.node.adversary.attacks.mimic import Mimic
from btard.node.adversary.attacks.min_max import min_max
from btard.node.adversary.attacks.min_sum import min_sum
from btard.node.adversary.attacks.random_direction import random_direction
from btard.node.adversary.attacks.rop import rop
from btard.node.adversary.perturbation import alie_factor
from btard.node.adversary.registry import ATTACKS, bind
from btard.node.adversary.view import View
from btard.node.config import Plugin, Role
from btard.node.errors import ConfigError
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.roster import Roster
from btard.node.protocol.state.state import State

HONEST = {
    0: torch.tensor([1.0, 2.0, 0.0, 4.0]),
    1: torch.tensor([3.0, 2.0, -2.0, 4.0]),
    2: torch.tensor([2.0, 5.0, 1.0, 4.0]),
}
ROWS = torch.stack(list(HONEST.values()))
MEAN = torch.tensor([2.0, 3.0, -1 / 3, 4.0])
OWN = torch.zeros(4)


def mean_of(rows_ND: Tensor) -> Tensor:
    return rows_ND.mean(dim=0)


def median_of(rows_ND: Tensor) -> Tensor:
    return rows_ND.median(dim=0).values


VIEW = View(step=7, me=4, accomplices=(3, 4), dimension=4, classes=10, active=(0, 1, 2, 3, 4),
            contributors=(0, 1, 2, 3, 4), attack_seed=3, recompute=HONEST.__getitem__, combine=mean_of)  # fmt: skip


def test_what_colluders_know() -> None:
    assert (VIEW.contributing, VIEW.honest_contributors, VIEW.colluders) == ((0, 1, 2, 3, 4), (0, 1, 2), 2)
    assert torch.equal(VIEW.honest_gradients(), ROWS)
    assert replace(VIEW, contributors=(1, 3, 4)).honest_gradients().tolist() == [HONEST[1].tolist()]
    assert replace(VIEW, contributors=(4,)).honest_gradients().shape == (0, 4)


def test_the_aggregate_is_computed_on_rows_in_roster_order() -> None:
    seen: list[Tensor] = []
    view = replace(VIEW, accomplices=(1, 4), combine=lambda rows_ND: seen.append(rows_ND) or rows_ND[0],
                   contributors=(0, 1, 2, 4))  # fmt: skip
    view.aggregate_with(view.honest_gradients(), torch.full((4,), 9.0))
    assert seen[0].tolist() == [HONEST[0].tolist(), [9.0] * 4, HONEST[2].tolist(), [9.0] * 4]
    with pytest.raises(LookupError, match="no means to compute the rule"):
        replace(VIEW, combine=None).aggregate_with(ROWS, OWN)


def test_delayed_sends_what_it_computed_then_or_the_oldest_it_has() -> None:
    history = {step: torch.full((4,), float(step)) for step in (3, 5, 7)}
    view = replace(VIEW, history=history)
    assert delayed(OWN, view, delay=2)[0] == 5
    assert delayed(OWN, view, delay=3)[0] == 3, "it validated in step 4: the last one before it"
    assert delayed(OWN, view, delay=1000)[0] == 3
    assert delayed(OWN, replace(VIEW, history={}), delay=2) is OWN


def test_delayed_must_fit_into_memory() -> None:
    role = Role((Plugin("delayed"),))
    Adversary(role, 0, dimension=100_000)
    with pytest.raises(ConfigError, match=r"needs 8\d\.\d GiB .* use a delay of at most 47"):
        Adversary(role, 0, dimension=11_173_962)


def test_random_direction_is_common_to_attackers_and_fresh_each_step() -> None:
    sent = random_direction(HONEST[0], VIEW, scale=10.0)
    assert float(sent.norm()) == pytest.approx(10 * math.sqrt(21), rel=1e-5)
    assert torch.equal(sent, random_direction(HONEST[0], replace(VIEW, me=3), scale=10.0))
    assert not torch.allclose(sent, random_direction(HONEST[0], replace(VIEW, step=8), scale=10.0))


def test_ipm_is_minus_a_share_of_the_mean() -> None:
    assert ipm(OWN, VIEW, eps=0.6).tolist() == pytest.approx((-0.6 * MEAN).tolist())


def test_alie_moves_by_z_deviations() -> None:
    sigma = torch.tensor([math.sqrt(2 / 3), math.sqrt(2), math.sqrt(14 / 9), 0.0])
    assert alie(OWN, VIEW, z=1.5).tolist() == pytest.approx((MEAN - 1.5 * sigma).tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("honest", "attackers", "z"),
    [(4, 2, 0.0), (3, 2, 0.430727), (16, 4, 0.157311), (38, 12, 0.336038), (1, 1, 0.0), (3, 3, 0.430727)],
    ids=["the report's cluster: s = 2", "s = 1 of 3", "s = 7 of 16", "the paper's 50 workers: s = 14 of 38",
         "one honest row", "half of all: s counts as 1"],
)  # fmt: skip
def test_alies_own_factor(honest: int, attackers: int, z: float) -> None:
    """Phi^-1((n-b-s)/(n-b)) with s = floor(n/2 + 1) - b, from a table of the normal distribution."""
    assert alie_factor(honest, attackers) == pytest.approx(z, abs=1e-6)


def test_the_optimised_attacks_find_the_strongest_factor() -> None:
    """Under a mean of five the damage grows with the factor, so the largest is best; under a median it saturates."""
    found = ipm_optimised(OWN, VIEW)
    assert found.tolist() == pytest.approx((-64 * MEAN).tolist(), rel=0.02), "the end of the last octave"
    view = replace(VIEW, combine=median_of)
    for attack in (ipm_optimised, alie_optimised):
        damage = (view.aggregate_with(ROWS, attack(OWN, view)) - MEAN).norm()
        for factor in (0.01, 0.1, 1.0, 10.0):
            plain = ipm(OWN, view, eps=factor) if attack is ipm_optimised else alie(OWN, view, z=factor)
            assert damage >= (view.aggregate_with(ROWS, plain) - MEAN).norm() * 0.999


def test_the_search_finds_a_peak_between_octaves() -> None:
    """A rule that drops rows farther than 3 from the mean: eps = 3 / |mu| - 1 is the best."""
    norm = float(MEAN.norm())

    def drops(rows_ND: Tensor) -> Tensor:
        near = (rows_ND - MEAN).norm(dim=1) <= 1.5 * norm
        return rows_ND[near].mean(dim=0)

    found = ipm_optimised(OWN, replace(VIEW, combine=drops), evaluations=40)
    assert float((found / -MEAN).mean()) == pytest.approx(0.5, rel=1e-3)


def test_min_max_reaches_as_far_as_the_farthest_pair() -> None:
    farthest = max(float((a - b).norm()) for a in ROWS for b in ROWS)
    for along in ("std", "unit", "sign"):
        sent = min_max(OWN, VIEW, along=along)
        assert max(float((sent - row).norm()) for row in ROWS) == pytest.approx(farthest, rel=1e-5)
        assert float((sent - MEAN) @ MEAN) < 0


def test_min_max_on_a_line() -> None:
    """Rows 0 and 4 on a line: mu = 2, sigma = 2, and at most 4 from each row: 0 is the end."""
    view = replace(VIEW, dimension=1, contributors=(0, 1, 4), recompute={0: torch.zeros(1), 1: torch.full((1,), 4.0)}
                   .__getitem__)  # fmt: skip
    assert min_max(torch.zeros(1), view).tolist() == [0.0]
    assert min_sum(torch.zeros(1), view).tolist() == pytest.approx([2 - 2.0])


def test_min_sum_exceeds_no_honest_sum() -> None:
    most = max(sum(float((a - b).square().sum()) for b in ROWS) for a in ROWS)
    for along in ("std", "unit", "sign"):
        sent = min_sum(OWN, VIEW, along=along)
        assert sum(float((sent - row).square().sum()) for row in ROWS) == pytest.approx(most, rel=1e-5)


def test_fang_against_krum_is_selected_and_points_backwards() -> None:
    spread = torch.randn(7, 50, generator=torch.Generator().manual_seed(1))
    rows = {peer: row + 0.5 for peer, row in enumerate(spread)}
    view = replace(VIEW, dimension=50, accomplices=(7, 8), contributors=tuple(range(9)), recompute=rows.__getitem__)
    sent = fang(torch.zeros(50), view)
    sign = torch.stack(list(rows.values())).mean(dim=0).sign()
    factor = float(-sent[0] * sign[0])
    assert factor > 1e-5
    assert torch.allclose(sent, -factor * sign)
    everybody = [*rows.values(), sent, sent]
    scores = [sorted(float((a - b).square().sum()) for b in everybody)[1 : 9 - 2 - 2 + 1] for a in everybody]
    sums = [sum(score) for score in scores]
    assert min(sums[7:]) < min(sums[:7])


def test_fang_against_the_trimmed_mean_lies_just_beyond_the_wrong_extreme() -> None:
    """mu = (2, 3, -1/3, 4): below the minima 1, 2 and 4, down to half of them; above the maximum 1, up to twice it."""
    for step in range(20):
        sent = fang(OWN, replace(VIEW, step=step), against="trimmed_mean")
        assert 0.5 <= sent[0] <= 1
        assert 1 <= sent[1] <= 2
        assert 1 <= sent[2] <= 2
        assert 2 <= sent[3] <= 4


def fang_by_hand(rows: list[Tensor], attackers: int) -> float:
    """Theorem 1's bound on lambda for m = H + c peers, halved until Krum picks the crafted row; in loops and floats."""
    count, dimension = len(rows) + attackers, rows[0].numel()
    apart = [[math.dist(one.tolist(), other.tolist()) for other in rows] for one in rows]
    sums = [sum(sorted(distances)[1 : count - attackers - 2 + 1]) for distances in apart]
    farthest = max(math.hypot(*row.tolist()) for row in rows)
    factor = (min(sums) / (count - 2 * attackers - 1) + farthest) / math.sqrt(dimension)
    sign = torch.stack(rows).mean(dim=0).sign()
    while factor > 1e-5:
        everybody = [*[-factor * sign] * attackers, *rows]
        apart = [[math.dist(one.tolist(), other.tolist()) ** 2 for other in everybody] for one in everybody]
        scores = [sum(sorted(distances)[1 : count - attackers - 2 + 1]) for distances in apart]
        if min(range(count), key=scores.__getitem__) < attackers:
            break
        factor /= 2
    return factor


@pytest.mark.parametrize("shift", [0.05, 0.5, 2.0])
@pytest.mark.parametrize(("honest", "attackers"), [(7, 2), (5, 1), (12, 4)])
def test_fangs_lambda_is_the_papers(honest: int, attackers: int, shift: float) -> None:
    spread = torch.randn(honest, 20, generator=torch.Generator().manual_seed(honest))
    rows = dict(enumerate(spread + shift))
    peers = tuple(range(honest + attackers))
    view = replace(VIEW, dimension=20, accomplices=peers[honest:], contributors=peers, recompute=rows.__getitem__)
    sent = fang(torch.zeros(20), view)
    expected = fang_by_hand(list(rows.values()), attackers)
    assert (sent * -torch.stack(list(rows.values())).mean(dim=0).sign()).tolist() == pytest.approx([expected] * 20)


def test_fang_reaches_to_twice_or_half_of_the_extreme() -> None:
    """Each coordinate's place between the two is the lot that the attackers draw."""
    rows = {
        0: torch.tensor([1.0, -1.0, -6.0, 2.0]),
        1: torch.tensor([3.0, 5.0, -2.0, -8.0]),
        2: torch.tensor([2.0] * 4),
    }
    view = replace(VIEW, recompute=rows.__getitem__)
    near = torch.tensor(
        [1.0, -1.0, 2.0, 2.0]
    )  # means 2, 2, -2, -4/3: the minimum where it is positive, else the maximum
    far = torch.tensor([0.5, -2.0, 4.0, 4.0])
    lots = torch.empty(4).uniform_(generator=view.random("fang"))
    assert fang(OWN, view, against="trimmed_mean").tolist() == pytest.approx((near + lots * (far - near)).tolist())
    negative = replace(VIEW, recompute={peer: -row for peer, row in rows.items()}.__getitem__)
    assert fang(OWN, negative, against="trimmed_mean").tolist() == pytest.approx((-near - lots * (far - near)).tolist())
    below = {peer: torch.tensor([-1.0 - peer, -4.0, -4.0, -4.0]) for peer in range(3)}
    sent = fang(OWN, replace(VIEW, recompute=below.__getitem__), against="trimmed_mean")
    assert float(sent[0]) == pytest.approx(-1.0 + float(lots[0]) * 0.5), "above a negative maximum: up to half of it"


def moved_by(momentum_D: Tensor) -> Attempt:
    """As much of an attempt as the attack looks at."""
    made = object.__new__(Attempt)
    made.contributors, made.roster = VIEW.contributors, Roster((b"",) * 5, VIEW.active)
    made.state = State.genesis(made.roster, 0, OWN, momentum_D)
    return made


@pytest.mark.parametrize("relocation", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("angle_deg", [30.0, 60.0, 120.0])
def test_rop_turns_from_a_reference_between_the_mean_and_the_past(angle_deg: float, relocation: float) -> None:
    moved = torch.tensor([0.0, 0.0, 3.0, -4.0])
    past = moved / 5.0 * MEAN.norm()
    view = replace(VIEW, attempt=moved_by(moved))
    reference = relocation * MEAN + (1 - relocation) * past
    step = rop(OWN, view, angle_deg=angle_deg, relocation=relocation, scale=3.0) - reference
    reach = 3.0 * max(float((row - MEAN).norm()) for row in ROWS)
    assert float(step.norm()) == pytest.approx(reach, rel=1e-5)
    along = float(step @ reference / reference.norm())
    assert along == pytest.approx(reach * math.cos(math.radians(angle_deg)), rel=1e-4)


def test_rop_without_a_move_so_far_refers_to_the_mean() -> None:
    for nothing in (torch.zeros(4), torch.ones(3), torch.zeros(9)):
        assert torch.equal(rop(OWN, replace(VIEW, attempt=moved_by(nothing))), rop(OWN, VIEW))
    longer, moved = torch.arange(9.0), torch.arange(4.0)
    assert torch.equal(*(rop(OWN, replace(VIEW, attempt=moved_by(each))) for each in (longer, moved)))
    other = rop(OWN, replace(VIEW, attack_seed=VIEW.attack_seed + 1))
    assert not torch.allclose(other, rop(OWN, VIEW)), "the way aside is drawn from the attackers' seed"
    assert torch.equal(rop(OWN, replace(VIEW, me=3)), rop(OWN, VIEW)), "and all go the same way"


def test_rop_steps_aside_from_its_reference() -> None:
    """Without a past the reference is mu; at 90 degrees the step is orthogonal to it, at 180 against it."""
    reach = max(float((row - MEAN).norm()) for row in ROWS)
    aside = rop(OWN, VIEW) - MEAN
    assert float(aside.norm()) == pytest.approx(reach, rel=1e-5)
    assert float(aside @ MEAN) == pytest.approx(0.0, abs=1e-4)
    against = rop(OWN, VIEW, angle_deg=180.0, scale=2.0)
    assert against.tolist() == pytest.approx((MEAN - 2 * reach * MEAN / MEAN.norm()).tolist(), rel=1e-4, abs=1e-4)


def test_bulyan_coordinate_changes_one_coordinate_as_far_as_it_is_not_noticed() -> None:
    """A rule that drops rows farther than 6 from the mean of the honest ones."""

    def drops(rows_ND: Tensor) -> Tensor:
        return rows_ND[(rows_ND - MEAN).norm(dim=1) <= 6.0].mean(dim=0)

    sent = bulyan_coordinate(OWN, replace(VIEW, combine=drops), coordinate=2, evaluations=40)
    assert (sent - MEAN).tolist() == pytest.approx([0.0, 0.0, 6.0, 0.0], rel=1e-3, abs=1e-6)
    drawn = bulyan_coordinate(OWN, VIEW)
    assert int((drawn != MEAN).sum()) == 1


def test_mimic_copies_one_honest_peer_for_good() -> None:
    """Peer 2 varies most, along the second coordinate; after the warm-up the attackers copy nobody else."""
    copied = []
    mimics = [Mimic(warmup=3), Mimic(warmup=3)]
    for step in range(8):
        rows = {0: torch.tensor([1.0, 0.0]), 1: torch.tensor([1.1, 0.0]), 2: torch.tensor([1.0, 9.0 + step])}
        view = replace(VIEW, step=step, dimension=2, recompute=rows.__getitem__)
        sent = [
            mimic.contributed(torch.zeros(2), replace(view, me=me)) for mimic, me in zip(mimics, (3, 4), strict=True)
        ]
        assert torch.equal(sent[0], sent[1])
        copied.append(next(peer for peer, row in rows.items() if torch.equal(row, sent[0])))
    assert copied == [2] * 8
    without = replace(view, contributors=(0, 1, 3, 4))
    assert mimics[0].contributed(torch.zeros(2), without).tolist() in ([1.0, 0.0], pytest.approx([1.1, 0.0]))
    assert Mimic(warmup=0).contributed(torch.zeros(2), view).tolist() == [1.0, 0.0]


def test_backdoor_marks_a_share_of_the_batch() -> None:
    inputs_B, targets_B = torch.arange(4 * 25.0).view(4, 1, 5, 5), torch.tensor([1, 2, 3, 4])
    marked, labels = backdoor(inputs_B, targets_B, VIEW, target=7, share=0.5, size=2)
    assert labels.tolist() == [7, 7, 3, 4]
    assert (marked[:2, 0, 3:, 3:] == 99.0).all()
    changed = marked != inputs_B
    assert int(changed.sum()) == 8 and not changed[2:].any()
    flat, _ = backdoor(torch.zeros(4, 6) + torch.arange(6.0), targets_B, VIEW, share=0.0, size=3)
    assert flat[0].tolist() == [0, 1, 2, 5, 5, 5] and flat[1].tolist() == [0, 1, 2, 3, 4, 5]


KNOWING = ("alie", "alie_optimised", "ipm", "ipm_optimised", "min_max", "min_sum", "fang", "rop", "bulyan_coordinate")


@pytest.mark.parametrize("name", KNOWING)
def test_alone_among_attackers_it_contributes_honestly(name: str) -> None:
    entry = ATTACKS.get(name)
    for example in entry.examples:
        alone = replace(VIEW, contributors=(3, 4))
        assert bind(Plugin(name, dict(example))).function(OWN, alone) is OWN


def test_a_number_or_none() -> None:
    bind(Plugin("alie", {"z": None}))
    bind(Plugin("alie", {"z": 1}))
    for wrong in ("big", True):
        with pytest.raises(ConfigError, match="must be a number or none"):
            bind(Plugin("alie", {"z": wrong}))
