"""Speed of every rule against ByzFL's, side by side: `python -m tests.byzfl_speed [ROUNDS [RULE]...]` prints a table.

Both run alternately in one process on one thread, on six rows of a million float32 numbers; the figure is the median
CPU time of the rounds, with the range of the ratio over the rounds. Nothing is gated: timings depend on the machine.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from byzfl.aggregators import aggregators, preaggregators

import btard.node.aggregation as ours
import btard.node.aggregation.pre as pre

PEERS, DIMENSION = 6, 1_000_000
Function = Callable[[torch.Tensor], Any]

PAIRS: dict[str, tuple[Function, Function]] = {
    "mean": (ours.mean, aggregators.Average()),
    "median": (ours.median, aggregators.Median()),
    "trimmed_mean": (lambda rows: ours.trimmed_mean(rows, f=1), aggregators.TrMean(1)),
    "meamed": (lambda rows: ours.meamed(rows, f=1), aggregators.Meamed(1)),
    "krum": (lambda rows: ours.krum(rows, f=1), aggregators.Krum(1)),
    "multi_krum": (lambda rows: ours.multi_krum(rows, f=1), aggregators.MultiKrum(1)),
    "centered_clip, theirs L=50": (lambda rows: ours.centered_clip(rows, radius=5.0),
                                   aggregators.CenteredClipping(L=50, tau=5.0)),
    "centered_clip, theirs L=1": (lambda rows: ours.centered_clip(rows, radius=5.0),
                                  aggregators.CenteredClipping(L=1, tau=5.0)),
    "geometric_median": (lambda rows: ours.geometric_median(rows), aggregators.GeometricMedian()),
    "mda": (lambda rows: ours.mda(rows, f=1), aggregators.MDA(1)),
    "smea": (lambda rows: ours.smea(rows, f=1), aggregators.SMEA(1)),
    "caf": (lambda rows: ours.caf(rows, f=1), aggregators.CAF(1)),
    "monna": (lambda rows: ours.monna(rows, f=1), aggregators.MoNNA(1)),
    "nnm": (lambda rows: pre.nnm(rows, f=1), preaggregators.NNM(1)),
    "bucketing": (pre.bucketing, preaggregators.Bucketing(2)),
    "clipping (theirs on a copy)": (pre.clipping, lambda rows: preaggregators.Clipping(5.0)(rows.clone())),
    "arc (theirs on a copy)": (lambda rows: pre.arc(rows, f=1), lambda rows: preaggregators.ARC(1)(rows.clone())),
}  # fmt: skip


def main(rounds: int, names: list[str]) -> None:
    """Print one row per rule: all of them, or those named."""
    torch.set_num_threads(1)
    rows = torch.randn(PEERS, DIMENSION, generator=torch.Generator().manual_seed(0))
    print(f"n={PEERS} d={DIMENSION}, one thread, median CPU time of {rounds} rounds in ms; ratio = theirs / ours")
    print(f"{'rule':28} {'ours':>8} {'ByzFL':>8} {'ratio':>7}  range of the ratio")
    for name, (own, other) in PAIRS.items():
        if names and name.split(",")[0] not in names:
            continue
        times = [(_seconds(own, rows), _seconds(other, rows)) for _ in range(rounds + 1)][1:]
        own_ms, other_ms = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
        ratios = [theirs / mine for mine, theirs in times]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{name:28} {own_ms:8.1f} {other_ms:8.1f} {other_ms / own_ms:7.2f}  {spread}", flush=True)


def _seconds(function: Function, rows: torch.Tensor) -> float:
    began = time.process_time()
    function(rows)
    return time.process_time() - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9, sys.argv[2:])
