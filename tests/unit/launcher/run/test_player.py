"""The same scenario file played to real processes and to the simulator, from the command line's side to the summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from btard import Experiment, run
from btard.launcher.monitor.ground_truth import GroundTruth
from btard.launcher.monitor.state import RunState
from btard.launcher.monitor.summary_table import rows

SCENARIO = """\
from step 2 delay 0->1 5ms jitter 2ms
at step 6 kill 3
"""


@pytest.mark.sockets
@pytest.mark.parametrize("backend", ["local", "simulated"])
def test_a_scenario_hits_processes_and_simulated_nodes_alike(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "flaky.scn"
    path.write_text(SCENARIO)
    result = run(
        Experiment(peers=4, task="quadratic", batch_size=4, steps=14, eval_every=7, delivery_bound=0.25,
                   gradient_bound=0.25, scenario=str(path), backend=backend, run_dir=str(tmp_path / "run"))
    )  # fmt: skip
    score = result.summary
    assert (score.outcome, score.steps, score.agreement) == ("finished", 14, True)
    assert [(row.peer, row.reason) for row in score.gone] == [(3, "silent")]
    assert score.bans == []
    assert {(event.action, event.peers) for event in score.scenario} == {("begins", ()), ("kill", (3,))}
    (delayed,) = [link for link in score.links if (link.sender, link.receiver) == (0, 1)]
    assert delayed.requested_delay_s is not None
    assert delayed.measured_delay_s is not None
    assert 0.001 < delayed.requested_delay_s <= delayed.measured_delay_s, "messages may be late, never early"
    told = dict(rows(score))
    assert "begins" in told["scenario"] or "kill" in told["scenario"]
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "scenario" for event in events) == 2
    written = json.loads((tmp_path / "run" / "run.json").read_bytes())["link_model"]
    assert [change["text"] for change in written["changes"]] == ["from step 2 delay 0->1 5ms jitter 2ms"]


def test_events_of_a_scenario_are_counted_with_the_runs_own() -> None:
    state = RunState(2)
    truth = GroundTruth({}, state)
    record = {"time": 1.0, "node": "launcher", "event": "scenario", "action": "kill", "peers": [1],
              "text": "at 1s kill 1", "at_s": 1.0}  # fmt: skip
    state.apply(record)
    assert [event.name for event in truth.saw([record])] == ["kill"]
    assert truth.registry.get_sample_value("btard_scenario_event_total", {"event": "kill"}) == 1
    assert state.killed == {1}
