"""Aggregation rules: plain functions on an `[N, P]` tensor, usable without the cluster.

A newcomer adds one file here: a function decorated with `node.aggregation.registry.rule`.
"""

from node.aggregation.bulyan import bulyan
from node.aggregation.caf import caf
from node.aggregation.centered_clip import centered_clip
from node.aggregation.cge import cge
from node.aggregation.geometric_median import geometric_median
from node.aggregation.krum import krum
from node.aggregation.mda import mda
from node.aggregation.meamed import meamed
from node.aggregation.mean import mean
from node.aggregation.median import median
from node.aggregation.monna import monna
from node.aggregation.multi_krum import multi_krum
from node.aggregation.norm_clip import norm_clip
from node.aggregation.sign_vote import sign_vote
from node.aggregation.smea import smea
from node.aggregation.trimmed_mean import trimmed_mean

__all__ = [
    "bulyan",
    "caf",
    "centered_clip",
    "cge",
    "geometric_median",
    "krum",
    "mda",
    "meamed",
    "mean",
    "median",
    "monna",
    "multi_krum",
    "norm_clip",
    "sign_vote",
    "smea",
    "trimmed_mean",
]  # fmt: skip
