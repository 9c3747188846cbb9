"""Pre-aggregations: functions from rows `[N, P]` to rows `[M, P]`, put in front of any rule (`--rule nnm+krum`)."""

from btard.node.aggregation.pre.arc import arc
from btard.node.aggregation.pre.bucketing import bucketing
from btard.node.aggregation.pre.clipping import clipping
from btard.node.aggregation.pre.nnm import nnm
from btard.node.aggregation.pre.worker_momentum import worker_momentum

__all__ = ["arc", "bucketing", "clipping", "nnm", "worker_momentum"]
