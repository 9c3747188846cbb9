"""A worker's metrics: fed by outputs, and scraped from real workers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest
import torch
from prometheus_client import generate_latest

from btard.node.config import Plugin, Role, Schedule
from btard.node.crypto import keys
from btard.node.errors import ConfigError
from btard.node.metrics import declarations
from btard.node.metrics.declarations import METRICS, Group
from btard.node.metrics.http import text
from btard.node.metrics.worker_metrics import MetricsRecorder
from btard.node.protocol.api import (
    Accused,
    Banned,
    Committed,
    Dropped,
    Output,
    PhaseEntered,
    Resolved,
    Say,
    Undone,
    Voided,
)
from btard.node.protocol.wire.messages import Phase, Report, Slot, Verdict
from btard.node.transport.transport import Transport
from tests.launching import environment
from tests.scraping import Values, parse, scrape, with_labels
from tests.waiting import until
from tests.workers import FOR_EVER_S, QUADRATIC, Worker, changed, introduce, roster, workers

LOCAL = "127.0.0.1:0"
ATTACKED = msgspec.structs.replace(QUADRATIC, peers=4, steps=12, eval_every=4)
NODE_GROUPS = (Group.TRAINING, Group.PROTOCOL, Group.NETWORK, Group.INFO)


def last_values(each: Worker) -> Values:
    """Wait for a worker's end, then take the scrape it stays for."""
    until([each], lambda: bool(each.said("finished") or each.said("expelled")))
    return scrape(each.said("metrics")[0]["address"])


@pytest.mark.sockets
def test_a_real_attacked_run_has_data_for_every_declared_metric(tmp_path: Path) -> None:
    made = list(roster(tmp_path, ATTACKED))
    made[3] = changed(made[3], role=Role((Plugin("sign_flip"),), Schedule(start=2), (3,)))
    with workers([changed(each, metrics=LOCAL) for each in made]) as started:
        introduce(started)
        seen = [last_values(each) for each in started]
        assert [each.exit_code() for each in started] == [0] * 4, [each.log for each in started]
    wanted = [each for each in METRICS if each.group in NODE_GROUPS and each.waiting is None]
    missing = [name for each in wanted for name in each.series if not any(name in values for values in seen)]
    assert missing == []
    declared = {name for each in METRICS for name in each.series}
    ours = {name for values in seen for name in values if name.startswith(declarations.PREFIX)}
    assert {name for name in ours if not name.endswith("_created")} <= declared
    honest = seen[0]
    assert list(honest["btard_peer_state"].values()) == [1, 1, 1, 3]
    assert sum(honest["btard_bans_total"].values()) == 1
    assert sum(with_labels(honest["btard_accusations_total"], verdict="guilty")) == 1
    assert sum(with_labels(honest["btard_accusations_total"], verdict="cleared")) == 0
    assert honest["btard_step"] == {(): 12}
    assert honest["btard_step_duration_seconds_count"] == {(): 13}
    assert honest["btard_active_peers"] == {(): 3}
    assert honest["btard_samples_total"][()] % ATTACKED.batch_size == 0
    assert "process_cpu_seconds_total" in honest


@pytest.mark.sockets
def test_counters_are_those_of_the_journal(tmp_path: Path) -> None:
    with workers([changed(each, metrics=LOCAL) for each in roster(tmp_path)]) as started:
        introduce(started)
        for each in started:
            values, end = last_values(each), each.said("finished")[0]
            sent = values["btard_sent_bytes_total"]
            bulk = sum(sum(with_labels(sent, kind=kind)) for kind in ("part", "aggregate"))
            assert bulk == end["bulk_bytes"]
            assert sum(sent.values()) >= end["bulk_bytes"] + end["control_bytes"]
            assert {dict(labels)["peer"] for labels in sent} == {
                str(peer) for peer in range(3) if peer != each.config.node
            }


@pytest.mark.sockets
def test_metrics_stay_open_until_scraped_once_more_and_a_stop_ends_that(tmp_path: Path) -> None:
    made = roster(tmp_path, msgspec.structs.replace(QUADRATIC, peers=2))
    with workers([changed(each, metrics=LOCAL) for each in made], linger_s=FOR_EVER_S) as (scraped, stopped):
        introduce((scraped, stopped))
        assert last_values(scraped)["btard_step"] == {(): 3}
        assert stopped.process.exitcode is None, "it waits for a scrape"
        stopped.pipe.send(("stop",))
        assert stopped.exit_code() == 0
        while scraped.process.is_alive():  # its journal says "finished" before its values are final
            with suppress(OSError):
                scrape(scraped.said("metrics")[0]["address"])
            scraped.process.join(0.1)
        assert scraped.exit_code() == 0
        with pytest.raises(OSError, match="refused"):
            scrape(scraped.said("metrics")[0]["address"])


@pytest.mark.sockets
def test_an_address_in_use_is_one_clear_line(tmp_path: Path) -> None:
    made = roster(tmp_path)
    with workers([changed(made[0], metrics=LOCAL)]) as (first,):
        first.bound()
        taken = first.said("metrics")[0]["address"]
        with workers([changed(made[1], metrics=taken)]) as (second,):
            assert second.exit_code() == 1
            assert f"cannot serve metrics on {taken}: Address already in use" in second.log
            assert second.log.count("\n") == 1


# --- fed by hand ----------------------------------------------------------------------------------------------------


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[MetricsRecorder]:
    config = roster(tmp_path, msgspec.structs.replace(QUADRATIC, peers=4))[0]
    secrets = keys.load(Path(config.secrets_file))
    with closing(Transport(0, secrets, config.members, config.listen, run_id="run")) as transport:
        transport.counters.drop("stranger")
        transport.counters.drop("queue_full_bulk", 2)
        yield MetricsRecorder(config, transport)


def committed(step: int, active: tuple[int, ...] = (0, 1, 2, 3), validators: Mapping[int, int] | None = None) -> Output:
    return Committed(step=step, attempt=0, contributors=active, active=active, validators=validators or {},
                     parameters_D=torch.zeros(4), state_digest=b"", certificate=b"", clip_iterations=7,
                     parameter_digest=b"")  # fmt: skip


def report(checks: tuple[bool, ...], *verdicts: Verdict) -> Output:
    return Say((0, 1), Report(Slot(b"", b"", 0, 0, Phase.REPORT, 0), (), checks, verdicts, ()))


def banned(peer: int, reason: str) -> Output:
    return Banned(step=1, attempt=0, peer=peer, reason=reason, accuser=0, removed=True, evidence=b"")


BEGUN = PhaseEntered(0, 0, "COMMIT")
TOSSED = PhaseEntered(0, 0, "CHECKSUMS")
CHARGED = Accused(step=0, attempt=0, kind="averaging:sum", accused=2, part=2, accuser=None)
STATE = "btard_peer_state"
FED: list[tuple[str, list[Output], str, dict[str, str], float]] = [
    ("nobody has begun", [], STATE, {"peer": "1"}, 0),
    ("all are active", [BEGUN], STATE, {"peer": "1"}, 1),
    ("a charge is judged", [BEGUN, CHARGED], STATE, {"peer": "2"}, 2),
    ("it was false", [BEGUN, CHARGED, committed(0)], STATE, {"peer": "2"}, 1),
    ("and is counted", [BEGUN, CHARGED, committed(0)], "btard_accusations_total",
     {"kind": "averaging", "verdict": "cleared"}, 1),
    ("it was true", [BEGUN, CHARGED, banned(2, "aggregate"), committed(0)], STATE, {"peer": "2"}, 3),
    ("and is counted as such", [BEGUN, CHARGED, banned(2, "aggregate"), committed(0)], "btard_accusations_total",
     {"kind": "averaging", "verdict": "guilty"}, 1),
    ("a ban by reason", [banned(2, "aggregate")], "btard_bans_total", {"reason": "aggregate"}, 1),
    ("silence is no ban", [banned(2, "silent")], "btard_bans_total", {"reason": "silent"}, 0),
    ("but gone", [banned(2, "silent")], STATE, {"peer": "2"}, 4),
    ("removed by a dispute", [Resolved(0, 0, "retry", (3,))], STATE, {"peer": "3"}, 4),
    ("a dispute by outcome", [Resolved(0, 0, "retry", (3,))], "btard_disputes_total", {"outcome": "retry"}, 1),
    ("a ban outlasts a removal", [banned(3, "gradient"), Voided(0, 0, (3,))], STATE, {"peer": "3"}, 3),
    ("steps undone", [Undone(5, 0, (3,), ((3, 3), (4, 3)), 3, 2, older=False)], "btard_steps_undone_total", {}, 2),
    ("a word in an undo step", [Accused(5, 0, "history", 3, None, None)], "btard_steps_undone_total", {}, 0),
    ("a void toss", [BEGUN, Voided(0, 0, (3,))], "btard_mprng_rounds_total", {"result": "void"}, 1),
    ("a toss that was over before", [BEGUN, TOSSED, Voided(0, 0, ())], "btard_mprng_rounds_total",
     {"result": "void"}, 0),
    ("a toss", [BEGUN, TOSSED, committed(0)], "btard_mprng_rounds_total", {"result": "ok"}, 1),
    ("verdicts", [report((True,), Verdict(1, True), Verdict(2, False))], "btard_verifications_total",
     {"result": "false"}, 1),
    ("false claims", [report((True, False, False))], "btard_checksum_mismatches_total", {}, 2),
    ("drawn", [committed(3, validators={0: 1})], "btard_validator", {}, 1),
    ("drawn no more", [committed(3, validators={0: 1}), committed(4, validators={1: 0})], "btard_validator", {}, 0),
    ("the roster", [committed(3, active=(0, 1, 3))], "btard_active_peers", {}, 3),
    ("iterations", [committed(3)], "btard_centered_clip_iterations", {}, 7),
    ("late", [Dropped(1, "late")], "btard_late_messages_total", {"kind": "control"}, 1),
    ("twice", [Dropped(1, "duplicate")], "btard_duplicate_messages_total", {"kind": "control"}, 1),
    ("refused", [Dropped(1, "wrong_slot")], "btard_dropped_messages_total", {"peer": "1", "reason": "wrong_slot"}, 1),
    ("a full queue", [], "btard_dropped_messages_total", {"peer": "2", "reason": "queue_full_bulk"}, 1),
    ("a stranger", [], "btard_dropped_messages_total", {"peer": "unknown", "reason": "stranger"}, 1),
    ("two attempts", [BEGUN, Voided(0, 0, ()), PhaseEntered(0, 1, "COMMIT"), committed(0)],
     "btard_step_duration_seconds_count", {}, 1),
    ("each phase", [BEGUN, TOSSED, committed(0), PhaseEntered(1, 0, "COMMIT")], "btard_phase_duration_seconds_count",
     {"phase": "CHECKSUMS"}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("outputs", "name", "labels", "value"), [row[1:] for row in FED], ids=[row[0] for row in FED])
def test_an_output_moves_its_metric(
    meter: MetricsRecorder, outputs: list[Output], name: str, labels: dict[str, str], value: float
) -> None:
    for output in outputs:
        meter.observe(output)
    found = parse(generate_latest(meter.registry).decode())[name]
    assert sum(with_labels(found, **labels)) == value


def test_the_text_says_what_the_clients_own_encoder_says(meter: MetricsRecorder) -> None:
    for output in (BEGUN, TOSSED, report((False,), Verdict(1, False)), committed(0), banned(2, "gradient")):
        meter.observe(output)
    meter.board.gauge("run_info", task='quo"te', rule="back\\slash", peers="new\nline", steps="1", on_ban="").set(1e21)
    ours, theirs = (parse(data.decode()) for data in (text(meter.registry), generate_latest(meter.registry)))
    moving = {name for name in ours if name.startswith("process_")}
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - moving:
        assert str(ours[name]) == str(theirs[name]), name  # as text: NaN differs from itself


@pytest.mark.parametrize("address", ["9464", "localhost", ":9464", "host:port", "host:65536", "host:-1", "a:٣"])
def test_an_address_that_is_none_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        changed(roster(tmp_path)[0], metrics=address)


@pytest.mark.slow
def test_without_monitoring_nothing_of_it_is_imported() -> None:
    script = "import json, sys, btard.node.worker, btard.launcher.run.cluster; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert "btard.node.metrics.monitoring" in loaded
    assert not [
        name
        for name in loaded
        if name.startswith(("prometheus_client", "btard.node.metrics.worker_metrics", "http.server"))
    ]


def test_declarations_follow_prometheus_conventions() -> None:
    names = [each.name for each in METRICS]
    assert len(names) == len(set(names))
    for each in METRICS:
        assert each.name.endswith("_total") == (each.kind is declarations.Kind.COUNTER), each.name
        assert bool(each.buckets) == (each.kind is declarations.Kind.HISTOGRAM), each.name
        assert list(each.buckets) == sorted(set(each.buckets)), each.name
        assert not {"step", "run_id", "node"} & set(each.labels), each.name


def test_more_than_16_nodes_do_not_tell_their_peers_apart() -> None:
    assert declarations.metric("sent_bytes_total").labels_for(16) == ("peer", "kind")
    assert declarations.metric("sent_bytes_total").labels_for(17) == ("kind",)
    assert declarations.metric("peer_byzantine").labels_for(17) == ("peer", "attack")
