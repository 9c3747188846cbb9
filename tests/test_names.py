"""A worker that is started by hand or in a container: host names become addresses, all but f at least."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from btard.node import __main__ as worker_main
from btard.node.config import Endpoint, NodeConfig
from btard.node.errors import TransportError
from tests.workers import QUADRATIC, changed, roster


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    """Of one of four nodes, f = 1."""
    made = roster(tmp_path, msgspec.structs.replace(QUADRATIC, peers=4))
    addresses = {
        str(each.node): Endpoint(f"tcp://node-{each.node}:7400", f"tcp://node-{each.node}:7401") for each in made
    }
    return changed(made[0], addresses=addresses)


def without(*stopped: str) -> Callable[[str], str]:
    """Look up names, of which some have no address."""

    def look_up(host: str) -> str:
        if host in stopped:
            raise OSError("no such name")
        return "10.0.0." + host[-1]

    return look_up


def test_names_become_addresses_once_all_resolve(config: NodeConfig) -> None:
    answers = iter([OSError("not yet"), "10.0.0.9"])

    def look_up(host: str) -> str:
        answer = next(answers) if host == "node-2" else "10.0.0." + host[-1]
        if isinstance(answer, OSError):
            raise answer
        return answer

    found = worker_main.numeric(config, 30.0, look_up).addresses
    assert found["2"] == Endpoint("tcp://10.0.0.9:7400", "tcp://10.0.0.9:7401")
    assert found["1"] == Endpoint("tcp://10.0.0.1:7400", "tcp://10.0.0.1:7401")


def test_up_to_f_peers_may_be_without_a_name(config: NodeConfig) -> None:
    """A container that is stopped has none: a worker that starts again must not wait for it, nor end without it."""
    found = worker_main.numeric(config, 600.0, without("node-3"), grace_s=-1.0).addresses
    assert found["2"].control == "tcp://10.0.0.2:7400"
    assert found["3"] == Endpoint("tcp://127.0.0.1:1", "tcp://127.0.0.1:1")


def test_more_are_named_when_the_time_is_over(config: NodeConfig) -> None:
    with pytest.raises(TransportError, match=r"^peers' names 'node-2', 'node-3' do not resolve .no such name.; are"):
        worker_main.numeric(config, -1.0, without("node-2", "node-3"), grace_s=-1.0)
