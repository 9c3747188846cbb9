"""Whole workers as processes: how they start, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from btard.node.config import Endpoint, NodeConfig, Plugin
from btard.node.crypto import keys
from btard.node.transport.transport import Transport
from tests.launching import environment
from tests.waiting import until
from tests.workers import ENDLESS, QUADRATIC, WATCHDOG_S, Worker, changed, configs, introduce, roster, workers

pytestmark = pytest.mark.sockets
TOKEN = bytes(range(32))
NOWHERE = Endpoint("tcp://127.0.0.1:1", "tcp://127.0.0.1:1")
HASTY = msgspec.structs.replace(QUADRATIC, delivery_bound_s=0.5, gradient_bound_s=0.5)
SILENT_ONE = msgspec.structs.replace(HASTY, peers=4)


def under_way(started: list[Worker], step: int = 1) -> None:
    """Wait until every worker has committed a step."""
    until(
        started, lambda: all(each.said("committed") and each.said("committed")[-1]["step"] >= step for each in started)
    )


# --- endings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peers", [2, 3])
def test_a_run_ends_everywhere_with_the_same_parameters(peers: int, tmp_path: Path) -> None:
    with workers(roster(tmp_path, msgspec.structs.replace(QUADRATIC, peers=peers))) as started:
        introduce(started)
        assert [each.exit_code() for each in started] == [0] * peers, [each.log for each in started]
        finished = [each.said("finished")[0] for each in started]
    assert len({record["parameter_digest"] for record in finished}) == 1
    for each, record in zip(started, finished, strict=True):
        assert (each.run_dir / record["path"]).stat().st_size == 4 * 64
        assert each.log == ""
        assert each.said("greeted")[0]["peers"] == [peer for peer in range(peers) if peer != each.config.node]


def test_workers_started_by_hand_need_no_launcher(tmp_path: Path) -> None:
    """`python -m btard.node CONFIG.json`, with fixed addresses instead of a pipe."""
    made = roster(tmp_path, msgspec.structs.replace(QUADRATIC, peers=2))
    free = {}
    for each in made:
        probe = Transport(each.node, keys.load(Path(each.secrets_file)), each.members, each.listen, run_id="probe")
        free[str(each.node)] = probe.bound
        probe.close(0)
    processes = []
    for each in made:
        path = Path(each.directory) / "config.json"
        path.write_bytes(msgspec.json.encode(changed(each, listen=free[str(each.node)], addresses=free)))
        processes.append(subprocess.Popen([sys.executable, "-m", "btard.node", str(path)], env=environment(),
                                          stderr=subprocess.PIPE, text=True))  # fmt: skip
    ended = [(process.communicate(timeout=WATCHDOG_S)[1], process.returncode) for process in processes]
    words = "node {0} of run {1}: looking for 1 peers\nnode {0} ended with exit code 0\n"
    assert ended == [(words.format(each.node, each.run_id), 0) for each in made]


@pytest.mark.parametrize("moment", ["bound", "greeting", "training"])
def test_sigterm_ends_a_worker_at_once_whatever_it_is_doing(moment: str, tmp_path: Path) -> None:
    with workers(roster(tmp_path, ENDLESS)) as started:
        if moment == "training":
            introduce(started)
            under_way(started)
        else:
            addresses = {each.config.node: each.bound() for each in started}
        if moment == "greeting":
            started[0].pipe.send(("addresses", addresses))
        for each in started:
            os.kill(each.process.pid or 0, signal.SIGTERM)
        assert [each.exit_code() for each in started] == [143] * 3
        for each in started:
            assert each.log == ""
            assert not (each.run_dir / "nodes" / str(each.config.node) / "parameters.f32").exists()


@pytest.mark.parametrize("moment", ["bound", "training"])
@pytest.mark.parametrize("how", ["stop", "gone"])
def test_a_worker_ends_when_its_launcher_says_so_or_vanishes(how: str, moment: str, tmp_path: Path) -> None:
    with workers(roster(tmp_path, ENDLESS)) as started:
        if moment == "training":
            introduce(started)
            under_way(started)
        else:
            for each in started:
                each.bound()
        for each in started:
            if how == "stop":
                each.pipe.send(("stop",))
            else:
                each.pipe.close()
        assert [each.exit_code() for each in started] == [143] * 3
        assert [each.log for each in started] == [""] * 3


def test_a_waiting_worker_does_not_spin(tmp_path: Path) -> None:
    """It comes to rest: two readings of its processor time, a while apart, are equal."""
    with workers(roster(tmp_path, ENDLESS)[:1]) as (alone,):
        alone.bound()
        end = monotonic() + WATCHDOG_S / 2
        used = -1
        while used != (now := cpu_ticks(alone)):
            assert monotonic() < end
            used = now
            alone.process.join(0.3)  # not a wait for an event: that nothing happens shows over a time only


def cpu_ticks(worker: Worker) -> int:
    fields = (Path("/proc") / str(worker.process.pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# --- what goes wrong before the first step ----------------------------------------------------------------------


def test_a_peer_that_never_greets_is_gone_and_the_run_trains_on(tmp_path: Path) -> None:
    """n = 4, f = 1: the others wait a while, go on without it, and remove it by the protocol."""
    made = roster(tmp_path, SILENT_ONE)
    with workers(made[:3], grace_s=1.0) as started:
        introduce(started, {3: NOWHERE})
        assert [each.exit_code() for each in started] == [0] * 3, [each.log for each in started]
        for each in started:
            assert (
                each.said("ungreeted")[0]["problem"] == "no greeting from peer 3 (peer 3: silent at tcp://127.0.0.1:1)"
            )
            assert [(ban["peer"], ban["standing"]) for ban in each.said("banned")] == [(3, "gone")]
            assert each.said("committed")[-1]["step"] == SILENT_ONE.steps
        assert len({each.said("finished")[0]["parameter_digest"] for each in started}) == 1


def test_a_peer_that_greets_only_one_of_the_others_makes_nobody_miss_the_start(
    tmp_path: Path, stack: ExitStack
) -> None:
    """Node 0 has all greetings and begins. The others' grace would outlast the watchdog: its HELLO ends it."""
    made = roster(tmp_path, SILENT_ONE)
    with workers(made[:3], mesh_s=2 * WATCHDOG_S, grace_s=2 * WATCHDOG_S) as started:
        peer = Transport(3, keys.load(Path(made[3].secrets_file)), made[3].members, made[3].listen, run_id="run")
        stack.callback(peer.close, 0)
        addresses = introduce(started, {3: NOWHERE})
        peer.connect({0: addresses[0]})
        assert [each.exit_code() for each in started] == [0] * 3, [each.log for each in started]
        assert [bool(each.said("ungreeted")) for each in started] == [False, True, True]
        for each in started:
            assert [(ban["peer"], ban["standing"]) for ban in each.said("banned")] == [(3, "gone")]


def test_more_than_f_that_never_greet_are_named(tmp_path: Path) -> None:
    made = roster(tmp_path, msgspec.structs.replace(QUADRATIC, peers=4))
    with workers(made[:2], mesh_s=4.0, grace_s=0.0) as started:
        introduce(started, {2: NOWHERE, 3: NOWHERE})
        assert [each.exit_code() for each in started] == [1, 1]
        for each in started:
            silent = "; ".join(f"peer {peer}: silent at tcp://127.0.0.1:1" for peer in (2, 3))
            assert f"no greeting from peers 2, 3 ({silent}) within 4 s" in each.log
            assert each.log.count("\n") == 1
            assert each.said("failed")[0]["error"] in each.log


def test_a_peer_of_another_run_is_named_with_the_reason(tmp_path: Path) -> None:
    made = roster(tmp_path, SILENT_ONE)
    with workers((*made[:3], changed(made[3], run_id="yesterday")), mesh_s=4.0) as started:
        introduce(started)
        assert [each.exit_code() for each in started] == [0, 0, 0, 1], [each.log for each in started]
        why = "no greeting from peer 3 (peer 3: it belongs to run 'yesterday' and we to 'run')"
        assert started[0].said("ungreeted")[0]["problem"] == why
        assert "peer 2: it belongs to run 'run' and we to 'yesterday'" in started[3].log
        assert started[0].drops["greeting_of_another_run"] >= 1


def test_a_key_that_is_not_the_rosters_is_refused(tmp_path: Path) -> None:
    """Node 2 was given another roster, with its own fresh key in it: the others do not let it in."""
    made, strange = roster(tmp_path / "a", HASTY), roster_of_another_seed(tmp_path / "b")
    members = (*made[0].members[:2], strange[2].members[2])
    with workers((*made[:2], changed(strange[2], members=members)), mesh_s=4.0) as started:
        addresses = introduce(started)
        assert [each.exit_code() for each in started] == [0, 0, 1], [each.log for each in started]
        at = addresses[2].control
        assert started[0].said("ungreeted")[0]["problem"] == f"no greeting from peer 2 (peer 2: silent at {at})"
        assert "no greeting from peers 0, 1 (peer 0: silent at tcp://127.0.0.1:" in started[2].log
        assert started[0].drops["stranger"] >= 1


def roster_of_another_seed(where: Path) -> tuple[NodeConfig, ...]:
    return configs(where, QUADRATIC, *keys.generate(1, QUADRATIC.peers))


BROKEN = {
    "secrets of another node": (lambda c: changed(c, secrets_file=c.secrets_file.replace("/0/", "/1/")), "not those"),
    "no secrets": (lambda c: changed(c, secrets_file="/nowhere/secrets.json"), "cannot read the key file /nowhere"),
    "no data": (lambda c: changed(c, run=msgspec.structs.replace(c.run, task=Plugin("mnist_cnn"))), "data mnist"),
    "an address of nobody": (lambda c: changed(c, listen=Endpoint("tcp://192.0.2.1:9", "tcp://127.0.0.1:*")), "listen"),
}


@pytest.mark.parametrize(("breaking", "words"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_work_ends_with_one_line(breaking: object, words: str, tmp_path: Path) -> None:
    assert callable(breaking)
    with workers([breaking(config) for config in roster(tmp_path)[:1]]) as (alone,):
        assert alone.exit_code() == 1
        assert words in alone.log
        assert alone.log.startswith("error: ")
        assert alone.log.count("\n") == 1
        assert alone.said("failed")


def test_a_busy_port_ends_with_one_line(tmp_path: Path) -> None:
    made = roster(tmp_path)
    with workers(made[:1]) as (first,):
        taken = changed(made[1], listen=first.bound())
        with workers([taken]) as (second,):
            assert second.exit_code() == 1
            assert "Address already in use" in second.log
            assert second.log.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_at_the_start_is_one_line(tmp_path: Path) -> None:
    made = roster(tmp_path)
    (Path(made[0].directory) / "journal.jsonl").symlink_to("/dev/full")
    with workers(made[:1]) as (alone,):
        assert alone.exit_code() == 1
        assert alone.log == (
            f"error: cannot write the journal {made[0].directory}/journal.jsonl: No space left on device; "
            "free the disk and run again\n"
        )


def test_a_disk_that_fills_up_while_journalling_is_one_line(tmp_path: Path) -> None:
    made = roster(tmp_path, msgspec.structs.replace(ENDLESS, peers=2, delivery_bound_s=0.5, gradient_bound_s=1.0))
    with workers(made[:1], file_bytes=5000) as limited, workers(made[1:]) as rest:
        introduce([*limited, *rest])
        assert limited[0].exit_code() == 1
        assert "cannot write the journal" in limited[0].log
        assert limited[0].log.count("\n") == 1
        committed = limited[0].said("committed")
        assert committed, "the journal still ends with a whole line"
        assert rest[0].exit_code() == 1
        assert "peer 0" in rest[0].said("halted")[0]["problem"], "its peer names it"
