"""What a replay is made of: records, in full where they fit, and never more than a page can hold."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from btard import Experiment, run
from btard.launcher.report import replay, run_data
from btard.launcher.report.run_data import RunData
from btard.launcher.verify.explanation import Explained, Line


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    """A run in which nothing happened."""
    where = tmp_path_factory.mktemp("replay") / "run"
    run(
        Experiment(
            backend="simulated", task="quadratic", device="cpu", peers=4, steps=4, batch_size=4, run_dir=str(where)
        )
    )
    return run_data.load(where)


def test_a_step_is_what_its_records_say(quiet: RunData) -> None:
    made = json.loads(replay.data(quiet, []))
    assert (made["peers"], made["of"]) == (4, len(quiet.commits)) == (4, len(made["steps"]))
    for step, (number, views) in zip(made["steps"], quiet.commits.items(), strict=True):
        assert step["step"] == number
        assert made["rosters"][step["active"]] == views[0]["active"] == [0, 1, 2, 3]
        assert made["rosters"][step["contributors"]] == views[0]["contributors"]
        assert step["agree"] == [4, 4] and views[0]["state_digest"].startswith(step["digest"])
        assert "lines" not in step and "attacked" not in step


def test_a_step_without_a_committed_line_says_so(quiet: RunData) -> None:
    made = json.loads(replay.data(quiet, [Explained(99, 1, (Line("halt", "node 1 stopped: </script>"),))]))
    (line,) = made["steps"][-1].pop("lines")
    assert made["steps"][-1] == {"step": 99, "more": 0}
    assert (line["kind"], line["text"]) == ("halt", "attempt 2: node 1 stopped: </script>")
    assert "</script" not in replay.data(quiet, [Explained(99, 0, (Line("halt", "</script>"),))])


def test_of_a_long_run_what_happened_is_kept(quiet: RunData) -> None:
    views = quiet.commits[1]
    long = replace(quiet, commits=dict.fromkeys(range(20_000), views))
    text = replay.data(long, [Explained(15_000, 0, tuple(Line("dispute", "x" * 5000) for _ in range(900)))])
    made = json.loads(text)
    steps = [step["step"] for step in made["steps"]]
    assert {0, 1, 14_999, 15_000, 15_001, 19_999} <= set(steps) and steps == sorted(steps)
    assert len(steps) == 600 and made["of"] == 20_000
    happened = made["steps"][steps.index(15_000)]
    assert len(happened["lines"]) + happened["more"] == 900
    assert len(text) < 150_000
