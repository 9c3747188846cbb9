"""A run from a program: `from btard import Experiment, run; run(Experiment(...))`."""

from __future__ import annotations

from btard.launcher.run import cluster
from btard.launcher.run.cluster import Result
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.interrupts import Interrupted
from btard.launcher.run.observer import Observer


def run(experiment: Experiment, *, quiet: bool = False) -> Result:
    """Run an experiment to its end, its progress on stderr; the result holds the summary and the run directory.

    Args:
        experiment: what to run.
        quiet: say nothing.

    Raises:
        ConfigError: an option cannot be run.
        DataError: the data set is missing and cannot be fetched.
        BackendError: the place does not work: ports, disk, devices.
        KeyboardInterrupt: a signal stopped it; the run directory holds the summary.
    """
    result = cluster.run(experiment, None if quiet else _progress())
    if result.signum is not None:
        raise Interrupted(result.signum)
    return result


def _progress() -> Observer:
    from rich.console import Console

    from btard.launcher.monitor.live_view import LiveView

    return LiveView(Console(stderr=True, highlight=False))
