"""Attacks: worked numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch

from btard.node.adversary.attacks.constant_direction import constant_direction
from btard.node.adversary.attacks.false_accuse import false_accuse
from btard.node.adversary.attacks.label_flip import label_flip
from btard.node.adversary.attacks.label_shuffle import label_shuffle
from btard.node.adversary.attacks.lenient_validator import lenient_validator
from btard.node.adversary.attacks.lie_checksum import lie_checksum
from btard.node.adversary.attacks.noise import noise
from btard.node.adversary.attacks.shift_aggregate import shift_aggregate
from btard.node.adversary.attacks.sign_flip import sign_flip
from btard.node.adversary.registry import bind
from btard.node.adversary.view import View
from btard.node.config import Plugin
from btard.node.protocol.wire.encoding import decode_body, encode_body
from btard.node.protocol.wire.messages import (
    Accusation,
    AccusationKind,
    Agg,
    Body,
    Checksums,
    Phase,
    Report,
    Reveal,
    Slot,
    Verdict,
)


@dataclass(frozen=True)
class Span:
    start: int
    stop: int


LAYOUT = (Span(0, 2), Span(2, 5), Span(5, 9))
VIEW = View(step=7, me=4, accomplices=(4, 5), layout=LAYOUT, dimension=9, classes=10,
            active=(0, 1, 2, 3, 4, 5), contributors=(0, 1, 3, 4, 5), attack_seed=3)  # fmt: skip
GRADIENT = torch.tensor([3.0, 4.0, 0.0, 2.0, 0.0, 1.0, -1.0, 1.0, -1.0])
AT = Slot(b"run", b"roster", 7, 0, Phase.REPORT, 4)
AGG = Agg(Slot(b"run", b"roster", 7, 0, Phase.AGG, 4), (), b"digest")
SUMS = Checksums(Slot(b"run", b"roster", 7, 0, Phase.CHECKSUMS, 4), (), (1.0, -2.0, 0.5), (4.0, 3.0, 2.0))


def report(
    verdicts: tuple[Verdict, ...] = (), checks: tuple[bool, ...] = (True,) * 5, accused: tuple[Accusation, ...] = ()
) -> Report:
    return Report(AT, (), checks, verdicts, accused)


# --- on gradients -------------------------------------------------------------------------------------------------


def test_sign_flip_amplifies_the_opposite() -> None:
    assert sign_flip(GRADIENT, VIEW).tolist() == (-1000.0 * GRADIENT).tolist()
    assert sign_flip(GRADIENT, VIEW, scale=2.0)[1] == -8.0


def test_constant_direction_keeps_each_tensors_norm_times_scale() -> None:
    sent = constant_direction(GRADIENT, VIEW)
    norms = [float(sent[span.start : span.stop].norm()) for span in LAYOUT]
    assert norms == pytest.approx([5000.0, 2000.0, 2000.0], rel=1e-5)


def test_constant_direction_is_the_same_for_all_attackers_at_all_steps() -> None:
    sent = constant_direction(GRADIENT, VIEW)
    other = constant_direction(GRADIENT * torch.rand(9), replace(VIEW, me=5, step=300))
    for span in LAYOUT:
        cosine = torch.cosine_similarity(sent[span.start : span.stop], other[span.start : span.stop], dim=0)
        assert float(cosine) == pytest.approx(1.0, abs=1e-6)
    stranger = constant_direction(GRADIENT, replace(VIEW, attack_seed=4))
    assert not torch.allclose(stranger, sent)


def test_constant_direction_of_nothing_is_nothing() -> None:
    assert constant_direction(torch.zeros(9), VIEW).tolist() == [0.0] * 9


def test_noise_in_the_reports_words_touches_every_other_entry() -> None:
    gradient_D = torch.linspace(-1.0, 1.0, 20_001)
    added = noise(gradient_D, VIEW) - gradient_D
    assert not added[1::2].any()
    assert float(added[::2].mean()) == pytest.approx(0.0, abs=5.0)
    assert float(added[::2].std()) == pytest.approx(100.0, rel=0.03)


def test_noise_of_the_notebook_is_one_number_on_every_second_tensor() -> None:
    added = noise(torch.zeros(9), VIEW, variant="notebook").tolist()
    assert added[2:5] == [0.0, 0.0, 0.0]
    assert len({*added[0:2], *added[5:9]}) == 1
    draws = [float(noise(torch.zeros(9), replace(VIEW, step=step), variant="notebook")[0]) for step in range(500)]
    assert float(torch.tensor(draws).std()) == pytest.approx(100.0, rel=0.15)


def test_small_noise_is_a_fraction_of_the_gradients_deviation() -> None:
    gradient_D = torch.randn(20_000, generator=torch.Generator().manual_seed(1)) * 3.0
    added = noise(gradient_D, VIEW, variant="small", fraction=0.5) - gradient_D
    assert not added[1::2].any()
    assert float(added[::2].std()) == pytest.approx(1.5, rel=0.03)


def test_noise_is_fresh_at_each_step_and_attacker_and_repeats_from_its_seed() -> None:
    assert torch.equal(noise(GRADIENT, VIEW), noise(GRADIENT, VIEW))
    assert not torch.equal(noise(GRADIENT, VIEW), noise(GRADIENT, replace(VIEW, step=8)))
    assert not torch.equal(noise(GRADIENT, VIEW), noise(GRADIENT, replace(VIEW, me=5)))


# --- on data ------------------------------------------------------------------------------------------------------


def test_label_flip_mirrors_the_labels() -> None:
    inputs_B = torch.rand(4, 2)
    same_inputs_B, flipped_B = label_flip(inputs_B, torch.tensor([0, 3, 9, 5]), VIEW)
    assert same_inputs_B is inputs_B
    assert flipped_B.tolist() == [9, 6, 0, 4]


def test_label_shuffle_permutes_the_batchs_own_targets_anew_each_step() -> None:
    targets_B = torch.arange(64)
    inputs_B = torch.rand(64, 1)
    shuffled = [label_shuffle(inputs_B, targets_B, replace(VIEW, step=step)) for step in (7, 8)]
    assert all(inputs is inputs_B for inputs, _ in shuffled)
    assert all(sorted(targets.tolist()) == list(range(64)) for _, targets in shuffled)
    assert not torch.equal(shuffled[0][1], targets_B)
    assert not torch.equal(shuffled[0][1], shuffled[1][1])


# --- on the aggregate ---------------------------------------------------------------------------------------------


def test_shift_aggregate_moves_by_its_norm_along_the_shared_direction() -> None:
    value_P = torch.tensor([3.0, 0.0, 4.0, 0.0])
    delta = shift_aggregate(value_P, VIEW) - value_P
    assert float(delta.norm()) == pytest.approx(5.0, rel=1e-5)
    accomplices = shift_aggregate(2 * value_P, replace(VIEW, me=5, step=9)) - 2 * value_P
    assert torch.allclose(accomplices, 2 * delta, atol=1e-5)


def test_shift_aggregate_by_an_absolute_length() -> None:
    shifted = shift_aggregate(torch.zeros(6), VIEW, scale=0.25, relative=False)
    assert float(shifted.norm()) == pytest.approx(0.25, rel=1e-5)


# --- on messages --------------------------------------------------------------------------------------------------

LIES = [
    ("s by half", {}, ((1.5, -2.0, 0.5), SUMS.norms)),
    ("norm by a quarter", {"entry": "norm", "amount": 0.25}, (SUMS.s, (5.0, 3.0, 2.0))),
    ("the last part", {"part": -1, "amount": 1.0}, ((1.0, -2.0, 1.0), SUMS.norms)),
    ("part modulo", {"part": 4}, ((1.0, -3.0, 0.5), SUMS.norms)),
    ("offset", {"variant": "offset", "amount": 0.125}, ((1.125, -2.0, 0.5), SUMS.norms)),
    ("huge", {"variant": "huge"}, ((1e30, -2.0, 0.5), SUMS.norms)),
    ("infinite norm", {"variant": "infinite", "entry": "norm"}, (SUMS.s, (math.inf, 3.0, 2.0))),
    ("negative norm", {"variant": "negative", "entry": "norm"}, (SUMS.s, (-1.0, 3.0, 2.0))),
]


@pytest.mark.parametrize(("parameters", "expected"), [row[1:] for row in LIES], ids=[row[0] for row in LIES])
def test_lie_checksum(parameters: dict[str, object], expected: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    lied = bind(Plugin("lie_checksum", parameters)).function(SUMS, VIEW)
    assert (lied.s, lied.norms) == expected
    assert (lied.slot, lied.prefix) == (SUMS.slot, SUMS.prefix)


def test_a_nan_travels_in_canonical_bytes() -> None:
    body = decode_body(encode_body(lie_checksum(SUMS, VIEW, variant="nan")))
    assert isinstance(body, Checksums)
    assert math.isnan(body.s[0])


UNTOUCHED = [
    ("a validator's empty checksums", "lie_checksum", {}, Checksums(SUMS.slot, (), (), ())),
    ("a lie of nothing", "lie_checksum", {"amount": 0.0}, SUMS),
    ("another message", "lie_checksum", {}, report()),
    ("no verdict due", "false_accuse", {}, report()),
    ("an accomplice is not accused", "false_accuse", {}, report((Verdict(5, True),))),
    ("not a report", "false_accuse", {}, SUMS),
    ("no honest bit set", "false_accuse", {"how": "bit"}, report(checks=(False, False, False, True, True))),
    ("correct anyway", "lenient_validator", {}, report((Verdict(5, True),))),
    ("a stranger stays accused", "lenient_validator", {}, report((Verdict(1, False),))),
    ("no message of a validator", "lenient_validator", {"all": True}, Reveal(AT, (), b"x", b"salt", (True,))),
]


@pytest.mark.parametrize(("name", "parameters", "body"), [row[1:] for row in UNTOUCHED],
                         ids=[row[0] for row in UNTOUCHED])  # fmt: skip
def test_a_message_that_is_left_alone_is_the_same_object(name: str, parameters: dict[str, object], body: Body) -> None:
    assert bind(Plugin(name, parameters)).function(body, VIEW) is body


def test_false_verdict() -> None:
    lied = false_accuse(report((Verdict(1, True), Verdict(5, True))), VIEW)
    assert lied == report((Verdict(1, False), Verdict(5, True)))


def test_false_bit_hits_one_honest_contributor() -> None:
    """Contributors 0, 1, 3, 4, 5: places 3 and 4 are the attackers' own."""
    hit = set()
    for step in range(60):
        lied = false_accuse(report(), replace(VIEW, step=step), how="bit")
        assert isinstance(lied, Report)
        flipped = [place for place, true in enumerate(lied.checks) if not true]
        assert len(flipped) == 1
        hit.add(flipped[0])
    assert hit == {0, 1, 2}


def test_lenient_validator_spares_accomplices() -> None:
    charges = tuple(Accusation(kind, peer, 6, 0, 0)
                    for kind in (AccusationKind.GRADIENT, AccusationKind.CHECKSUM) for peer in (1, 5))  # fmt: skip
    verdicts = (Verdict(1, False), Verdict(5, False))
    spared = lenient_validator(report(verdicts, accused=charges), VIEW)
    kept = tuple(charge for charge in charges if charge != Accusation(AccusationKind.GRADIENT, 5, 6, 0, 0))
    assert spared == report((Verdict(1, False), Verdict(5, True)), accused=kept)


def test_lenient_validator_spares_everybody() -> None:
    verdicts = (Verdict(1, False), Verdict(5, False))
    assert lenient_validator(report(verdicts), VIEW, all=True) == report((Verdict(1, True), Verdict(5, True)))
