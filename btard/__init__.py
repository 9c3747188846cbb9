"""BTARD: a real cluster that trains a neural network while some of its members lie.

What programs use of it stands here; everything else lives in `btard.node` and `btard.launcher`, whose folders lie
beside this one in a clone and inside it in a wheel. Names are imported when they are first used: a health check that
only needs `btard.node.metrics.healthcheck` must not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from btard.launcher.run.cluster import Result
    from btard.launcher.run.experiment import Experiment
    from btard.launcher.run.library import run
    from btard.launcher.run.loaded import LoadedRun, load_run
    from btard.launcher.run.session import Session
    from btard.launcher.verify.verification import Report, verify
    from btard.node.adversary.registry import attack
    from btard.node.aggregation.registry import pre_aggregation, rule
    from btard.node.errors import BtardError
    from btard.node.training.module_task import ModuleTask
    from btard.node.training.optimisers.by_torch import TorchOptimiser
    from btard.node.training.registry import task

__all__ = [
    "BtardError",
    "Experiment",
    "LoadedRun",
    "ModuleTask",
    "Report",
    "Result",
    "Session",
    "TorchOptimiser",
    "attack",
    "load_run",
    "pre_aggregation",
    "rule",
    "run",
    "task",
    "verify",
]

_HOME = {
    "BtardError": "btard.node.errors",
    "Experiment": "btard.launcher.run.experiment",
    "LoadedRun": "btard.launcher.run.loaded",
    "ModuleTask": "btard.node.training.module_task",
    "Report": "btard.launcher.verify.verification",
    "Result": "btard.launcher.run.cluster",
    "TorchOptimiser": "btard.node.training.optimisers.by_torch",
    "Session": "btard.launcher.run.session",
    "attack": "btard.node.adversary.registry",
    "load_run": "btard.launcher.run.loaded",
    "pre_aggregation": "btard.node.aggregation.registry",
    "rule": "btard.node.aggregation.registry",
    "run": "btard.launcher.run.library",
    "task": "btard.node.training.registry",
    "verify": "btard.launcher.verify.verification",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"btard has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
