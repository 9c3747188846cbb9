"""Endpoints are parsed strictly; names are looked up beside the loop, and no name holds anything up."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from threading import Event

import pytest

from btard.node.config import Endpoint
from btard.node.transport.addresses import Resolver, Unresolved, host_names, join, look_up, split
from tests.workers import FOR_EVER_S, WATCHDOG_S

AT_ONCE = (0.001, 0.001)
NAMED = Endpoint("tcp://node-1:7400", "tcp://node-1:7401")
NUMBERED = Endpoint("tcp://10.0.0.1:7400", "tcp://10.0.0.1:7401")

ENDPOINTS = {
    "tcp://node-1.example.org:7400": ("node-1.example.org", 7400),
    "tcp://10.0.0.1:1": ("10.0.0.1", 1),
    "tcp://[::1]:65535": ("::1", 65535),
    "tcp://[fe80::1%eth0]:7400": ("fe80::1%eth0", 7400),
    "tcp://[::ffff:10.0.0.1]:7400": ("::ffff:10.0.0.1", 7400),
}


@pytest.mark.parametrize(("endpoint", "parts"), ENDPOINTS.items(), ids=ENDPOINTS)
def test_an_endpoint_is_taken_apart_and_put_together(endpoint: str, parts: tuple[str, int]) -> None:
    assert split(endpoint) == parts
    assert join(*parts) == endpoint


NONE = """
node-1:7400  tcp://node-1  tcp://node-1:  tcp://node-1:0  tcp://node-1:65536  tcp://node-1:*  tcp://node-1:7400/
tcp://::1:7400  tcp://[::1:7400  tcp://[node-1]:7400  tcp://[]:7400  tcp://:7400  udp://node-1:7400  ipc:///tmp/a
inproc://a  tcp://eth0;10.0.0.1:7400  tcp://node-1:-1  tcp://a@b:1
"""


@pytest.mark.parametrize(
    "endpoint", [*NONE.split(), "", "tcp://a b:1", "tcp://a:1\n", "tcp://a:\u0661", f"tcp://{'a' * 300}:1"]
)
def test_what_is_no_endpoint_is_none(endpoint: str) -> None:
    assert split(endpoint) is None


def test_only_names_have_to_be_looked_up() -> None:
    assert host_names(NAMED) == ("node-1",)
    assert host_names(NUMBERED) == host_names(Endpoint("tcp://[::1]:1", "nowhere")) == ()
    assert host_names(Endpoint("tcp://a:1", "tcp://b:1")) == ("a", "b")


def test_the_system_knows_this_machine() -> None:
    found = look_up("localhost")
    assert found and set(found) <= {"127.0.0.1", "::1"}


# --- the resolver ---------------------------------------------------------------------------------------------


@contextmanager
def resolver(look_up: Callable[[str], Sequence[str]], pauses_s: tuple[float, float] = AT_ONCE) -> Iterator[Resolver]:
    with closing(Resolver(look_up, pauses_s)) as made:
        yield made


def answers(made: Resolver) -> dict[int, Endpoint | Unresolved]:
    """Wait for the next ones."""
    assert select.select([made.descriptor], [], [], WATCHDOG_S)[0], "nothing was found"
    return made.answers()


def until(made: Resolver, peer: int, wanted: Endpoint) -> None:
    """Wait for an answer, whatever others come before."""
    while answers(made).get(peer) != wanted:
        pass


class Names:
    """A table of names that a test changes while it is asked."""

    def __init__(self, **addresses: Sequence[str]) -> None:
        self.addresses: dict[str, Sequence[str]] = addresses
        self.asked: list[str] = []

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.addresses:
            raise OSError("no such name")
        return self.addresses[host]


def test_a_name_becomes_its_address_and_a_number_stays_one() -> None:
    with resolver(Names(a=["fe80::7"])) as made:
        made.follow(3, Endpoint("tcp://a:1", "tcp://[::1]:2"))
        assert answers(made) == {3: Endpoint("tcp://[fe80::7]:1", "tcp://[::1]:2")}


def test_a_name_is_looked_up_until_its_peer_has_answered_there() -> None:
    """First it does not resolve, then it has the address of a container that is gone, then the peer's."""
    names = Names()
    with resolver(names) as made:
        made.follow(1, NAMED)
        assert answers(made) == {1: Unresolved("its name 'node-1' does not resolve (no such name)")}
        names.addresses["node-1"] = ["10.0.0.9"]
        until(made, 1, Endpoint("tcp://10.0.0.9:7400", "tcp://10.0.0.9:7401"))
        names.addresses["node-1"] = ["10.0.0.1"]
        until(made, 1, NUMBERED)
        made.settle(1)
        made.answers()  # one may have been under way
        asked = len(names.asked)
        made.follow(2, Endpoint("tcp://b:1", "tcp://b:1"))
        for _ in range(5):
            assert set(answers(made)) == {2}
        assert names.asked.count("node-1") <= asked, "it has answered: nobody asks for it any more"


def test_the_addresses_of_a_name_are_tried_in_turn_and_first_the_one_that_answered() -> None:
    both = ["::1", "127.0.0.1"]
    first, second = (Endpoint(join(host, 7400), join(host, 7401)) for host in both)
    with resolver(Names(**{"node-1": both})) as made:
        made.follow(1, NAMED)
        assert answers(made)[1] == first
        until(made, 1, second)
        until(made, 1, first)
    with resolver(Names(**{"node-1": both}), (0.001, FOR_EVER_S)) as made:
        made.follow(1, NAMED)
        until(made, 1, second)
        made.settle(1)
        made.follow(1, NAMED)
        assert answers(made)[1] == second


def test_a_look_up_that_never_returns_holds_up_nobody_else_and_happens_once() -> None:
    end, blocked, begun = Event(), Event(), []

    def stuck(host: str) -> Sequence[str]:
        if host == "node-1":
            begun.append(host)
            blocked.set()
            end.wait(WATCHDOG_S)
        return ["10.0.0.1"]

    try:
        with resolver(stuck) as made:
            made.follow(1, NAMED)
            assert blocked.wait(WATCHDOG_S)
            for _ in range(50):
                made.follow(1, NAMED)  # its peer keeps saying that it is somebody new
            made.follow(2, Endpoint("tcp://b:1", "tcp://b:2"))
            assert answers(made) == {2: Endpoint("tcp://10.0.0.1:1", "tcp://10.0.0.1:2")}
            made.settle(2)
            made.follow(3, NUMBERED)
            until(made, 3, NUMBERED)
            assert begun == ["node-1"], "no thread is started beside one that hangs"
        assert begun == ["node-1"], "to close waits for nobody"
    finally:
        end.set()


def test_where_a_peer_is_looked_for_anew_what_was_found_before_counts_no_more() -> None:
    names, moved = Names(**{"node-1": ["10.0.0.1"], "b": ["10.0.0.2"]}), Endpoint("tcp://b:1", "tcp://b:1")
    with resolver(names) as made:
        made.follow(1, NAMED)
        until(made, 1, NUMBERED)
        made.follow(1, moved)
        made.answers()
        until(made, 1, Endpoint("tcp://10.0.0.2:1", "tcp://10.0.0.2:1"))
        assert answers(made)[1] != NUMBERED


@pytest.mark.parametrize("host", ["a" * 64, "a..b"])
def test_a_name_that_cannot_be_one_does_not_resolve(host: str) -> None:
    with resolver(look_up) as made:
        made.follow(1, Endpoint(f"tcp://{host}:1", f"tcp://{host}:1"))
        assert isinstance(answers(made)[1], Unresolved)


def test_a_name_without_any_address_does_not_resolve() -> None:
    with resolver(Names(a=[])) as made:
        made.follow(1, Endpoint("tcp://a:1", "tcp://a:1"))
        assert isinstance(answers(made)[1], Unresolved)
