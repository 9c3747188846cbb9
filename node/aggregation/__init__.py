"""Aggregation rules: plain functions on an `[N, P]` tensor, usable without the cluster.

A newcomer adds one file here: a function decorated with `node.aggregation.registry.rule`.
"""

from node.aggregation.centered_clip import centered_clip
from node.aggregation.mean import mean
from node.aggregation.median import median

__all__ = ["centered_clip", "mean", "median"]
