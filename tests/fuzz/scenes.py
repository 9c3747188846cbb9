"""Recorded runs of a whole cluster, and a peer before any of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from btard.node.build import Node, build_node, fingerprint_of
from btard.node.config import NodeConfig, Plugin, Role, RunConfig, Schedule
from btard.node.crypto.keys import generate
from btard.node.drivers.simulator import Simulation, cluster
from btard.node.protocol.api import BulkArrived, Input, MessageArrived, Output
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Outcome, Signed, View
from btard.node.training.registry import build_task
from btard.node.training.task import TaskContext

PEERS, ATTACKER, STEPS = 4, 3, 3
RUN = RunConfig(peers=PEERS, task=Plugin("quadratic", {"dimension": 16}), steps=STEPS, batch_size=1)
SCENES: tuple[tuple[Plugin, ...], ...] = ((), (Plugin("complain"),), (Plugin("lie_checksum"),))


Told: TypeAlias = MessageArrived | BulkArrived


class _Listening:
    """A machine that writes down what it is told."""

    def __init__(self, inner: Any, heard: list[Input]) -> None:
        self._inner, self._heard = inner, heard

    def handle(self, event: Input) -> list[Output]:
        self._heard.append(event)
        outputs: list[Output] = self._inner.handle(event)
        return outputs


@cache
def world() -> tuple[Any, Any, Any]:
    """(task, members, secrets) of every scene."""
    task = build_task(RUN.task, TaskContext(Path("unused"), RUN.batch_size))
    return (task, *generate(0, PEERS))


@cache
def recorded(scene: int) -> tuple[Told, ...]:
    """What others tell peer 0 in a whole run of the scene; its own words and gradients it makes anew."""
    role = Role(SCENES[scene], Schedule(start=1), (ATTACKER,)) if SCENES[scene] else None
    roles = {ATTACKER: role} if role is not None else {}
    simulation: Simulation = cluster(RUN, world()[0], roles, run_id=f"scene {scene}")
    heard: list[Input] = []
    node = simulation.nodes[0]
    simulation.nodes[0] = replace(node, machine=_Listening(node.machine, heard))
    for _ in simulation.run(max_events=200_000):
        pass
    return tuple(event for event in heard if isinstance(event, MessageArrived | BulkArrived) and _told(event))


def _told(event: Told) -> bool:
    """Views and OUTCOMEs of the others are made anew too: a second one would convict its owner. And nobody can pass on
    what we have not said yet."""
    if isinstance(event, MessageArrived):
        body = decode_body(event.signed.body)
        return event.via not in (0, None) and body.slot.sender != 0 and not isinstance(body, View | Outcome)
    return event.via not in (0, None)


@cache
def words(scene: int) -> tuple[Signed, ...]:
    """Every message that the others say in a scene."""
    return tuple(dict.fromkeys(event.signed for event in recorded(scene) if isinstance(event, MessageArrived)))


def fresh(scene: int) -> Node:
    """Peer 0 before its run."""
    task, members, secrets = world()
    config = NodeConfig(f"scene {scene}", 0, RUN, members, "", "", "")
    return build_node(config, secrets[0], task, fingerprint_of(RUN, task))
