"""Aggregation rules: plain functions on an `[N, P]` tensor, usable without the cluster.

A newcomer adds one file here: a function decorated with `btard.node.aggregation.registry.rule`.
"""

from btard.node.aggregation.bulyan import bulyan
from btard.node.aggregation.caf import caf
from btard.node.aggregation.centered_clip import centered_clip
from btard.node.aggregation.cge import cge
from btard.node.aggregation.geometric_median import geometric_median
from btard.node.aggregation.krum import krum
from btard.node.aggregation.mda import mda
from btard.node.aggregation.meamed import meamed
from btard.node.aggregation.mean import mean
from btard.node.aggregation.median import median
from btard.node.aggregation.monna import monna
from btard.node.aggregation.multi_krum import multi_krum
from btard.node.aggregation.norm_clip import norm_clip
from btard.node.aggregation.sign_vote import sign_vote
from btard.node.aggregation.smea import smea
from btard.node.aggregation.trimmed_mean import trimmed_mean

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
