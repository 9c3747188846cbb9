"""The thread beside the message loop: the same bits, in order, errors to the loop, and an end that waits for nobody."""

from __future__ import annotations

import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from btard.node.build import task_of
from btard.node.config import Plugin, RunConfig
from btard.node.drivers.computing import Computing, one_at_a_time, under_way
from btard.node.training.environment import fingerprint

WATCHDOG_S = 30.0


@pytest.fixture
def computing() -> Iterator[Computing]:
    made = Computing()
    yield made
    made.close()


def outcome(computing: Computing, work: Callable[[], Any]) -> Any:
    """What some work comes to, collected as the loop does."""
    found: list[Any] = []
    computing.submit(work, found.append)
    while not found:
        assert select.select([computing.descriptor], [], [], WATCHDOG_S)[0]
        computing.collect()
    return found[0]


TASKS = [
    Plugin("quadratic", {"dimension": 1000}),
    Plugin("transformer_lm", {"context_length": 16, "width": 16, "blocks": 1}),
]


@pytest.mark.parametrize("plugin", TASKS, ids=lambda plugin: plugin.name)
def test_a_gradient_has_the_bits_that_it_has_in_the_main_thread(plugin: Plugin, computing: Computing) -> None:
    task = task_of(RunConfig(task=plugin, batch_size=8), Path("unused"))
    parameters_D = task.initial(0)

    def gradient() -> tuple[torch.Tensor, float]:
        return task.gradient(parameters_D, bytes(32))

    here_D, here = gradient()
    there_D, there = outcome(computing, gradient)
    assert here_D.equal(there_D)
    assert here == there


def test_the_environment_is_the_makers(computing: Computing) -> None:
    """Its fingerprint is that of the gradients that others recompute; torch keeps some of it for each thread."""
    assert outcome(computing, lambda: fingerprint("cpu")) == fingerprint("cpu")
    threads = torch.get_num_threads()
    tiny = torch.tensor([1e-39])
    try:
        torch.set_num_threads(threads + 1)
        torch.set_flush_denormal(True)
        with torch.no_grad():
            made = Computing()
        there = outcome(made, lambda: (torch.get_num_threads(), torch.is_grad_enabled(), float(tiny.mul(0.5))))
        assert there == (threads + 1, False, 0.0)
        made.close()
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
    assert float(tiny.mul(0.5)) > 0


def test_work_is_done_in_order_and_told_by_a_descriptor(computing: Computing) -> None:
    assert select.select([computing.descriptor], [], [], 0)[0] == []
    found: list[int] = []
    for number in range(100):
        computing.submit(lambda number=number: number, found.append)  # type: ignore[misc]
    while len(found) < 100:
        assert select.select([computing.descriptor], [], [], WATCHDOG_S)[0]
        computing.collect()
    assert found == list(range(100))
    computing.collect()
    assert select.select([computing.descriptor], [], [], 0)[0] == [], "the loop may sleep again"


def test_spare_work_comes_last_however_much_there_is_of_it(computing: Computing) -> None:
    """A gradient waits for the piece of an evaluation that is under way, and for no other: it has a deadline."""
    go_on, found = threading.Event(), list[str]()
    computing.submit(lambda: go_on.wait(WATCHDOG_S), lambda done: None)
    for number in range(1000):
        computing.submit(lambda name=f"spare {number}": name, found.append, spare=True)  # type: ignore[misc]
    for number in range(4):
        computing.submit(lambda name=f"wanted {number}": name, found.append)  # type: ignore[misc]
    assert computing.spare == 1000
    go_on.set()
    while len(found) < 1004:
        assert select.select([computing.descriptor], [], [], WATCHDOG_S)[0]
        computing.collect()
    assert computing.spare == 0
    assert found == [*(f"wanted {number}" for number in range(4)), *(f"spare {number}" for number in range(1000))]


def test_an_error_is_the_loops_with_where_it_came_from(computing: Computing) -> None:
    def fails() -> None:
        raise RuntimeError("no such batch")

    computing.submit(fails, print)
    assert select.select([computing.descriptor], [], [], WATCHDOG_S)[0]
    with pytest.raises(RuntimeError, match="no such batch") as raised:
        computing.collect()
    assert "fails" in [entry.name for entry in raised.traceback]


def test_an_end_drops_what_is_under_way_and_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btard.node.drivers.computing._PATIENCE_S", 0.01)
    made, begun, go_on, later = Computing(), threading.Event(), threading.Event(), list[int]()

    def long() -> None:
        begun.set()
        go_on.wait(WATCHDOG_S)

    made.submit(long, print)
    made.submit(lambda: later.append(1), print)
    assert begun.wait(WATCHDOG_S)
    made.close()
    assert under_way()
    go_on.set()
    made._thread.join(WATCHDOG_S)
    assert not under_way()
    assert later == []


ENDS = """
import sys, threading, torch
from btard.node.__main__ import leave
from btard.node.drivers.computing import Computing
begun = threading.Event()
def long():
    begun.set()
    while True:
        torch.ones(300, 300) @ torch.ones(300, 300)
made = Computing()
made.submit(long, print)
begun.wait()
made.close()
print("out")
leave(7)
"""


@pytest.mark.slow
def test_a_process_ends_in_the_midst_of_a_gradient() -> None:
    """An interpreter that takes itself down under a thread in the midst of torch may abort, or never come to an end."""
    ended = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, timeout=10 * WATCHDOG_S, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, b"out\n", b"")


def test_two_threads_take_turns_and_one_may_come_again() -> None:
    inside, most = list[int](), list[int]()

    def compute(again: bool) -> int:
        inside.append(1)
        most.append(len(inside) if not again else 1)
        if again:
            locked(False)
        inside.pop()
        return 3

    locked = one_at_a_time(compute)
    threads = [threading.Thread(target=locked, args=(False,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert locked(False) == 3
    for thread in threads:
        thread.join(WATCHDOG_S)
    assert max(most) == 1
    assert locked(True) == 3
