"""`python -m btard.node CONFIG.json`: one worker, for containers and for hand-started clusters.

It knows the others by host name; names are looked up beside the message loop (node/transport/addresses.py).
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from btard.node import config as configuration
from btard.node.config import NodeConfig
from btard.node.errors import BtardError, ConfigError
from btard.node.metrics import healthcheck
from btard.node.storage import process_lock
from btard.node.storage.journal import records


def main(arguments: list[str]) -> int:
    """Run the worker that the configuration file describes; returns its exit code."""
    try:
        if len(arguments) != 1:
            raise ConfigError(
                "use: python -m btard.node CONFIG.json (`btard-launch plan --emit compose` sets a cluster up)"
            )
        return run(configuration.load(Path(arguments[0])))
    except BtardError as error:
        _say(f"error: {error}")
        return 2 if isinstance(error, ConfigError) else 1


def run(config: NodeConfig) -> int:
    """Run a worker to its end, unless it has reached it in an earlier life; returns its exit code.

    Raises:
        BackendError: its directory cannot be used, or another process works in it.
        TransportError: the names of more than f peers do not resolve.
    """
    directory = Path(config.directory)
    with process_lock.held(directory):
        journal = directory / "journal.jsonl"
        if journal.exists() and any(record["event"] == "finished" for record in records(journal)):
            _say(f"node {config.node} of run {config.run_id} has finished already")
            process_lock.leave_word(directory, 0)
            _stay(config)
            return 0
        if note := os.environ.get(healthcheck.VARIABLE):
            healthcheck.begin(journal, note)
        code = _work(config)
        process_lock.leave_word(directory, code)
    return code


def _work(config: NodeConfig) -> int:
    from btard.node import worker  # torch loads here, after the lock and the health file are in place

    _say(f"node {config.node} of run {config.run_id}: looking for {config.run.peers - 1} peers")
    code = worker.main(config, mesh_s=config.wait_s, grace_s=config.grace_s)
    _say(f"node {config.node} ended with exit code {code}")
    return code


def _stay(config: NodeConfig) -> None:
    """Started again after the end: serve the files that are here until a signal comes, if that is wanted.

    Raises:
        BackendError: the address cannot be bound.
    """
    if not (config.stay and config.files and config.metrics is not None):
        return
    from prometheus_client import CollectorRegistry

    from btard.node.metrics.http import MetricsEndpoint
    from btard.node.storage.public_files import PublicFiles

    ends = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    files = PublicFiles(Path(config.directory).parent.parent, config.node)
    with closing(MetricsEndpoint(config.metrics, CollectorRegistry(), files)) as served:
        if note := os.environ.get(healthcheck.VARIABLE):
            healthcheck.begin(Path(config.directory) / "journal.jsonl", note, anew=False)
        _say(f"node {config.node} stays: its files are at http://{served.address}/files")
        signal.sigwait(ends)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def leave(code: int) -> NoReturn:
    """End the process; a gradient that is still under way is dropped, not waited for."""
    computing = sys.modules.get("btard.node.drivers.computing")
    if computing is not None and computing.under_way():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a thread in the midst of torch would crash an interpreter that takes itself down
    sys.exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
