"""The protocol's share of a training step, beside the gradient's own time: an ordinary run, read from its journals."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec

from btard.launcher.run import cluster
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.summary import FINISHED
from btard.node.errors import BackendError
from btard.node.storage import journal

_WARM_UP = 5


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """CPU of an honest run, all peers together, without start-up and evaluation.

    Args:
        steps: measured.
        gradient_cpu_ms: per step, in gradients, the validators' recomputation included.
        protocol_cpu_ms: per step, everything else: messages, tensors, aggregation, signatures, journals.
        protocol_share: the one over the other.
        step_ms: median duration of a step.
        ready_s: from the start of the run until every worker had greeted every other.
        torch_import_s: one import of torch in a process of its own, just before.
    """

    task: str
    peers: int
    steps: int
    gradient_cpu_ms: float
    protocol_cpu_ms: float
    protocol_share: float
    step_ms: float
    ready_s: float
    torch_import_s: float


def share(task: str, peers: int, steps: int) -> Share:
    """Run `steps` honest steps of a task and say what they cost.

    Raises:
        ConfigError, DataError, BackendError: the run cannot be made, or failed.
    """
    whole = steps + _WARM_UP
    with tempfile.TemporaryDirectory(prefix="btard-bench-") as name:
        where = Path(name) / "run"
        torch_import_s = _torch_import_s()
        began = time.time()
        result = cluster.run(
            Experiment(task=task, peers=peers, steps=whole, eval_every=whole, device="cpu", run_dir=str(where))
        )
        if result.summary.outcome != FINISHED:
            raise BackendError(f"the measured run ended as {result.summary.outcome}: {result.summary.problem}")
        journals = [journal.read(where / "nodes" / str(peer) / "journal.jsonl")[0] for peer in range(peers)]
    lines = [[record for record in of_peer if record["event"] == "committed"] for of_peer in journals]
    greeted = [record["time"] for of_peer in journals for record in of_peer if record["event"] == "greeted"]
    gradients = sum(_spent(of_peer, steps, "gradient_cpu_seconds") for of_peer in lines)
    total = sum(_spent(of_peer, steps, "cpu_seconds") for of_peer in lines)
    return Share(
        task=task, peers=peers, steps=steps, gradient_cpu_ms=1000 * gradients / steps,
        protocol_cpu_ms=1000 * (total - gradients) / steps, protocol_share=(total - gradients) / gradients,
        step_ms=1000 * median(record["seconds"] for of_peer in lines for record in of_peer[_WARM_UP:-1]),
        ready_s=max(greeted) - began, torch_import_s=torch_import_s,
    )  # fmt: skip


def _torch_import_s() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - began


def _spent(records: list[journal.Record], steps: int, field: str) -> float:
    """Growth of a total over the measured steps; the last line is read before the final evaluation."""
    first, last = records[_WARM_UP - 1], records[_WARM_UP + steps - 1]
    return float(last[field]) - float(first[field])
