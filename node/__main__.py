"""`python -m node CONFIG.json`: one worker, for containers and for hand-started clusters.

It knows the others by host name. Names are turned into addresses once, before the first connection: a name that stops
resolving (a stopped container) would hold up ZeroMQ's only I/O thread for seconds at every attempt to reconnect.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from node import config as configuration
from node import health, liveness
from node.config import Endpoint, NodeConfig
from node.errors import BtardError, ConfigError, TransportError

NAMES_S = 60.0
"""Longest wait until the names of all peers resolve."""
MESH_S = 180.0
"""Longest wait for greetings: nobody holds a worker back until all others have begun, as a launcher does."""
GRACE_S = 60.0
"""Wait for the last f peers: their machines may still be fetching the image."""
_AGAIN_S = 0.2


def main(arguments: list[str]) -> int:
    """Run the worker that the configuration file describes; returns its exit code."""
    try:
        if len(arguments) != 1:
            raise ConfigError("use: python -m node CONFIG.json (`btard-launch plan --emit compose` sets a cluster up)")
        config = configuration.load(Path(arguments[0]))
        directory = Path(config.directory)
        with liveness.held(directory):
            if note := os.environ.get(health.VARIABLE):
                health.begin(directory / "journal.jsonl", note)
            code = _work(config)
            liveness.leave_word(directory, code)
        return code
    except BtardError as error:
        _say(f"error: {error}")
        return 2 if isinstance(error, ConfigError) else 1


def numeric(config: NodeConfig, wait_s: float, look_up: Callable[[str], str] = socket.gethostbyname) -> NodeConfig:
    """The configuration with every peer's host name replaced by its address.

    Raises:
        TransportError: a name does not resolve within `wait_s` seconds.
    """
    deadline = time.monotonic() + wait_s
    found: dict[str, str] = {}
    addresses = {}
    for peer, endpoint in config.addresses.items():
        both = []
        for url in (endpoint.control, endpoint.bulk):
            host, _, port = url.removeprefix("tcp://").rpartition(":")
            if host not in found:
                found[host] = _resolved(host, deadline, look_up)
            both.append(f"tcp://{found[host]}:{port}")
        addresses[peer] = Endpoint(*both)
    return msgspec.structs.replace(config, addresses=addresses)


def _resolved(host: str, deadline: float, look_up: Callable[[str], str]) -> str:
    while True:
        try:
            return look_up(host)
        except OSError as error:
            if time.monotonic() > deadline:
                advice = "is its container running, on the same network?"
                raise TransportError(f"the name {host!r} of a peer does not resolve ({error}); {advice}") from error
            time.sleep(_AGAIN_S)


def _work(config: NodeConfig) -> int:
    from node import worker  # torch loads here, after the lock and the health file are in place

    _say(f"node {config.node} of run {config.run_id}: looking for {len(config.members) - 1} peers")
    code = worker.main(numeric(config, NAMES_S), mesh_s=MESH_S, grace_s=GRACE_S)
    _say(f"node {config.node} ended with exit code {code}")
    return code


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
