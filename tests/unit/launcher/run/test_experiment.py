"""The experiment: defaults, seeds, and refusals of what cannot be run."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from btard.launcher.network import conditions
from btard.launcher.run import plan
from btard.launcher.run.experiment import Experiment, listen, node_configs
from btard.node.build import settings_of
from btard.node.config import RunConfig
from btard.node.errors import ConfigError


def test_the_defaults_are_the_configurations_own() -> None:
    seeds = {"init_seed": Experiment().seeds.init, "data_seed": Experiment().seeds.data}
    assert Experiment().run_config("cpu") == msgspec.structs.replace(RunConfig(), **seeds)


def test_seeds_are_derived_unless_given() -> None:
    simulated = Experiment(backend="simulated")
    first, second = (replace(simulated, seed=1).seeds, replace(simulated, seed=2, data_seed=7).seeds)
    assert second.data == 7
    derived = [*msgspec.structs.astuple(first), second.init, second.attack, second.protocol]
    assert len(set(derived)) == len(derived)
    assert replace(simulated, seed=1).seeds == first


@pytest.mark.parametrize("backend", ["local", "compose"])
def test_no_seed_but_the_protocols_own_tells_the_keys_of_real_processes(backend: str) -> None:
    """The default seed is public, so whoever knows it could sign for everybody."""
    real, simulated = Experiment(backend=backend), Experiment(backend="simulated")
    assert real.seeds.protocol is None
    assert replace(real, protocol_seed=7).seeds.protocol == replace(simulated, protocol_seed=7).seeds.protocol == 7
    assert msgspec.structs.astuple(real.seeds)[:3] == msgspec.structs.astuple(simulated.seeds)[:3]


def test_what_real_nodes_are_told_of_a_modelled_network_is_not_the_protocol_seed() -> None:
    delayed = Experiment(delay=0.01, protocol_seed=7)
    assert (real := conditions.of(delayed)) is not None
    assert (simulated := conditions.of(replace(delayed, backend="simulated"))) is not None
    assert simulated.seed == 7 != real.seed
    assert real == conditions.of(delayed), "the network's draws repeat with the seed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peers": 1}, "--peers 1 is too small; use at least 2"),
        ({"peers": 257}, "--peers 257 is more than the 256"),
        ({"steps": 0}, "--steps 0 is too small"),
        ({"batch_size": 0}, "--batch-size 0 is too small"),
        ({"lr": 0.0}, "--lr 0.0 must be a positive, finite number"),
        ({"lr": float("nan")}, "--lr nan must be"),
        ({"tau": -1.0}, "--tau -1.0 must be"),
        ({"tau": float("inf")}, "--tau inf must be"),
        ({"momentum": 1.5}, "--momentum 1.5 must lie between 0 and 1"),
        ({"momentum": 0.5, "optimiser": "adam"}, "--momentum 0.5 is that of --optimiser sgd; leave it out, or give"),
        ({"validators": -1}, "--validators -1 is too small"),
        ({"validators": 3}, "--validators 3 of 6 leaves too few contributors; use at most 2"),
        ({"validate_every": 0}, "--validate-every 0 is too small"),
        ({"delta_max": 0.0}, "--delta-max 0.0 must be"),
        ({"delivery_bound": 0.0}, "--delivery-bound 0.0 must be"),
        ({"gradient_bound": -1.0}, "--gradient-bound -1.0 must be"),
        ({"eval_every": 0}, "--eval-every 0 is too small"),
        ({"seed": -1}, "--seed -1 must lie"),
        ({"protocol_seed": 2**63}, "--protocol-seed 9223372036854775808 must lie"),
        ({"base_port": 80}, "--base-port 80 must be 0 or lie between 1024 and 65524"),
        ({"base_port": 65530}, "--base-port 65530 must be"),
        ({"timeout": 0.0}, "--timeout 0.0 must be positive"),
        ({"backend": "swarmed"}, "unknown backend 'swarmed'; there are local, simulated, compose"),
        ({"expect": ("honest",)}, "--expect 'honest' is not 'field op value'"),
        ({"rule": "krumm"}, "unknown rule 'krumm'; did you mean"),
        ({"rule": "mean:f=2"}, "rule 'mean' has no parameter 'f'"),
        ({"rule": "nmn+mean"}, "unknown pre-aggregation 'nmn'; did you mean 'nnm'"),
        ({"rule": "nnm"}, "'nnm' comes in front of a rule"),
        ({"rule": "krum", "attack": "noise", "byzantine": 2}, "withstands f=1 of n=5 rows, and 2 of the peers attack"),
        ({"task": "mnist_cnm"}, "unknown task 'mnist_cnm'; did you mean 'mnist_cnn'"),
        ({"task": "quadratic:dimension=4"}, "--peers 6 is more than the 4 entries of task 'quadratic'"),
        ({"task": "quadratic:dimension=x"}, "dimension='x' must be a int"),
        ({"task": "quadratic", "attack": "label_flip", "byzantine": 1}, "needs a task with labels"),
    ],
)
def test_what_cannot_be_run_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan.make(Experiment(**{"device": "cpu", **options}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_an_attackers_own_configuration_tells_its_role(tmp_path: Path) -> None:
    experiment = Experiment(attack="noise", byzantine=2, base_port=7000)
    configs = node_configs(
        experiment, experiment.run_config("cpu"), experiment.roles(), "run", tmp_path, tmp_path / "data"
    )
    assert [config.node for config in configs if config.role is not None] == [4, 5]
    assert len({config.listen.control for config in configs} | {config.listen.bulk for config in configs}) == 12
    for config in configs[:4]:
        assert b"noise" not in msgspec.json.encode(config)


@pytest.mark.parametrize(
    ("options", "urls"),
    [
        ({}, ["tcp://127.0.0.1:*"] * 2),
        ({"one_port": True}, ["tcp://127.0.0.1:*"]),
        ({"base_port": 7000}, ["tcp://127.0.0.1:7002", "tcp://127.0.0.1:7003"]),
        ({"base_port": 7000, "one_port": True}, ["tcp://127.0.0.1:7001"]),
    ],
)
def test_a_local_node_has_two_ports_or_one(options: dict[str, Any], urls: list[str]) -> None:
    assert list(listen(Experiment(**options), 1).urls) == urls


@pytest.mark.parametrize(
    ("options", "closely"),
    [
        ({"attack": "noise", "byzantine": 2}, ()),
        ({"attack": "noise", "byzantine": 2, "eval_every": None}, ((95, 160),)),
        ({"attack": "noise", "byzantine": 1, "eval_every": None, "attack_every": 5}, ((95, 200),)),
        ({"role": ("4=noise:start=300", "5=noise:start=50"), "eval_every": None}, ((45, 110), (295, 360))),
        ({"eval_every": None, "attack_start": 30}, ((25, 90),)),
        ({"attack_start": 30}, ()),
    ],
)
def test_who_asks_for_it_has_steps_around_attacks_evaluated(
    options: dict[str, Any], closely: tuple[tuple[int, int], ...], tmp_path: Path
) -> None:
    experiment = Experiment(**options)
    run = experiment.run_config("cpu")
    configs = node_configs(experiment, run, experiment.roles(), "run", tmp_path, tmp_path)
    assert [config.closely for config in configs] == [closely] * 6
    assert run.eval_every == 50, "what peers agree on says nothing of attacks"


def test_the_gpus_memory_is_shared(tmp_path: Path) -> None:
    experiment = Experiment(peers=3)
    configs = node_configs(experiment, experiment.run_config("cuda"), {}, "run", tmp_path, tmp_path)
    assert sum(config.cuda_memory_fraction or 0 for config in configs) <= 1


def test_an_option_reaches_all_that_have_a_field_of_its_name() -> None:
    """From the command line through the run to the protocol's settings: nothing on the way keeps a default."""
    given = {"steps": 7, "batch_size": 3, "lr": 0.5, "momentum": 0.25, "tau": 2.0, "validators": 2, "validate_every": 3,
             "delta_max": 1.5, "audit_share": 0.75, "on_ban": "reform", "probation": 5, "undo": 9, "eval_every": 11,
             "minimum_rate": 2e6, "worker_momentum": 0.5, "encrypt_bulk": True, "allow_weak": True,
             "tight_budgets": True, "topology": "ring", "validators_contribute": "on"}  # fmt: skip
    run = Experiment(**given).run_config("cpu")  # type: ignore[arg-type]
    assert {name: getattr(run, name) for name in given} == given
    plain = RunConfig()
    derived = {
        "peers",
        "task",
        "optimiser",
        "schedule",
        "split",
        "rule",
        "pre",
        "imports",
        "init",
        "recompute_tolerance",
        "device",
        "roster",
        "members",
        "admit_every",
        "wire",
    }
    untouched = {name for name in RunConfig.__struct_fields__ if getattr(run, name) == getattr(plain, name)} - derived
    assert untouched <= {"delivery_bound_s", "gradient_bound_s", "measure_delivery", "measure_gradient"}
    settings = settings_of("run", run, (), 100, b"")
    same = {each.name for each in fields(settings)} & set(RunConfig.__struct_fields__) - {"validators_contribute"}
    assert len(same) >= 15 and all(getattr(settings, name) == getattr(run, name) for name in same)


def test_portable_arithmetic_is_a_parameter_of_the_task_and_so_of_the_genesis() -> None:
    run = Experiment(task="mnist_cnn", arithmetic="portable").run_config("cpu")
    assert run.task.parameters == {"arithmetic": "portable"}
    assert (run.arithmetic, Experiment().run_config("cpu").arithmetic) == ("portable", "native")


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (
            Experiment(arithmetic="portable", task="quadratic"),
            r"task 'quadratic' has no portable arithmetic; use --ari",
        ),
        (Experiment(task="mnist_cnn:arithmetic=exact"), "arithmetic 'exact' is unknown; use native or portable"),
    ],
)
def test_an_arithmetic_that_a_task_lacks_is_one_line(asked: Experiment, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as problem:
        plan.make(asked)
    assert "\n" not in str(problem.value)


def test_portable_arithmetic_is_computed_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "driver_present", lambda: True)
    assert plan.make(Experiment(arithmetic="portable")).run.device == "cpu"
    with pytest.raises(ConfigError, match="--arithmetic portable computes on the CPU, not on --device cuda"):
        Experiment(arithmetic="portable").run_config("cuda")


def test_who_may_join_reaches_the_protocol() -> None:
    """Not with a topology or undo, so not in the table above."""
    run = Experiment(roster="open", members=9, admit_every=7, undo=0).run_config("cpu")
    settings = settings_of("run", run, (), 100, b"")
    assert (settings.roster, settings.members, settings.admit_every) == ("open", 9, 7)
    assert run.capacity == 9 and run.everyone_contributes and Experiment().run_config("cpu").capacity == 6


def test_what_entries_travel_as_reaches_the_protocol() -> None:
    run = Experiment(wire="bf16").run_config("cpu")
    settings = settings_of("run", run, (), 100, b"")
    assert (settings.wire, settings.precision.item_bytes, run.entry_bytes) == ("bf16", 2, 2)
    assert settings.run != settings_of("run", Experiment().run_config("cpu"), (), 100, b"").run, "it is agreed on"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"wire": "bf16", "recompute_tolerance": 1e-6}, "--wire bf16 makes large steps of small differences"),
        ({"wire": "bf16", "topology": "ring"}, "--wire bf16 is the butterfly's; leave out --topology ring"),
        ({"members": 8}, "--members 8 is for newcomers; add --roster sponsored, or open"),
        ({"roster": "open"}, "--members 0 with --roster open must be more than --peers 6"),
        ({"roster": "open", "members": 257}, "at most 256"),
        ({"roster": "sponsored", "members": 8, "probation": 0}, "admits nobody with --probation 0"),
        ({"roster": "sponsored", "members": 8, "undo": 8}, "--undo 8: newcomers are not for such a run"),
        (
            {"roster": "open", "members": 8, "recompute_tolerance": 1e-6},
            "--recompute-tolerance 1e-06: newcomers",
        ),
        ({"roster": "open", "members": 8, "split": "dirichlet:alpha=0.3"}, "--split dirichlet: newcomers are not"),
        ({"roster": "open", "members": 8, "admit_every": 0}, "--admit-every 0 is too small"),
    ],
)
def test_what_no_run_can_have_is_refused_in_one_line(given: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        Experiment(**given).run_config("cpu")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
