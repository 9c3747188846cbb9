"""`python -m btard.node CONFIG.json`: one worker, for containers and for hand-started clusters.

It knows the others by host name. Names are turned into addresses once, before the first connection: a name that stops
resolving (a stopped container) would hold up ZeroMQ's only I/O thread for seconds at every attempt to reconnect.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import msgspec

from btard.node import config as configuration
from btard.node.config import Endpoint, NodeConfig
from btard.node.errors import BtardError, ConfigError, TransportError
from btard.node.metrics import healthcheck
from btard.node.protocol.roster import Roster
from btard.node.storage import process_lock
from btard.node.storage.journal import records

NAMES_S = 60.0
"""Longest wait until the names of all peers resolve; then those of up to f may be missing."""
NAMES_AGAIN_S = 10.0
"""Wait for the last f of them where a worker is started again: the others wait for it."""
GRACE_S = 60.0
"""Wait for the last f peers: their machines may still be fetching the image."""
_AGAIN_S = 0.2
_NOBODY = "tcp://127.0.0.1:1"


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
            return 0
        if note := os.environ.get(healthcheck.VARIABLE):
            healthcheck.begin(journal, note)
        code = _work(config)
        process_lock.leave_word(directory, code)
    return code


def numeric(
    config: NodeConfig, wait_s: float, look_up: Callable[[str], str] = socket.gethostbyname, grace_s: float = NAMES_S
) -> NodeConfig:
    """The configuration with every peer's host name replaced by its address.

    Up to f peers may be without one, as they may be silent: a container that is stopped, or never came up, has no name.
    They get an address at which nobody answers, and are not found by this process if they come later.

    Args:
        wait_s: how long to wait for the names.
        look_up: an address of a name, or OSError.
        grace_s: how much of that to wait for the last f.

    Raises:
        TransportError: the names of more than f peers do not resolve within `wait_s` seconds.
    """
    hosts = {peer: [_host(url) for url in (at.control, at.bulk)] for peer, at in config.addresses.items()}
    faults = Roster.genesis(member.signing_key.encode() for member in config.members).faults
    found: dict[str, str] = {}
    began = time.monotonic()
    while True:
        errors = _look_up(sorted({host for both in hosts.values() for host in both} - found.keys()), look_up, found)
        enough = sum(any(host in errors for host in both) for both in hosts.values()) <= faults
        if not errors or time.monotonic() - began > (min(wait_s, grace_s) if enough else wait_s):
            break
        time.sleep(_AGAIN_S)
    if not enough:
        names, error = ", ".join(map(repr, errors)), next(iter(errors.values()))
        advice = "are their containers running, on the same network?"
        raise TransportError(f"peers' names {names} do not resolve ({error}); {advice}") from error
    addresses = {peer: Endpoint(_numeric(at.control, found), _numeric(at.bulk, found))
                 for peer, at in config.addresses.items()}  # fmt: skip
    return msgspec.structs.replace(config, addresses=addresses)


def _look_up(hosts: list[str], look_up: Callable[[str], str], found: dict[str, str]) -> dict[str, OSError]:
    """Ask for each name once; returns the errors."""
    errors = {}
    for host in hosts:
        try:
            found[host] = look_up(host)
        except OSError as error:
            errors[host] = error
    return errors


def _host(url: str) -> str:
    return url.removeprefix("tcp://").rpartition(":")[0]


def _numeric(url: str, found: Mapping[str, str]) -> str:
    host = _host(url)
    return f"tcp://{found[host]}:{url.rpartition(':')[2]}" if host in found else _NOBODY


def _work(config: NodeConfig) -> int:
    from btard.node import worker  # torch loads here, after the lock and the health file are in place

    _say(f"node {config.node} of run {config.run_id}: looking for {len(config.members) - 1} peers")
    again = (Path(config.directory) / "journal.jsonl").exists()
    named = numeric(config, max(NAMES_S, config.wait_s), grace_s=NAMES_AGAIN_S if again else NAMES_S)
    code = worker.main(named, mesh_s=config.wait_s, grace_s=GRACE_S)
    _say(f"node {config.node} ended with exit code {code}")
    return code


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
