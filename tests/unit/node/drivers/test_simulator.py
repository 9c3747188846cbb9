"""The other driver: virtual time, seeded links, the same seed the same run."""

from __future__ import annotations

import pytest
import torch

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.drivers.simulator import Observed, Simulation, remembering, remembering_bodies, remembering_gradients
from btard.node.errors import LocalProtocolError, WireError
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import Committed, Finished
from btard.node.protocol.state.state import parameters_digest
from btard.node.protocol.wire.encoding import encode_body
from btard.node.protocol.wire.messages import Agg, Phase, Slot
from tests.simulation.stage import Stage, set_up

# --- the simulation -------------------------------------------------------------------------------------------


RUN = RunConfig(peers=4, task=Plugin("quadratic", {"dimension": 9}), steps=4, batch_size=2)


def made(links: LinkModel | None = None, seed: int = 0, **more: object) -> Stage:
    role = Role((Plugin("noise"),), Schedule(start=1), (3,))
    return set_up(RUN, {3: role}, seed, links)


def story(simulation: Simulation) -> list[str]:
    return [f"{seen.time_s} {seen.node} {seen.output}" for seen in simulation.run()]


def final(stage: Stage) -> bytes:
    done = [seen.output for seen in stage.simulation.run() if isinstance(seen.output, Finished)]
    return parameters_digest(done[0].parameters_D)


JITTER = LinkModel(delay_s=0.01, jitter_s=0.2, duplicate=0.2, loss=0.1, seed=5)


def test_the_same_seed_repeats_to_the_last_bit() -> None:
    assert story(made(JITTER).simulation) == story(made(JITTER).simulation)


def test_the_network_changes_times_and_nothing_else() -> None:
    assert final(made()) == final(made(JITTER)) == final(made(LinkModel(delay_s=1.9)))


def test_another_protocol_seed_is_another_run() -> None:
    assert final(made()) != final(made(seed=1))


def test_time_runs_forward() -> None:
    times = [seen.time_s for seen in made(JITTER).simulation.run()]
    assert times == sorted(times)
    assert times[-1] > 0


def test_it_stops_at_a_time() -> None:
    stage = made(LinkModel(delay_s=0.5))
    assert all(seen.time_s <= 3.0 for seen in stage.simulation.run(until_s=3.0))
    assert stage.simulation.now_s <= 3.0


def test_it_refuses_to_run_for_ever() -> None:
    with pytest.raises(LocalProtocolError, match="within 50 events"):
        list(made().simulation.run(max_events=50))


def test_traffic_counts_what_left_for_others() -> None:
    stage = set_up(RUN)
    committed = 0
    for seen in stage.simulation.run():
        committed += isinstance(seen, Observed) and isinstance(seen.output, Committed) and seen.node == 0
    traffic = stage.simulation.traffic[0]
    assert committed == 5
    last = 4 + 2
    assert traffic.messages == 3 * (1 + 6 * 5 + last), "HELLO, six phases of five steps, last CLOSEs, view and OUTCOME"
    assert traffic.control_bytes > 64 * traffic.messages
    assert traffic.publication_bytes == 0


def test_a_signature_check_remembers_right_and_wrong_answers() -> None:
    asked = []

    def verify(public: bytes, message: bytes, signature: bytes) -> bool:
        asked.append(message)
        return signature == b"good"

    check = remembering(verify)
    assert [check(b"k", b"m", b"good"), check(b"k", b"m", b"bad"), check(b"k", b"m", b"good")] == [True, False, True]
    assert len(asked) == 2
    for number in range(5000):
        check(b"k", str(number).encode(), b"bad")
    assert not check(b"k", b"m", b"bad")


def test_equal_bodies_are_read_once_and_what_is_none_is_refused_each_time() -> None:
    decode = remembering_bodies()
    agg = Agg(Slot(b"r" * 32, b"o" * 32, 3, 0, Phase.AGG, 1), (), b"d" * 32)
    data = encode_body(agg)
    assert decode(data) == agg
    assert decode(bytes(bytearray(data))) is decode(data)
    for _ in range(2):
        with pytest.raises(WireError, match="a message body"):
            decode(data + b"\x00")


def test_remembered_gradients_are_the_tasks_own() -> None:
    stage = set_up(RUN)
    compute = remembering_gradients(stage.task, keep=2)
    parameters_D = stage.task.initial(0)
    for seed in (b"a" * 32, b"b" * 32, b"c" * 32, b"a" * 32):
        assert torch.equal(compute(parameters_D, seed, None)[0], stage.task.gradient(parameters_D, seed)[0])
    assert compute(parameters_D, b"a" * 32, None)[0] is compute(parameters_D, b"a" * 32, None)[0]
    attacked = compute(parameters_D, b"a" * 32, lambda inputs, targets: (inputs * 2, targets))[0]
    assert not torch.equal(attacked, compute(parameters_D, b"a" * 32, None)[0]), "an attacked batch is never remembered"
