"""Compares the CPU of an honest step in two source trees, in alternating pairs; prints ratios, gates nothing. Options
after a second `--` are the second tree's alone: one tree can so be compared with itself.

    git worktree add /tmp/before c0352f2
    python -m tests.integration.paired_cpu /tmp/before . 9 --task quadratic:dimension=100000 --batch-size 1 --steps 80
    WARM_STEPS=45 python -m tests.integration.paired_cpu . . 9 --steps 105 --undo off -- --undo 40

User and system time of all workers and all their threads, as each worker journals it with every committed step, from
step WARM_STEPS on (10), so that start-up does not count.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

LAUNCH = """
from pathlib import Path
if Path("btard").exists():
    from btard.launcher.cli.main import main
else:
    from launcher.cli import main  # before 0.2
main()
"""
WARM_STEPS = int(os.environ.get("WARM_STEPS", "10"))


def step_cpu_s(tree: str, options: Sequence[str]) -> float:
    """CPU seconds of one step, all workers together."""
    with tempfile.TemporaryDirectory() as where:
        run_dir = Path(where) / "run"
        command = [sys.executable, "-c", LAUNCH, "run", *options, "--eval-every", "1000000", "--run-dir", str(run_dir)]
        environment = {**os.environ, "PYTHONPATH": tree, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True)
        return sum(_of_worker(path) for path in run_dir.glob("nodes/*/journal.jsonl"))


def _of_worker(journal: Path) -> float:
    records = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    steps = [record for record in records if record["event"] == "committed"]
    first, last = steps[WARM_STEPS], steps[-1]
    return float(last["cpu_seconds"] - first["cpu_seconds"]) / float(last["step"] - first["step"])


def main(before: str, after: str, pairs: int, options: Sequence[str]) -> None:
    """Print each pair and the median ratio."""
    split = options.index("--") if "--" in options else len(options)
    sides = {"before": (before, options[:split]), "after": (after, [*options[:split], *options[split + 1 :]])}
    ratios = []
    for pair in range(pairs):
        order = ("before", "after") if pair % 2 == 0 else ("after", "before")
        found = {side: 1000 * step_cpu_s(*sides[side]) for side in order}
        ratios.append(found["after"] / found["before"])
        print(f"before {found['before']:.1f} ms, after {found['after']:.1f} ms, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}, {pairs} pairs")


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()), str(Path(sys.argv[2]).resolve()), int(sys.argv[3]), sys.argv[4:])
