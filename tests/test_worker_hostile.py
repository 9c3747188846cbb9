"""What a running worker endures: foreign frames, floods."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket as tcp
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic

import msgspec
import pytest
import zmq

from btard.node.config import Endpoint, Member, Plugin, split_address
from btard.node.crypto import keys
from btard.node.genesis.genesis import genesis_digest, genesis_roster
from btard.node.metrics.http import THREADS
from btard.node.protocol.api import BulkKey, BulkKind
from btard.node.protocol.wire.encoding import encode_body
from btard.node.protocol.wire.messages import Phase, Signed, Slot, View, view_bytes
from btard.node.transport import framing
from btard.node.transport.envelope import seal
from btard.node.transport.transport import Transport
from tests.ledgers import files
from tests.narrow import Narrow
from tests.scraping import scrape
from tests.unit.node.test_worker import NOWHERE, TOKEN, under_way
from tests.workers import ENDLESS, FOR_EVER_S, QUADRATIC, WATCHDOG_S, changed, introduce, push, roster, workers

pytestmark = pytest.mark.sockets
KEY = BulkKey(step=3, attempt=0, kind=BulkKind.PART, owner=2, part=0)
MEMBER_FRAMES = {
    "control_malformed": [[b""], [b"\x07x"], [b"\x01a", b"b"], [b""] * 500, [b"\x02\x63v"], [b"\x02\x02\xc1"]],
    "malformed": [[framing.encode_control(data)] for data in (b"\xc1", b"\x92\xc4\x01a", b"x" * 100_000)],
    "greeting_of_another_run": [[framing.encode_greeting(framing.Greeting("older", TOKEN))]],
}
BULK_FRAMES = {
    "bulk_malformed": [[b""], [b"\xc1", b"1234"], [framing.encode_bulk_header(TOKEN, KEY), b"123", b"4"], [b"a"] * 500],
    "bulk_unknown_token": [[framing.encode_bulk_header(TOKEN, KEY), bytes(8)]],
}


def test_malformed_and_foreign_frames_do_not_stop_running_workers(tmp_path: Path, stack: ExitStack) -> None:
    """A hand-written peer with a member's key, one with a stranger's, one without, and bytes on the bulk port."""
    made = roster(tmp_path, ENDLESS)
    with workers(made) as started:
        addresses = introduce(started)
        under_way(started)
        target, member = addresses[0], made[0].members[0]
        throw(stack, target, member, keys.load(Path(made[2].secrets_file)).transport_secret)
        mark = started[0].said("committed")[-1]["step"]
        under_way(started, mark + 20)
        os.kill(started[0].process.pid or 0, signal.SIGTERM)
        assert started[0].exit_code() == 143
        drops = started[0].drops
        assert {reason: drops.get(reason) for reason in (*MEMBER_FRAMES, *BULK_FRAMES)} == {
            reason: len(frames) for reason, frames in (*MEMBER_FRAMES.items(), *BULK_FRAMES.items())
        }
        assert drops["stranger"] >= 1
        assert not started[0].said("banned")


def throw(stack: ExitStack, target: Endpoint, member: Member, key: str) -> None:
    """Send everything that is wrong, each time followed by what shows that it has been read."""
    liar = push(stack, target.control, member, key)
    stranger = push(stack, target.control, member, zmq.curve_keypair()[1].decode())
    naked, bulk = push(stack, target.control), push(stack, target.bulk)
    for frames in (frames for rows in MEMBER_FRAMES.values() for frames in rows):
        liar.send_multipart(frames)
    for frames in (frames for rows in BULK_FRAMES.values() for frames in rows):
        bulk.send_multipart(frames)
    for outsider in (stranger, naked):
        # Turned away already, it has no line that a message could wait on.
        with suppress(zmq.Again):
            outsider.send(framing.encode_control(b"let me in"), zmq.NOBLOCK)
    oversized = push(stack, target.control, member, key)
    oversized.send(bytes(5 << 20))


def test_a_flood_of_a_member_neither_stops_a_step_nor_a_deadline(tmp_path: Path, stack: ExitStack) -> None:
    """Peer 2 is only a flood: it greets, then repeats junk. The others' deadlines still come, and it is gone."""
    bounds = {"delivery_bound_s": 0.5, "gradient_bound_s": 0.5}
    made = roster(tmp_path, msgspec.structs.replace(ENDLESS, **bounds))
    with workers(made[:2]) as started:
        secrets = keys.load(Path(made[2].secrets_file))
        peer = Transport(2, secrets, made[2].members, made[2].listen, run_id="run")
        stack.callback(peer.close, 0)
        peer.connect(introduce(started, {2: peer.bound}))
        end = monotonic() + WATCHDOG_S
        while not all(each.said("banned") for each in started):
            assert monotonic() < end
            for _ in range(100):
                for each in started:
                    peer.send_control(each.config.node, b"\x92\xc4\x01a\xc4\x01b")
            peer.poll(0.0)
        for each in started:
            os.kill(each.process.pid or 0, signal.SIGTERM)
        assert [each.exit_code() for each in started] == [143, 143]
        for each in started:
            assert [(ban["peer"], ban["standing"]) for ban in each.said("banned")] == [(2, "gone")]
            assert each.drops["malformed"] > 0


def test_a_flood_before_the_start_is_kept_to_a_few_messages(tmp_path: Path, stack: ExitStack) -> None:
    """Peer 2 talks at once while too few others are there: what it says meanwhile must not pile up."""
    made = roster(tmp_path, msgspec.structs.replace(QUADRATIC, peers=4))
    with workers(made[:1], mesh_s=4.0) as (alone,):
        peer = Transport(2, keys.load(Path(made[2].secrets_file)), made[2].members, made[2].listen, run_id="run")
        stack.callback(peer.close, 0)
        peer.connect(introduce([alone], {1: NOWHERE, 2: peer.bound, 3: NOWHERE}))
        for _ in range(20):
            peer.send_control(0, b"hello")
        while alone.process.exitcode is None:
            peer.poll(0.1)
        assert "no greeting from peers 1, 3 (peer 1: silent at " in alone.log
        assert alone.drops["early"] == 12


def test_junk_of_a_member_costs_the_disk_nothing(tmp_path: Path, stack: ExitStack) -> None:
    """Peer 2 floods with views of the attempt under way as large as they may be, whose signatures are false. They used
    to be in the ledger before they were checked: 179 MB a step, as much as its credits let through."""
    bounds = {"delivery_bound_s": 0.5, "gradient_bound_s": 0.5}
    made = [changed(each, checkpoints=True) for each in roster(tmp_path, msgspec.structs.replace(ENDLESS, **bounds))]
    with workers(made[:2]) as started:
        secrets, members = keys.load(Path(made[2].secrets_file)), made[2].members
        peer = Transport(2, secrets, members, made[2].listen, run_id="run")
        stack.callback(peer.close, 0)
        peer.connect(introduce(started, {2: peer.bound}))
        slot = Slot(genesis_digest("run", made[2].run, members), genesis_roster(members).digest, 0, 0, Phase.VIEW, 2)
        content = Signed(bytes(view_bytes(len(members)) - 1000), bytes(64))
        junk = seal(Signed(encode_body(View(slot, (), (content,))), bytes(64)))
        end = monotonic() + WATCHDOG_S
        while not all(each.said("banned") for each in started):
            assert monotonic() < end
            for each in started:
                peer.send_control(each.config.node, junk)
            peer.poll(0.0)
        for each in started:
            os.kill(each.process.pid or 0, signal.SIGTERM)
        assert [each.exit_code() for each in started] == [143, 143]
        for each in started:
            assert [(ban["peer"], ban["standing"]) for ban in each.said("banned")] == [(2, "gone")]
            refused = each.drops["bad_signature"]
            assert refused > 10
            written = sum(path.stat().st_size for path in files(Path(each.config.directory) / "state"))
            assert written < 10 * len(junk) < refused * len(junk)
            assert Path(each.config.directory, "journal.jsonl").stat().st_size < len(junk)


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """As many descriptors for this process as it may have, and their number."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 4 * STRANGERS:
        pytest.skip(f"this process may open {before[1]} descriptors; {4 * STRANGERS} are needed (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


STRANGERS = 1100


@pytest.mark.parametrize("few", [pytest.param(None, id="ordinary"), pytest.param(256, id="few")])
def test_more_idle_strangers_than_descriptors_cost_nobody_a_step(
    few: int | None, tmp_path: Path, stack: ExitStack, many_descriptors: int
) -> None:
    """They used to end a worker, which could not open its own ledger, once they had taken what it may have: the usual
    soft limit of 1024, or, where that cannot be raised, so few that they are gone before anybody looks. They come from
    the members' own address."""
    made = [changed(each, checkpoints=True) for each in roster(tmp_path, ENDLESS)]
    with workers(made, descriptors=(few, few) if few else (1024, many_descriptors)) as started:
        addresses = introduce(started)
        under_way(started)
        knocking = select.poll()
        where, lines = ("127.0.0.1", int(addresses[0].bulk.rsplit(":", 1)[1])), {}
        refused = 0
        for _ in range(STRANGERS):
            try:
                line = stack.enter_context(tcp.create_connection(where, WATCHDOG_S))
            except ConnectionError:  # shut before we could see it open
                refused += 1
                continue
            lines[line.fileno()] = line
            knocking.register(line, select.POLLIN)
        shut = 0
        end = monotonic() + WATCHDOG_S
        while shut < STRANGERS - refused - 60:
            assert monotonic() < end, shut
            for descriptor, _ in knocking.poll(100):
                if not answer(lines[descriptor]):
                    knocking.unregister(descriptor)
                    shut += 1
        under_way(started, started[0].said("committed")[-1]["step"] + 20)
        for each in started:
            os.kill(each.process.pid or 0, signal.SIGTERM)
        assert [each.exit_code() for each in started] == [143] * 3, [each.log for each in started]
        for each in started:
            assert not each.said("banned") and not each.said("suspected") and not each.said("disputed")
        assert started[0].drops["connection_closed"] >= shut


def knock(stack: ExitStack, endpoint: str, count: int) -> None:
    """Open connections that say nothing."""
    where = ("127.0.0.1", int(endpoint.rsplit(":", 1)[1]))
    for _ in range(count):
        stack.enter_context(tcp.create_connection(where, WATCHDOG_S))


def test_idle_strangers_do_not_end_a_tensor_that_trickles_in(tmp_path: Path, stack: ExitStack) -> None:
    """At 1.5 MB/s a first tensor was cut off with its line, which had delivered nothing yet, and its sender was removed
    in step 0."""
    plugin = Plugin("quadratic", {"dimension": 2_000_000})
    made = roster(tmp_path, msgspec.structs.replace(QUADRATIC, task=plugin, steps=1, eval_every=1000))
    with workers(made) as started:
        bound = {each.config.node: each.bound() for each in started}
        ways = {peer: Narrow(("127.0.0.1", int(at.bulk.rsplit(":", 1)[1])), 1.5e6, 200_000) for peer, at in
                bound.items()}  # fmt: skip
        for way in ways.values():
            stack.callback(way.close)
        for at in bound.values():
            knock(stack, at.bulk, 100)
        for each in started:
            each.pipe.send(
                ("addresses", {peer: Endpoint(at.control, ways[peer].address) for peer, at in bound.items()})
            )
        for way in ways.values():
            assert way.reached.wait(WATCHDOG_S)  # the first tensors, of 2.7 MB, are on their way
        assert not any(each.said("committed") for each in started)
        for at in bound.values():
            knock(stack, at.bulk, 100)
        assert [each.exit_code() for each in started] == [0] * 3, [each.log for each in started]
        for each in started:
            assert [step["step"] for step in each.said("committed")] == [0, 1]
            assert not any("RESEND" in step["phases"] for step in each.said("committed")), "no tensor was lost"
            assert not each.said("banned") and not each.said("suspected") and not each.said("disputed")
            assert each.drops["connection_closed"] >= 200 - 2 * (2 * 2 + 16)


def answer(line: tcp.socket) -> bytes:
    """What has come on a connection; nothing once it was shut."""
    try:
        return line.recv(1 << 12)
    except ConnectionError:
        return b""


def test_clients_of_metrics_that_drip_hold_up_neither_a_scrape_nor_the_end(tmp_path: Path, stack: ExitStack) -> None:
    made = roster(tmp_path, ENDLESS)
    with workers([changed(made[0], metrics="127.0.0.1:0"), *made[1:]], linger_s=FOR_EVER_S) as started:
        introduce(started)
        under_way(started)
        (where,) = started[0].said("metrics")
        drips = [
            stack.enter_context(tcp.create_connection(split_address(where["address"]), WATCHDOG_S))
            for _ in range(THREADS + 1)
        ]
        for line in drips:
            line.sendall(b"GET /metrics HT")
        for _ in range(2):
            for line in drips:
                with suppress(OSError):  # it was cut off
                    line.send(b"T")
            assert scrape(where["address"])["btard_step"][()] >= 0
        for each in started:
            os.kill(each.process.pid or 0, signal.SIGTERM)
        assert [each.exit_code() for each in started] == [143] * 3, "the end waits for no client"
