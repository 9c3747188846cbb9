"""Every rule inside the protocol: a false aggregate is found by the audit or by V2, and no honest peer is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from btard.node.aggregation.registry import RULES
from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.drivers.simulator import cluster
from btard.node.protocol.api import Banned, Finished, Halted
from btard.node.training.registry import build_task
from btard.node.training.task import TaskContext

CASES = [(rule.name, ()) for rule in RULES] + [
    ("krum", ("nnm",)),
    ("median", ("clipping", "bucketing")),
    ("mean", ("arc",)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "pre"), CASES, ids=["+".join((*pre, rule)) for rule, pre in CASES])
def test_a_false_aggregate_is_found(rule: str, pre: tuple[str, ...]) -> None:
    """Six peers; 4 and 5 falsify their aggregates from step 2 on; removals leave fewer rows than there were."""
    run = RunConfig(
        peers=6, task=Plugin("quadratic"), steps=6, batch_size=2, rule=Plugin(rule),
        pre=tuple(map(Plugin, pre)), audit_share=1.0,
    )  # fmt: skip
    task = build_task(run.task, TaskContext(Path("unused"), run.batch_size))
    role = Role((Plugin("shift_aggregate"),), Schedule(start=2), (4, 5))
    banned, finished = {}, set()
    for seen in cluster(run, task, {4: role, 5: role}).run():
        assert not isinstance(seen.output, Halted) or seen.node in (4, 5)
        if isinstance(seen.output, Banned) and seen.node == 0:
            banned[seen.output.peer] = seen.output.reason
        if isinstance(seen.output, Finished):
            finished.add(seen.node)
    assert banned == {4: "aggregate", 5: "aggregate"}
    assert finished >= {0, 1, 2, 3}
