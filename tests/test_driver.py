"""The real driver over real sockets: the same machine as in the simulator, to the bit; deadlines last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic

import msgspec
import pytest
import torch

from node.build import Node, build_node, task_of
from node.config import Endpoint, NodeConfig, Plugin, Role, RunConfig, Schedule
from node.driver import Driver
from node.keeper import Keeper
from node.keeping import Keeping
from node.keys import generate
from node.protocol.encoding import decode_body
from node.protocol.events import Output
from node.protocol.messages import Phase, Signed
from node.protocol.notices import Banned, Committed, Expelled, Finished, Halted
from node.protocol.resumption import Resumption
from node.simulator import cluster
from node.training.environment import fingerprint
from node.transport import Transport

pytestmark = pytest.mark.sockets

ANYWHERE = Endpoint("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")
RUN = RunConfig(peers=6, task=Plugin("quadratic"), steps=30, batch_size=4)
ROLE = Role((Plugin("sign_flip"),), Schedule(start=2), (4, 5), attack_seed=3)
WATCHDOG_S = 60.0


def nodes(run: RunConfig, roles: Mapping[int, Role], run_id: str) -> list[Node]:
    members, secrets = generate(0, run.peers)
    task = task_of(run, Path("unused"))
    return [
        build_node(NodeConfig(run_id, me, run, members, "", "", "", role=roles.get(me)), secrets[me], task,
                   fingerprint(run.device))
        for me in range(run.peers)
    ]  # fmt: skip


def transports(stack: ExitStack, peers: int) -> list[Transport]:
    """Connected and greeted."""
    members, secrets = generate(0, peers)
    made = [Transport(me, secrets[me], members, ANYWHERE, run_id="run") for me in range(peers)]
    for each in made:
        stack.callback(each.close, 0)
        each.connect({other.me: other.bound for other in made})
    end = monotonic() + WATCHDOG_S
    while any(len(each.greeted) < peers - 1 for each in made):
        assert monotonic() < end
        for each in made:
            each.poll(0.01)
    return made


def story(outputs: list[Output]) -> list[tuple[object, ...]]:
    """What a node saw happen, without times."""
    told: list[tuple[object, ...]] = []
    for output in outputs:
        match output:
            case Committed():
                told.append(("committed", output.step, output.attempt, output.active, output.state_digest))
            case Banned():
                told.append(("banned", output.step, output.peer, output.reason, output.accuser))
            case Finished() | Expelled() | Halted():
                told.append((type(output).__name__, output.step))
    return told


def test_the_same_seed_gives_the_same_bans_and_digests_in_both_drivers(stack: ExitStack) -> None:
    """Six peers, two attackers: over sockets and in the simulator every node tells the same story, bit for bit."""
    roles = dict.fromkeys(ROLE.accomplices, ROLE)
    simulated: dict[int, list[Output]] = {me: [] for me in range(RUN.peers)}
    for seen in cluster(RUN, task_of(RUN, Path("unused")), roles, run_id="run").run():
        simulated[seen.node].append(seen.output)
    real: dict[int, list[Output]] = {me: [] for me in range(RUN.peers)}
    drivers = []
    for node, transport in zip(nodes(RUN, roles, "run"), transports(stack, RUN.peers), strict=True):
        transport.accept_bulk = node.expects
        drivers.append(Driver(node, transport, real[node.id].append))
    end = monotonic() + WATCHDOG_S
    with ThreadPoolExecutor(RUN.peers) as pool:
        list(pool.map(lambda driver: driver.run(lambda: monotonic() > end), drivers))
    assert {peer for kind, *rest in story(real[0]) if kind == "banned" for peer in rest[1:2]} == {4, 5}
    for me in range(RUN.peers):
        assert story(real[me]) == story(simulated[me]), f"node {me}"


def test_what_has_happened_is_told_before_the_next_attempt_is_kept_and_that_before_it_is_said(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in between finds the end of the step still to come, not a step of which nobody can tell."""
    run, order = msgspec.structs.replace(RUN, steps=3), list[tuple[str, int]]()
    keepers = [Keeper(tmp_path / str(me), b"r" * 32, me, b"f") for me in range(run.peers)]
    made = [replace(node, keeper=kept) for node, kept in zip(nodes(run, {}, "run"), keepers, strict=True)]
    made[0] = replace(made[0], machine=Keeping(made[0].machine, made[0].peer, keepers[0]))
    save, sign = keepers[0].save, keepers[0].sign

    def saved(at: Resumption) -> None:
        order.append(("kept", at.state.step))
        save(at)

    def signed(body: bytes, how: Callable[[bytes], Signed]) -> Signed:
        slot = decode_body(body).slot
        if slot.phase is Phase.COMMIT:
            order.append(("said", slot.step))
        return sign(body, how)

    def told(output: Output) -> None:
        if isinstance(output, Committed):
            order.append(("told", output.step))

    monkeypatch.setattr(keepers[0], "save", saved)
    monkeypatch.setattr(keepers[0], "sign", signed)
    drivers = []
    for node, transport in zip(made, transports(stack, run.peers), strict=True):
        transport.accept_bulk = node.expects
        drivers.append(Driver(node, transport, told if node.id == 0 else _unheard))
    end = monotonic() + WATCHDOG_S
    with ThreadPoolExecutor(run.peers) as pool:
        list(pool.map(lambda driver: driver.run(lambda: monotonic() > end), drivers))
    for keeper in keepers:
        keeper.close()
    expected = [(kind, step) for step in range(run.steps) for kind in ("kept", "said", "told")]
    assert order[: len(expected)] == expected


def _unheard(output: Output) -> None:
    """Of nodes that the test does not look at."""


def alone(stack: ExitStack, **changes: float) -> tuple[Driver, list[Transport], list[Output]]:
    """Node 0 of two, driven; node 1 is only a transport that the test moves."""
    run = msgspec.structs.replace(RUN, peers=2, **changes)
    pair = transports(stack, 2)
    seen: list[Output] = []
    driver = Driver(nodes(run, {}, "run")[0], pair[0], seen.append)
    return driver, pair, seen


def test_a_silent_peer_is_named_when_the_deadline_passes(stack: ExitStack) -> None:
    driver, _, _ = alone(stack, delivery_bound_s=0.01, gradient_bound_s=0.01)
    ending = driver.run(lambda: False)
    assert isinstance(ending, Halted)
    assert (ending.phase, ending.peer) == ("HELLO", 1)


def test_what_is_here_already_counts_before_any_deadline(stack: ExitStack) -> None:
    """The peer's HELLO lies in the socket while the deadline has long passed: it is heard first."""
    driver, pair, seen = alone(stack, delivery_bound_s=1e-6, gradient_bound_s=1e-6)
    run = msgspec.structs.replace(RUN, peers=2, delivery_bound_s=1e-6, gradient_bound_s=1e-6)
    other = Driver(nodes(run, {}, "run")[1], pair[1], seen.append)
    assert isinstance(other.run(lambda: False), Halted)  # it has said HELLO, and heard none
    ending = driver.run(lambda: False)
    assert isinstance(ending, Halted)
    assert ending.phase == "COMMIT", "past HELLO, whose deadline had passed before the first look"


def test_undecodable_messages_are_counted(stack: ExitStack) -> None:
    driver, pair, _ = alone(stack, delivery_bound_s=0.05, gradient_bound_s=0.05)
    for data in (b"\xc1", b"\x92\xc4\x01a", bytes(5000)):
        pair[1].send_control(0, data)
    assert isinstance(driver.run(lambda: False), Halted)
    assert driver.dropped["malformed"] == 3


def test_told_to_stop_it_returns_without_an_ending(stack: ExitStack) -> None:
    driver, _, seen = alone(stack)
    assert driver.run(lambda: True) is None
    assert driver.ending is None
    assert not torch.isfinite(torch.tensor(driver.loss))
    assert [type(output).__name__ for output in seen] == ["PhaseEntered"]
