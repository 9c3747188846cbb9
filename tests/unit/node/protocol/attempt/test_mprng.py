"""Commit and reveal, the direction z, permutations and coins."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
import torch

from btard.node.protocol.attempt.mprng import (
    Share,
    batch_seed,
    combine,
    commitment,
    happens,
    opens,
    permutation,
    projection,
    share,
)
from btard.node.protocol.wire.encoding import digest, number

RUN = b"r" * 32
SHARE = share(b"secret", 3, 0)
R = digest("some r")


def test_a_share_repeats_and_differs_by_everything() -> None:
    assert share(b"secret", 3, 0) == SHARE
    others = [share(b"other", 3, 0), share(b"secret", 4, 0), share(b"secret", 3, 1)]
    assert len({SHARE.x, SHARE.salt, *(value for other in others for value in (other.x, other.salt))}) == 8


OPENINGS = [
    ("as committed", {}, True),
    ("another x", {"opened": Share(bytes(32), SHARE.salt)}, False),
    ("another salt", {"opened": Share(SHARE.x, bytes(32))}, False),
    ("x and salt exchanged", {"opened": Share(SHARE.salt, SHARE.x)}, False),
    ("another peer: a copied commitment", {"peer": 2}, False),
    ("another step", {"step": 4}, False),
    ("another attempt", {"attempt": 1}, False),
    ("another run", {"run": bytes(32)}, False),
    ("a moved border", {"opened": Share(SHARE.x + SHARE.salt[:1], SHARE.salt[1:])}, False),
    ("nothing", {"opened": Share(b"", b"")}, False),
]


@pytest.mark.parametrize(("changes", "fits"), [row[1:] for row in OPENINGS], ids=[row[0] for row in OPENINGS])
def test_a_commitment_opens_only_as_what_it_was(changes: dict[str, object], fits: bool) -> None:
    hidden = commitment(RUN, 3, 0, 1, SHARE)
    arguments = {"run": RUN, "step": 3, "attempt": 0, "peer": 1, "opened": SHARE} | changes
    assert opens(hidden, **arguments) is fits  # type: ignore[arg-type]


def test_r_depends_on_every_x_and_their_order() -> None:
    xs = [number(1), number(2), number(3)]
    assert len({combine(3, 0, xs), combine(4, 0, xs), combine(3, 1, xs), combine(3, 0, xs[::-1]),
                combine(3, 0, xs[:2])}) == 5  # fmt: skip


def test_xi_belongs_to_one_peer_at_one_step() -> None:
    seeds = {batch_seed(0, R, 3, 1), batch_seed(1, R, 3, 1), batch_seed(0, RUN, 3, 1), batch_seed(0, R, 4, 1),
             batch_seed(0, R, 3, 2)}  # fmt: skip
    assert len(seeds) == 5


def test_z_has_mean_zero_and_variance_one() -> None:
    z = projection(R, 1_000_000).double()
    assert abs(float(z.mean())) < 5e-3
    assert float(z.square().mean()) == pytest.approx(1.0, abs=5e-3)
    assert float(z.abs().max()) < 1.7321
    assert len(z.unique()) > 60_000, "not +-1: a sparse error would pass with probability one half"


def test_a_part_uses_a_prefix_of_z() -> None:
    assert torch.equal(projection(R, 1000)[:17], projection(R, 17))
    assert projection(R, 0).numel() == 0


def test_permutations_are_uniform() -> None:
    """Chi-square over the 24 orders of four peers, 24,000 draws: 49.73 is the 0.999 quantile at 23 degrees."""
    found = Counter(permutation(digest("test", number(draw)), (2, 3, 5, 7)) for draw in range(24_000))
    assert len(found) == 24
    assert sum((count - 1000) ** 2 / 1000 for count in found.values()) < 49.73


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_a_coin_lands_true_with_its_probability(probability: float) -> None:
    landed = sum(happens(R, "test", item, probability) for item in range(20_000)) / 20_000
    assert landed == pytest.approx(probability, abs=0.012 if 0 < probability < 1 else 0.0)


def test_coins_of_different_domains_are_independent() -> None:
    pairs = Counter((happens(R, "a", item, 0.5), happens(R, "b", item, 0.5)) for item in range(8000))
    assert all(abs(count - 2000) < 200 for count in pairs.values())


def test_shares_do_not_travel_as_messages() -> None:
    assert not issubclass(Share, msgspec.Struct)
