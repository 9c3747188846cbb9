"""Comparison topologies: their aggregates and traffic, and whole runs without the protocol."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
import torch
from rich.console import Console

from btard import Experiment, Result, run
from btard.launcher.monitor import live_view, summary_table
from btard.launcher.report import run_page
from btard.launcher.run import plan
from btard.launcher.run.run_directory import read_record
from btard.node.aggregation import krum, trimmed_mean
from btard.node.aggregation.factory import build_rule
from btard.node.baselines import topologies
from btard.node.baselines.comparison import Trainer
from btard.node.config import NodeConfig, Plugin, Role, RunConfig, Schedule
from btard.node.crypto.keys import generate
from btard.node.errors import ConfigError
from btard.node.storage.recorder import NodeTotals
from btard.node.training.optimisers.sgd import NesterovSgd
from btard.node.training.registry import build_task
from btard.node.training.schedules import LearningRate
from btard.node.training.task import TaskContext
from btard.node.verify import audit

TASK = Plugin("quadratic", {"dimension": 20})
ROWS = torch.randn(6, 20, generator=torch.Generator().manual_seed(0))


def trainer(config: RunConfig, roles: dict[int, Role] | None = None) -> Trainer:
    members, _ = generate(0, config.peers)
    configs = [
        NodeConfig("run", each.id, config, members, "", "", "", role=(roles or {}).get(each.id)) for each in members
    ]
    return Trainer(configs, build_task(config.task, TaskContext(Path("unused"), 4)))


def desks() -> dict[int, NodeTotals]:
    return {peer: NodeTotals() for peer in range(6)}


def test_a_server_applies_the_rule_to_the_whole_vector() -> None:
    """Krum on the whole vector returns one row; on parts it puts several together."""
    config = RunConfig(topology="parameter_server", rule=Plugin("krum", {"f": 1}))
    whole = topologies.aggregate(config, build_rule(config.rule), ROWS)
    assert torch.equal(whole, krum(ROWS, f=1))
    parts = torch.cat([krum(part, f=1) for part in ROWS.split(5, dim=1)])
    assert not torch.equal(parts, whole)


def test_its_radius_is_that_of_all_parts_together() -> None:
    """tau sqrt(n): six parts within 5 each are within 5 sqrt(6) together."""
    config = RunConfig(topology="parameter_server", rule=Plugin("norm_clip"), tau=5.0)
    long = torch.full((1, 20), 100.0)
    value = topologies.aggregate(config, build_rule(config.rule), long)
    assert float(value.norm()) == pytest.approx(5 * 6**0.5, rel=1e-5)


@pytest.mark.parametrize("topology", ["ring", "none"])
def test_plain_all_reduce_averages(topology: str) -> None:
    config = RunConfig(topology=topology, rule=Plugin("mean"))  # type: ignore[arg-type]
    torch.testing.assert_close(topologies.aggregate(config, build_rule(config.rule), ROWS), ROWS.mean(dim=0))


def sent(topology: str, step: int = 0) -> Counter[int]:
    config = RunConfig(topology=topology)  # type: ignore[arg-type]
    total: Counter[int] = Counter()
    for each in topologies.traffic(config, 20, step):
        assert each.sender == each.receiver or topology != "parameter_server" or each.receiver < 6
        total[each.sender] += each.size_bytes
    return total


def test_traffic_is_what_each_topology_costs() -> None:
    """Six parts of 20 entries: 3, 3, 3, 3, 4, 4. A ring and an all-reduce cost 2 d (n - 1) / n on average."""
    assert sent("parameter_server") == dict.fromkeys(range(6), 80)
    for topology in ("ring", "none"):
        assert sum(sent(topology).values()) == 2 * 4 * 20 * 5
    assert sent("byrdie") == dict.fromkeys(range(6), 5 * 4 * 3)
    assert sent("byrdie", step=11) == dict.fromkeys(range(6), 5 * 4 * 4)


def test_byrdie_changes_one_block_per_step_by_the_rule_on_each_coordinate() -> None:
    config = RunConfig(topology="byrdie", rule=Plugin("trimmed_mean", {"f": 2}), task=TASK, steps=12, momentum=0.0)
    made = trainer(config)
    before = made.step(desks()).parameters_D
    for step in range(1, 8):
        rate = NesterovSgd(LearningRate(config.lr, 12), 0.0).rate(step)
        after = made.step(desks()).parameters_D
        rows = torch.stack([made._known[peer][0] for peer in range(6)])
        expected = before.clone()
        block = topologies.updated(config, 20, step)
        expected[block] -= rate * trimmed_mean(rows, f=2)[block]
        torch.testing.assert_close(after, expected)
        assert (after != before).nonzero().flatten().tolist() == list(range(block.start, block.stop))
        before = after


def test_worker_momentum_averages_each_workers_gradients() -> None:
    config = RunConfig(topology="parameter_server", rule=Plugin("mean"), task=TASK, worker_momentum=0.5)
    made = trainer(config)
    made.step(desks())
    first = torch.stack([made._known[peer][0] for peer in range(6)])
    made.step(desks())
    second = torch.stack([made._known[peer][0] for peer in range(6)])
    assert made._momenta_ND is not None
    torch.testing.assert_close(made._momenta_ND, 0.5 * first + 0.5 * second)


ROLE = Role((Plugin("ipm", {"eps": 2.0}),), Schedule(start=1), (4, 5))


def test_colluders_know_the_honest_gradients() -> None:
    made = trainer(RunConfig(topology="none", rule=Plugin("mean"), task=TASK), {4: ROLE, 5: ROLE})
    tables = desks()
    for _ in range(2):
        made.step(tables)
    honest = torch.stack([made._known[peer][0] for peer in range(4)])
    assert made.attacked(4) == made.attacked(5) == [1]
    assert made.attacked(0) == []
    torch.testing.assert_close(made._inner[5].sent_D, -2 * honest.mean(dim=0))
    assert all(totals.loss > 0 for totals in tables.values())


REFUSED = [
    ("a rule where there is none", {"topology": "ring"},
     "--topology ring has no defence: it averages; add --rule mean"),
    ("processes", {"topology": "parameter_server", "backend": "local"}, "add --backend simulated"),
    ("momentum in the protocol", {"worker_momentum": 0.9}, "use --topology parameter_server"),
    ("momentum out of range", {"worker_momentum": 1.0}, "--worker-momentum 1.0 must lie in [0, 1)"),
    ("an attack on messages", {"topology": "parameter_server", "attack": "lie_checksum", "byzantine": 1},
     "attack 'lie_checksum' acts on messages, which --topology parameter_server does not have"),
    ("an attack of a whole node", {"topology": "parameter_server", "attack": "crash", "byzantine": 1},
     "attack 'crash' acts on node, which"),
    ("attackers that ask who validates",
     {"topology": "parameter_server", "attack": "noise", "byzantine": 1, "attack_when": "together"},
     "--attack-when together asks who validates, and --topology parameter_server has no validators; use --attack-when"),
    ("an optimiser that knows no blocks", {"topology": "byrdie", "optimiser": "adam"},
     "--topology byrdie moves one block of coordinates in a step, which --optimiser adam does not know; use sgd"),
    ("modelled links", {"topology": "parameter_server", "delay": 0.01}, "has no links to model"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_a_topology_cannot_do_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(Experiment(**{"task": "quadratic", "backend": "simulated", "device": "cpu", **options}))  # type: ignore[arg-type]
    assert words in str(caught.value)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Result:
    where = tmp_path_factory.mktemp("comparison") / "run"
    return run(Experiment(task="quadratic", device="cpu", backend="simulated", topology="parameter_server",
                          rule="nnm+trimmed_mean", steps=20, eval_every=10, attack="sign_flip", byzantine=2,
                          attack_start=3, run_dir=str(where), timeout=100))  # fmt: skip


@pytest.mark.sockets
def test_a_comparison_run_is_scored_like_any_other(attacked: Result) -> None:
    made = attacked.summary
    assert (made.outcome, made.problem, made.steps, made.bans) == ("finished", None, 20, [])
    assert [step for step, _ in made.accuracy] == [0, 10, 20]
    assert made.final_test_accuracy == made.accuracy[-1][1]
    assert made.agreement
    assert made.bytes_sent.bulk == 20 * 6 * 4 * 64


@pytest.mark.sockets
def test_nothing_is_said_of_validators_evidence_or_the_formula(attacked: Result) -> None:
    console = Console(file=io.StringIO(), width=200)
    experiment = read_record(attacked.run_dir).experiment
    made = plan.make(experiment)
    (head, *_) = live_view.headline(made)
    assert "validator" not in head and "topology parameter_server" in head
    summary_table.show(console, attacked.summary, attacked.run_dir, experiment)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "outcome" in text
    assert "verify" not in text and "formula" not in text
    assert attacked.summary.bytes_expected is None
    page = run_page.write(attacked.run_dir).read_text()
    assert "Repeat it" in page and "verify" not in page


@pytest.mark.sockets
def test_there_is_nothing_to_verify(attacked: Result) -> None:
    with pytest.raises(ConfigError, match=r"is a comparison run \(parameter_server\): nothing in it is signed"):
        audit.check_run(attacked.run_dir)
