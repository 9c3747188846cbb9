"""The real driver over real sockets: the same machine as in the simulator, to the bit; deadlines last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import monotonic
from typing import cast

import msgspec
import pytest
import torch
from torch import Tensor

from btard.node.build import Machine, Node, build_node, fingerprint_of, task_of
from btard.node.config import Endpoint, NodeConfig, Plugin, Role, RunConfig, Schedule
from btard.node.crypto.keys import generate
from btard.node.drivers.realtime import Driver
from btard.node.drivers.simulator import cluster
from btard.node.protocol.api import (
    Banned,
    Committed,
    Expelled,
    Finished,
    Halted,
    Input,
    MessageArrived,
    Output,
    PhaseEntered,
    RequestTranscript,
    TimePassed,
)
from btard.node.protocol.state.state import Resumption
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Phase, Signed
from btard.node.storage.checkpointer import Checkpointer
from btard.node.storage.disk import Disk
from btard.node.storage.durability import DurableMachine
from btard.node.training.task import Task
from btard.node.transport.arrivals import Arrival, ControlArrival
from btard.node.transport.envelope import seal, unseal
from btard.node.transport.transport import Transport

pytestmark = pytest.mark.sockets

ANYWHERE = Endpoint("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")
RUN = RunConfig(peers=6, task=Plugin("quadratic"), steps=30, batch_size=4)
ROLE = Role((Plugin("sign_flip"),), Schedule(start=2), (4, 5), attack_seed=3)
WATCHDOG_S = 60.0


def nodes(run: RunConfig, roles: Mapping[int, Role], run_id: str) -> list[Node]:
    members, secrets = generate(0, run.peers)
    task = task_of(run, Path("unused"))
    return [
        build_node(
            NodeConfig(run_id, me, run, members, "", "", "", role=roles.get(me)),
            secrets[me],
            task,
            fingerprint_of(run, task),
        )
        for me in range(run.peers)
    ]


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


def test_who_stays_says_after_the_end_what_was_said_in_the_last_attempt(stack: ExitStack) -> None:
    run = msgspec.structs.replace(RUN, steps=3)
    made, lines = nodes(run, {}, "run"), transports(stack, run.peers)
    made[0].peer.stays = True
    ended, drivers = list[tuple[int, int]](), list[Driver]()

    def told(output: Output) -> None:
        if isinstance(output, Committed):
            ended.append((output.step, output.attempt))

    for node, transport in zip(made, lines, strict=True):
        transport.accept_bulk = node.expects
        drivers.append(Driver(node, transport, told if node.id == 0 else _unheard))
    end = monotonic() + WATCHDOG_S
    with ThreadPoolExecutor(run.peers) as pool:
        list(pool.map(lambda driver: driver.run(lambda: monotonic() > end), drivers))
        again = RequestTranscript((0,), *ended[-1])
        lines[1].send_control(0, seal(again))
        over, phases = Event(), set[Phase]()
        stays = pool.submit(drivers[0].stay, over.is_set)
        while not phases >= {Phase.COMMIT, Phase.CLOSE}:  # at the end itself no COMMIT is passed on
            assert monotonic() < end
            for arrival in lines[1].poll(0.1):
                event = unseal(arrival.via, arrival.data) if isinstance(arrival, ControlArrival) else None
                if isinstance(event, MessageArrived) and event.via == 0:
                    phases.add(decode_body(event.signed.body).slot.phase)
        over.set()
        lines[1].send_control(0, seal(again))  # wakes it
        stays.result(WATCHDOG_S)


def test_what_has_happened_is_told_before_the_next_attempt_is_kept_and_that_before_it_is_said(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in between finds the end of the step still to come, not a step of which nobody can tell."""
    run, order = msgspec.structs.replace(RUN, steps=3), list[tuple[str, int]]()
    keepers = [Checkpointer(tmp_path / str(me), b"r" * 32, me, b"f") for me in range(run.peers)]
    made = [replace(node, checkpointer=kept) for node, kept in zip(nodes(run, {}, "run"), keepers, strict=True)]
    made[0] = replace(made[0], machine=DurableMachine(made[0].machine, made[0].peer, keepers[0]))
    save, sign = keepers[0].save, keepers[0].sign

    def saved(at: Resumption, own: bool) -> None:
        order.append(("kept", at.state.step))
        save(at, own)

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
    for checkpointer in keepers:
        checkpointer.close()
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


@pytest.mark.parametrize("silent", [False, True], ids=["also stopped", "silent"])
def test_while_a_process_is_stopped_no_deadline_passes(stack: ExitStack, silent: bool) -> None:
    """A laptop that slept, containers that were paused: the others go on a moment later, and nobody is at fault."""
    _, pair, seen = alone(stack)
    bounds = {"delivery_bound_s": 0.01, "gradient_bound_s": 0.01} if silent else {}
    run = msgspec.structs.replace(RUN, peers=2, **bounds)
    ahead, looks, over = 0.0, 0, Event()
    driver = Driver(nodes(run, {}, "run")[0], pair[0], seen.append, clock=lambda: monotonic() + ahead)
    other = Driver(nodes(run, {}, "run")[1], pair[1], _unheard)
    with ThreadPoolExecutor(1) as pool:

        def stopped() -> bool:
            """The process stands still for long in its first look; then the other one says HELLO."""
            nonlocal ahead, looks
            looks += 1
            if looks == 1:
                ahead = 1000.0
            if looks == 2 and not silent:
                pool.submit(other.run, over.is_set)
            return any(isinstance(each, PhaseEntered) and each.phase == "COMMIT" for each in seen)

        ending = driver.run(stopped)
        over.set()
        pair[0].send_control(1, b"\xc1")  # wakes it
    assert (ending is None) is not silent
    assert not silent or (isinstance(ending, Halted) and ending.phase == "HELLO")


class Standstill:
    """A machine and a transport whose process stands still once, in a wait or in a turn."""

    def __init__(self, machine: Machine, transport: Transport, in_turn: bool) -> None:
        self.ahead_s, self.told = 0.0, list[float]()
        self._handle, self._poll, self._in_turn = machine.handle, transport.poll, in_turn

    def clock(self) -> float:
        return monotonic() + self.ahead_s

    def handle(self, event: Input, /) -> list[Output]:
        if isinstance(event, TimePassed):
            self.told.append(event.now_s)
            if self._in_turn:
                self.ahead_s = 1000.0
        return self._handle(event)

    def poll(self, wait_s: float) -> list[Arrival]:
        arrivals = self._poll(wait_s)
        if arrivals:
            self.ahead_s = 1000.0
        return arrivals


@pytest.mark.parametrize("in_turn", [False, True], ids=["in a wait", "in a turn"])
def test_the_machine_is_told_a_time_that_does_not_go_back(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch, in_turn: bool
) -> None:
    """A peer measures by it how late others were, and how long its gradient took; asleep it waited for nobody, but for
    the wait that it had asked for."""
    _, pair, _ = alone(stack)
    run, over = msgspec.structs.replace(RUN, peers=2), Event()
    node = nodes(run, {}, "run")[0]
    still = Standstill(node.machine, pair[0], in_turn)
    monkeypatch.setattr(pair[0], "poll", still.poll)
    driver = Driver(replace(node, machine=still), pair[0], _unheard, clock=still.clock)
    other = Driver(nodes(run, {}, "run")[1], pair[1], _unheard)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(other.run, over.is_set)
        driver.run(lambda: len(still.told) > 12)
        over.set()
        pair[0].send_control(1, b"\xc1")  # wakes it
    assert still.ahead_s == 1000.0 and still.told == sorted(still.told)
    longest_s = max(1.0, node.peer.shared.settings.delivery_bound_s)
    assert in_turn or still.told[-1] <= monotonic() + longest_s


class Blocked:
    """A task whose gradients take until they are let go."""

    def __init__(self) -> None:
        self.begun, self.go_on = Event(), Event()

    def gradient(self, parameters_D: Tensor, seed: bytes, transform: object = None) -> tuple[Tensor, float]:
        self.begun.set()
        assert self.go_on.wait(WATCHDOG_S)
        return torch.zeros_like(parameters_D), 0.0


def blocked(stack: ExitStack, **changes: float) -> tuple[Driver, Driver, list[Transport], Blocked]:
    """Two drivers; the gradients of the first take until they are let go."""
    driver, pair, _ = alone(stack, **changes)
    task = Blocked()
    stack.callback(task.go_on.set)
    driver.node = replace(driver.node, task=cast(Task, task), gradient=None)
    run = msgspec.structs.replace(RUN, peers=2, **changes)
    return driver, Driver(nodes(run, {}, "run")[1], pair[1], _unheard), pair, task


def test_deadlines_do_not_wait_for_a_gradient(stack: ExitStack) -> None:
    driver, other, _, task = blocked(stack, delivery_bound_s=0.2, gradient_bound_s=0.2)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(driver.run, lambda: False)
        assert isinstance(other.run(lambda: False), Halted), "it lacks our COMMIT"
        ending = running.result(WATCHDOG_S)
        assert isinstance(ending, Halted)
        assert "s here, and --gradient-bound is 0.2 s: raise it" in ending.problem
    assert task.begun.is_set()
    assert not task.go_on.is_set()


def test_messages_are_handled_while_a_gradient_is_under_way(stack: ExitStack) -> None:
    """A peer in the midst of a gradient answers, forwards and disputes: D counts until a message is handled."""
    driver, other, pair, task = blocked(stack)
    over = Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(driver.run, over.is_set)
        other.run(lambda: task.begun.is_set() and not pair[1].poll(0.1))  # it has said what it has to say
        pair[1].send_control(0, seal(RequestTranscript((0,), 0, 0)))
        answered, end = list[Arrival](), monotonic() + WATCHDOG_S
        while not answered and monotonic() < end:
            answered = pair[1].poll(0.1)
        assert [type(each) for each in answered[:1]] == [ControlArrival]
        assert not task.go_on.is_set()
        over.set()
        pair[1].send_control(0, b"\xc1")  # wakes it
        assert running.result(WATCHDOG_S) is None, "it ends in the midst of its gradient"


def test_an_error_in_a_gradient_ends_the_driver(stack: ExitStack) -> None:
    driver, pair, _ = alone(stack)

    def fails(parameters_D: Tensor, seed: bytes, transform: object) -> tuple[Tensor, float]:
        raise ZeroDivisionError("in the model")

    driver.node = replace(driver.node, gradient=fails)
    other = Driver(nodes(msgspec.structs.replace(RUN, peers=2), {}, "run")[1], pair[1], _unheard)
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(other.run, stop.is_set)
        with pytest.raises(ZeroDivisionError, match="in the model") as raised:
            driver.run(lambda: False)
        stop.set()
        pair[0].send_control(1, b"\xc1")  # wakes it
        running.result(WATCHDOG_S)
    assert "fails" in [entry.name for entry in raised.traceback]


def test_what_was_signed_is_on_the_disk_before_it_leaves_with_one_wait_for_a_turn(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, order = msgspec.structs.replace(RUN, steps=3), list[str]()
    keepers = [Checkpointer(tmp_path / str(me), b"r" * 32, me, b"f", Disk(waits=me == 0)) for me in range(run.peers)]
    made = [
        replace(node, checkpointer=kept, machine=DurableMachine(node.machine, node.peer, kept))
        for node, kept in zip(nodes(run, {}, "run"), keepers, strict=True)
    ]
    joined = transports(stack, run.peers)
    sign, sync, send = keepers[0].sign, keepers[0].disk.sync, joined[0].send_control

    def signed(body: bytes, how: Callable[[bytes], Signed]) -> Signed:
        order.append("signed")
        return sign(body, how)

    def synced(file: int) -> None:
        sync(file)
        order.append("synced")

    def sent(to: int, data: bytes) -> None:
        order.append("sent")
        send(to, data)

    monkeypatch.setattr(keepers[0], "sign", signed)
    monkeypatch.setattr(keepers[0].disk, "sync", synced)
    monkeypatch.setattr(joined[0], "send_control", sent)
    drivers = []
    for node, transport in zip(made, joined, strict=True):
        transport.accept_bulk = node.expects
        drivers.append(Driver(node, transport, _unheard))
    end = monotonic() + WATCHDOG_S
    with ThreadPoolExecutor(run.peers) as pool:
        assert all(isinstance(each, Finished) for each in pool.map(lambda d: d.run(lambda: monotonic() > end), drivers))
    for checkpointer in keepers:
        checkpointer.close()
    unsynced = False
    for event in order:
        assert not (event == "sent" and unsynced)
        unsynced = event == "signed" or (unsynced and event != "synced")
    phases = order.count("signed")
    assert 20 < phases <= order.count("synced") + 5, "messages of one turn share a wait"
    # The ledger's opening; checkpoints and tensors have no wait of their own.
    assert order.count("synced") <= phases + 1


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
