"""The wiring of one node."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from btard.node.adversary.adversary import Adversary
from btard.node.build import build_node, largest_tensor, settings_of, task_of, tools_of
from btard.node.config import Member, NodeConfig, Plugin, Role, RunConfig, Schedule
from btard.node.crypto.keys import generate
from btard.node.errors import ConfigError
from btard.node.genesis.genesis import genesis_digest, genesis_roster
from btard.node.protocol.api import BulkKey, BulkKind, ComputeGradient, Purpose, Start
from btard.node.protocol.attempt.mprng import batch_seed
from btard.node.protocol.peer import Peer
from btard.node.training.task import BatchTransform

RUN = RunConfig(peers=4, task=Plugin("quadratic", {"dimension": 8}), batch_size=2)
MEMBERS, SECRETS = generate(3, 4)
TASK = task_of(RUN, Path("unused"))


def config(role: Role | None = None, **changes: object) -> NodeConfig:
    made = NodeConfig("run", 1, RUN, MEMBERS, "", "", "", role=role)
    return msgspec.structs.replace(made, **changes)


def test_an_honest_node_is_a_bare_peer() -> None:
    node = build_node(config(), SECRETS[1], TASK, b"here")
    assert node.machine is node.peer
    assert isinstance(node.peer, Peer)
    assert node.adversary is None
    assert node.id == node.peer.me == 1
    assert node.signer.public.hex() == MEMBERS[1].signing_key
    assert not node.expects(0, BulkKey(0, 0, BulkKind.PART, 0, 1), 8)


def test_a_byzantine_node_is_the_same_peer_between_filters() -> None:
    node = build_node(config(Role((Plugin("sign_flip"),))), SECRETS[1], TASK, b"here")
    assert isinstance(node.machine, Adversary)
    assert node.machine is node.adversary
    assert type(node.peer) is Peer
    assert node.machine.handle(Start())


def test_only_its_own_batch_is_attacked() -> None:
    seen: list[tuple[Purpose, bool]] = []

    def compute(
        parameters_D: torch.Tensor, seed: bytes, transform: BatchTransform | None
    ) -> tuple[torch.Tensor, float]:
        seen.append((purpose, transform is not None))
        return parameters_D, 0.25

    task = _labelled()
    node = build_node(config(Role((Plugin("label_flip"),), Schedule(start=5))), SECRETS[1], task, b"here")
    for step, purpose in ((4, Purpose.OWN), (5, Purpose.OWN), (5, Purpose.VALIDATE), (5, Purpose.JUDGE)):
        ready = node.compute(ComputeGradient(purpose, step, 1, torch.ones(8), bytes(32)), compute)
        assert (ready.purpose, ready.step, ready.peer, ready.loss) == (purpose, step, 1, 0.25)
    assert seen == [(Purpose.OWN, False), (Purpose.OWN, True), (Purpose.VALIDATE, False), (Purpose.JUDGE, False)]


def _labelled():  # type: ignore[no-untyped-def]
    task = task_of(RUN, Path("unused"))
    task.classes = 10  # type: ignore[misc]
    return task


REFUSED = [
    ("unknown attack", config(Role((Plugin("sing_flip"),)))),
    ("unknown parameter", config(Role((Plugin("sign_flip", {"scales": 1.0}),)))),
    ("labels where there are none", config(Role((Plugin("label_flip"),)))),
    ("unknown rule", config(run=msgspec.structs.replace(RUN, rule=Plugin("centred_clip")))),
    ("more peers than parameters",
     config(run=msgspec.structs.replace(RUN, peers=9), members=generate(3, 9)[0])),
]  # fmt: skip


@pytest.mark.parametrize("refused", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_cannot_be_wired_is_a_configuration_error(refused: NodeConfig) -> None:
    with pytest.raises(ConfigError):
        build_node(refused, SECRETS[1], TASK, b"here")


def other_genesis() -> list[tuple[str, bytes]]:
    swapped: tuple[Member, ...] = (MEMBERS[1], MEMBERS[0], *MEMBERS[2:])
    return [
        ("another run", genesis_digest("other", RUN, MEMBERS)),
        ("another number", genesis_digest("run", msgspec.structs.replace(RUN, tau=5.1), MEMBERS)),
        ("another rule", genesis_digest("run", msgspec.structs.replace(RUN, rule=Plugin("mean")), MEMBERS)),
        ("other keys", genesis_digest("run", RUN, generate(4, 4)[0])),
        ("another order of members", genesis_digest("run", RUN, swapped)),
    ]


@pytest.mark.parametrize("other", [row[1] for row in other_genesis()], ids=[row[0] for row in other_genesis()])
def test_the_genesis_digest_covers_what_all_must_agree_on(other: bytes) -> None:
    assert other != genesis_digest("run", RUN, MEMBERS) == genesis_digest("run", RUN, list(MEMBERS))


def test_settings_repeat_the_configuration() -> None:
    run = msgspec.structs.replace(RUN, on_ban="reform", recompute_tolerance=1e-3, delta_max=2.0)
    made = settings_of("run", run, MEMBERS, 8, b"here")
    assert (made.reform, made.delta_max, made.fingerprint, made.dimension) == (True, 2.0, b"here", 8)
    for name in ("steps", "tau", "validators", "validate_every", "audit_share", "data_seed", "delivery_bound_s",
                 "gradient_bound_s", "minimum_rate", "recompute_tolerance"):  # fmt: skip
        assert getattr(made, name) == getattr(run, name)
    assert made.claim_tolerance > 0
    assert made.validators_contribute == run.everyone_contributes
    assert settings_of("run", RUN, MEMBERS, 8, b"here").claim_tolerance == 0.0


def test_the_roster_and_the_tools() -> None:
    assert [key.hex() for key in genesis_roster(MEMBERS).keys] == [member.signing_key for member in MEMBERS]
    tools = tools_of(RUN, check=lambda public, message, signature: False)
    assert not tools.rule.audited
    assert not tools.verify(b"", b"", b"")


def with_optimiser(name: str, **changes: object) -> RunConfig:
    return msgspec.structs.replace(RUN, optimiser=Plugin(name), **changes)


@pytest.mark.parametrize(("name", "entries"), [("sgd", 8), ("adam", 17), ("rprop", 18)])
def test_sizes_follow_from_the_optimisers_state(name: str, entries: int) -> None:
    run = with_optimiser(name)
    assert largest_tensor(run, TASK) == entries
    node = build_node(config(run=run), SECRETS[1], TASK, b"here")
    assert node.peer.shared.settings.optimiser_entries == node.peer.state.optimiser_D.numel() == entries


@pytest.mark.parametrize(("name", "portable"), [("sgd", True), ("adamw", True), ("lamb", False), ("nadam", False)])
def test_an_optimiser_that_rounds_as_its_processor_does_needs_equal_ones(name: str, portable: bool) -> None:
    run = with_optimiser(name, recompute_tolerance=1e-3)
    if portable:
        assert tools_of(run, TASK).optimiser is not None
        return
    with pytest.raises(ConfigError, match=f"--optimiser {name} gives other bits on other processors"):
        tools_of(run, TASK)


def test_who_only_judges_needs_no_layers() -> None:
    assert tools_of(with_optimiser("lamb")).rule is not None


def test_a_seed_names_its_peer_where_there_are_shards() -> None:
    seeds = [
        settings_of("run", msgspec.structs.replace(RUN, split=Plugin(name)), MEMBERS, 8, b"").shards
        for name in ("iid", "classes")
    ]
    assert seeds == [False, True]
    plain, named = (batch_seed(1, b"r", 2, 3, shards) for shards in seeds)
    assert (len(plain), named) == (32, plain + b"\x03\x00")


def test_a_task_without_labels_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="task 'quadratic' has no labels to split its examples by; use --split iid"):
        task_of(msgspec.structs.replace(RUN, split=Plugin("classes")), Path("unused"))


def test_an_attacker_can_recompute_what_is_public_once_a_step_has_begun() -> None:
    node = build_node(config(Role((Plugin("sign_flip"),))), SECRETS[1], TASK, b"here")
    assert node.adversary is not None
    with pytest.raises(LookupError, match="no step has begun"):
        node.adversary.view(0).honest_gradient(2)
