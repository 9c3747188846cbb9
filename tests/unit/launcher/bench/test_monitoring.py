"""The measurement of what monitoring costs: its arithmetic, and one short pair of real runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from btard.launcher.bench.monitoring import main, step_cpu_s


def test_the_processor_time_of_a_step_leaves_the_warm_up_out(tmp_path: Path) -> None:
    for node in range(2):
        where = tmp_path / "nodes" / str(node)
        where.mkdir(parents=True)
        used = [5.0, 6.0, 6.5, 6.75, 7.0]
        lines = [{"time": 3 * step, "node": node, "event": "committed", "step": step, "cpu_seconds": cpu}
                 for step, cpu in enumerate(used)]  # fmt: skip
        (where / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert step_cpu_s(tmp_path, 2) == (2 * 0.25, 3.0)


@pytest.mark.sockets
def test_a_pair_of_runs_is_told() -> None:
    done = CliRunner().invoke(main, ["--pairs", "1", "--task", "quadratic", "--steps", "6", "--peers", "2"])
    assert done.exit_code == 0, done.output
    assert re.search(r"with monitoring: median [+-]\d+\.\d % \(.* %\) of 1 pairs", done.output)
    assert re.search(r"one scrape: median \d+\.\d ms, 95 % below \d+\.\d ms, \d+ bytes", done.output)
