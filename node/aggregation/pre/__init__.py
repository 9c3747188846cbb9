"""Pre-aggregations: functions from rows `[N, P]` to rows `[M, P]`, put in front of any rule (`--rule nnm+krum`)."""

from node.aggregation.pre.arc import arc
from node.aggregation.pre.bucketing import bucketing
from node.aggregation.pre.clipping import clipping
from node.aggregation.pre.nnm import nnm
from node.aggregation.pre.worker_momentum import worker_momentum

__all__ = ["arc", "bucketing", "clipping", "nnm", "worker_momentum"]
