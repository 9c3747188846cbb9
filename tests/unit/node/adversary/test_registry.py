"""The registry of attacks: every example runs, what cannot be is refused; and what an attack sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from btard.node.adversary.attacks.sign_flip import sign_flip
from btard.node.adversary.registry import ATTACKS, attack, bind, bind_role
from btard.node.config import Plugin, Role
from btard.node.errors import ConfigError
from btard.node.protocol.wire.messages import Body, Report, Verdict
from tests.test_attacks import AGG, GRADIENT, SUMS, VIEW, report

PLAIN = ("gradient", "data", "aggregate", "messages")
AT_LIMITS = ("below_tau", "below_v2")
"""These read the split and the radii of the attempt under way: tests/simulation/test_attacks_at_the_limits.py."""
EXAMPLES = [(entry.name, example) for entry in ATTACKS for example in entry.examples
            if entry.facts["acts_on"] in PLAIN and entry.name not in AT_LIMITS]  # fmt: skip
"""The others need a peer inside: tests/simulation/test_protocol_disputes.py runs them."""


@pytest.mark.parametrize(("name", "parameters"), EXAMPLES, ids=[f"{name}-{example}" for name, example in EXAMPLES])
def test_examples_run_and_leave_their_inputs_alone(name: str, parameters: Mapping[str, object]) -> None:
    bound = bind(Plugin(name, dict(parameters)))
    match bound.acts_on:
        case "gradient" | "aggregate":
            before = GRADIENT.clone()
            view = replace(
                VIEW,
                history={5: GRADIENT - 1.0, 6: GRADIENT - 2.0, 7: GRADIENT},
                aggregates={5: GRADIENT + 1.0, 6: GRADIENT + 2.0},
                recompute=lambda peer: GRADIENT.roll(peer),
                combine=lambda rows_ND: rows_ND.median(dim=0).values,
            )
            sent = bound.function(GRADIENT, view)
            assert torch.equal(GRADIENT, before)
            assert isinstance(sent, Tensor)
            assert sent.shape == GRADIENT.shape
            assert not torch.equal(sent, GRADIENT)
        case "data":
            inputs_B, targets_B = torch.rand(8, 3), torch.arange(8)
            sent_inputs, sent_targets = bound.function(inputs_B, targets_B, VIEW)
            assert targets_B.tolist() == list(range(8))
            assert (sent_inputs.shape, sent_targets.shape) == (inputs_B.shape, targets_B.shape)
            assert sent_targets.tolist() != targets_B.tolist()
        case _:
            words = Report(report(()).slot, (), (), (), (), holds=(True, False))
            bodies: list[Body] = [SUMS, AGG, report((Verdict(1, True), Verdict(5, False))), words]
            assert any(bound.function(body, VIEW) != body for body in bodies)


CATALOGUE = {
    "gradient": {"sign_flip", "constant_direction", "noise", "zero", "random", "drop", "infinite", "nan", "delayed",
                 "random_direction", "alie", "ipm", "alie_optimised", "ipm_optimised", "min_max", "min_sum", "fang",
                 "rop", "bulyan_coordinate"},
    "data": {"label_flip", "label_shuffle", "backdoor"},
    "aggregate": {"shift_aggregate", "stale_aggregate"},
    "messages": {"lie_checksum", "false_accuse", "complain", "lenient_validator"},
    "outputs": {"split_aggregate", "equivocate", "wrong_part", "withhold_part", "withhold_aggregate",
                "silent_validator", "stall", "malformed", "false_prefix", "close_to_one", "spurious_dispute"},
    "node": {"cancelling_shift", "withhold_reveal", "replay", "crash", "copy_commitment", "last_instant", "late_view",
             "mimic", "just_in_time"},
}  # fmt: skip


@pytest.mark.parametrize("kind", CATALOGUE)
def test_the_catalogues_attacks_are_there(kind: str) -> None:
    assert CATALOGUE[kind] <= {entry.name for entry in ATTACKS if entry.facts["acts_on"] == kind}


def test_every_attack_has_examples_a_source_and_a_summary() -> None:
    for entry in ATTACKS:
        assert entry.examples and entry.source and entry.summary, entry.name
        assert "Source:" in (entry.target.__doc__ or ""), entry.name


REFUSED = [
    ("unknown name", "sing_flip", {}, "did you mean 'sign_flip'"),
    ("unknown parameter", "noise", {"varient": "text"}, "did you mean 'variant'"),
    ("wrong type", "sign_flip", {"scale": "big"}, "must be a float"),
    ("wrong choice", "noise", {"variant": "loud"}, "must be one of text, notebook, small"),
    ("a parameter where there is none", "label_flip", {"scale": 1.0}, "takes none"),
]


@pytest.mark.parametrize(("name", "parameters", "message"), [row[1:] for row in REFUSED],
                         ids=[row[0] for row in REFUSED])  # fmt: skip
def test_wrong_attacks_are_refused_in_one_line(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        bind(Plugin(name, parameters))
    assert "\n" not in str(caught.value)


def test_a_second_attack_of_the_same_name_is_refused() -> None:
    list(ATTACKS)
    with pytest.raises(ConfigError, match="registered twice"):
        attack("noise", acts_on="gradient", source="nowhere")(sign_flip)


def test_leniency_joins_every_role_once() -> None:
    assert [bound.name for bound in bind_role(Role((Plugin("noise"),)))] == ["noise", "lenient_validator"]
    explicit = bind_role(Role((Plugin("lenient_validator", {"all": True}), Plugin("noise"))))
    assert [bound.name for bound in explicit] == ["lenient_validator", "noise"]


def test_the_view_knows_its_part_and_what_it_cannot_know() -> None:
    assert VIEW.part == 4
    assert replace(VIEW, active=(0, 2, 4)).part == 2
    assert replace(VIEW, active=()).part is None
    with pytest.raises(LookupError, match="peer 2"):
        VIEW.honest_gradient(2)
    assert replace(VIEW, recompute=lambda peer: torch.full((2,), float(peer))).honest_gradient(3).tolist() == [3, 3]


def test_generators_differ_by_purpose_and_are_shared_where_they_say_so() -> None:
    def first(generator: torch.Generator) -> float:
        return float(torch.rand((), generator=generator))

    other = replace(VIEW, me=5, step=8)
    assert first(VIEW.random("a")) == first(VIEW.random("a"))
    assert len({first(VIEW.random("a")), first(VIEW.random("b")), first(other.random("a"))}) == 3
    assert first(VIEW.shared_random("a")) == first(other.shared_random("a"))
    assert first(VIEW.shared_random("a")) != first(VIEW.random("a"))
