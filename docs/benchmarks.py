"""`python -m docs.benchmarks`: the plots of docs/benchmarks.md, from the figures in docs/benchmarks.json.

That file is an array of what `btard-launch bench --json` printed, one object per run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from btard.launcher.figures import svg
from btard.launcher.figures.chart import Axis, Chart, Series
from btard.launcher.network.traffic import step_bytes

HERE = Path(__file__).parent
OPERATIONS = {"protocol": "BTARD step", "mean": "mean butterfly", "gloo": "gloo all-reduce"}
PEERS, SIZE, VALIDATORS = 6, 1_000_000, 1
STYLE = "<style>text { fill: #222; font-family: sans-serif } line.grid { stroke: #ddd }</style>"
Runs = list[dict[str, Any]]


def main() -> None:
    """Draw docs/figures/cost-d.svg and docs/figures/cost-n.svg."""
    runs: Runs = json.loads((HERE / "benchmarks.json").read_text(encoding="utf-8"))
    for name, drawn in (("cost-d", against_size(runs)), ("cost-n", against_peers(runs))):
        head, _, rest = drawn.partition(">")  # a figure takes its style from its page; this one has no page
        (HERE / "figures" / f"{name}.svg").write_text(f"{head}>{STYLE}{rest}\n", encoding="utf-8")


def against_size(runs: Runs) -> str:
    """CPU against d at six peers; the theory: a fixed cost per step and a constant one per float."""
    found = sorted((run for run in runs if run["peers"] == PEERS), key=lambda run: run["size"])
    curves = {name: [(run["size"], run["cpu_ms"][name]["median"]) for run in found] for name in OPERATIONS}
    series = [Series(label, curves[name], svg.COLOURS[place]) for place, (name, label) in enumerate(OPERATIONS.items())]
    (first, smallest), (last, largest) = curves["protocol"][0], curves["protocol"][-1]
    each = (largest - smallest) / (last - first)
    line = [(size, smallest + each * (size - first)) for size, _ in curves["protocol"]]
    series.append(Series(f"{smallest - each * first:.1f} ms + {1e6 * each:.1f} ns d", line, svg.GREY, dash="4 3"))
    top = 2 * largest
    return Chart(
        "CPU time of a step against the size of the vector", Axis("d, floats", first, last, log=True),
        Axis("CPU ms per peer", 0.5, top, log=True), series,
    ).html  # fmt: skip


def against_peers(runs: Runs) -> str:
    """Bytes against n at d = 1e6; the theory: `2 d (n - 1) / n` floats, less what the validator does not send, and
    n - 1 messages in each phase, whose size grows with n."""
    found = sorted((run for run in runs if run["size"] == SIZE), key=lambda run: run["peers"])
    tensors = [(run["peers"], run["bulk_bytes"] / run["peers"] / 1e6) for run in found]
    messages = [(run["peers"], run["control_bytes"] / run["peers"] / 1e6) for run in found]
    counts = [count for count, _ in tensors]
    formula = [(n, step_bytes(SIZE, range(n), range(n)[VALIDATORS:]) / n / 1e6) for n in counts]
    quadratic = [(n, messages[-1][1] * (n / counts[-1]) ** 2) for n in counts]
    series = [
        Series("tensors", tensors, svg.COLOURS[0]), Series("their formula", formula, svg.GREY, dash="4 3"),
        Series("messages", messages, svg.COLOURS[1]), Series("growing as n^2", quadratic, svg.GREY, dash="1 3"),
    ]  # fmt: skip
    return Chart(
        "Bytes of a step against the number of peers", Axis("n, peers (d = 1e6)", counts[0], counts[-1]),
        Axis("MB per peer", 0.001, 20.0, log=True), series,
    ).html  # fmt: skip


if __name__ == "__main__":
    main()
